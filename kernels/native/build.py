"""Compile a C++ source once, with the system's compiler, and load it.

Why at run time: the kernels are specialised to a model's head size, group and page by macros, and
to the machine by ``-march=native``. The library lands in the user's cache under a name that hashes
everything it depends on, with its checksum beside it. The checksum is compared before loading: to
map a file that was cut short would kill the process. Without a compiler the caller falls back on
plain torch.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

log = logging.getLogger(__name__)

COMPILERS = ("c++", "g++", "clang++")
FLAGS = ("-std=c++17", "-O3", "-march=native", "-fopenmp", "-ffp-contract=fast", "-fno-math-errno")
LINK = ("-shared", "-fPIC")
TIMEOUT_S = 120


def native_cache() -> Path:
    """Return where compiled kernels live: ``$ENTROPIC_CACHE/native``, or under the XDG cache."""
    own = os.environ.get("ENTROPIC_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return (Path(own) if own else Path(base) / "entropic-time") / "native"


def compile(  # it is what it does
    source: Path, defines: Mapping[str, int | str], cache: Path
) -> ctypes.CDLL | None:
    """Return ``source`` compiled with ``defines`` and loaded; ``None`` if that cannot be done.

    What went wrong is logged once per distinct reason, as a warning.
    """
    compiler = find_compiler()
    if compiler is None:
        _warn("no C++ compiler ($CXX, c++, g++, clang++): attention runs in plain torch, slowly")
        return None
    macros = [f"-D{name}={value}" for name, value in sorted(defines.items())]
    try:
        library = cache / f"{source.parent.name}-{_key(compiler, source, macros)}.so"
        if not _intact(library):
            _build(compiler, source, macros, library)
        return ctypes.CDLL(str(library))
    except (OSError, subprocess.SubprocessError) as error:
        name = f"{source.parent.name}/{source.name}"
        _warn(f"{name} was not compiled ({_reason(error)}): plain torch runs instead")
        return None


def find_compiler() -> str | None:
    """Return the path of ``$CXX`` or of the first known C++ compiler; ``None`` without any."""
    own = os.environ.get("CXX")
    names = (own, *COMPILERS) if own else COMPILERS
    return next((path for name in names if (path := shutil.which(name))), None)


def _build(compiler: str, source: Path, macros: list[str], library: Path) -> None:
    library.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=library.parent) as scratch:
        part = Path(scratch) / library.name
        subprocess.run(
            [compiler, *FLAGS, *LINK, *macros, str(source), "-o", str(part)],
            check=True,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
        seal = Path(scratch) / _seal(library).name
        seal.write_text(_checksum(part))
        for path, target in ((part, library), (seal, _seal(library))):
            with path.open("rb") as file:
                os.fsync(file.fileno())
            path.replace(target)  # atomic; a pair that does not match is built again


def _seal(library: Path) -> Path:
    return library.with_suffix(".sum")


def _checksum(path: Path) -> str:
    content = path.read_bytes()
    return f"{len(content)} {hashlib.sha256(content).hexdigest()}"


def _intact(library: Path) -> bool:
    """Tell whether a library is there and is, byte for byte, what was compiled."""
    if not (library.is_file() and _seal(library).is_file()):
        return False
    return _seal(library).read_bytes() == _checksum(library).encode()


def _key(compiler: str, source: Path, macros: list[str]) -> str:
    digest = hashlib.sha256()
    headers = sorted(Path(__file__).parent.glob("*.h"))
    for path in (source, *headers):
        digest.update(path.read_bytes())
    for text in (*FLAGS, *LINK, *macros, _version(compiler), _cpu()):
        digest.update(text.encode() + b"\0")
    return digest.hexdigest()[:24]


@cache
def _version(compiler: str) -> str:
    done = subprocess.run([compiler, "--version"], capture_output=True, text=True, timeout=30)
    return f"{compiler} {done.stdout.partition(os.linesep)[0]}"


@cache
def _cpu() -> str:
    """Name the instruction set: a cache on a shared disk must not serve another machine."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


def _reason(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        lines = [line for line in (error.stderr or "").splitlines() if "error" in line]
        return lines[0].strip() if lines else f"compiler returned {error.returncode}"
    return next(iter(str(error).splitlines()), type(error).__name__)


@cache
def _warn(text: str) -> None:
    log.warning(text)
