"""What every command shares: results on stdout, diagnostics on stderr, one-line errors, exit codes.

Exit codes: 0 done, 1 a checked property failed, 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import functools
import importlib.metadata
import json
import logging
import os
import platform
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

FAILED, BAD_INPUT = 1, 2
INTERRUPTED = 130  # 128 and the number of SIGINT, as shells report it
JOBLIB = (
    r"\d+ tasks (which were still being processed|have been successfully executed)",
    "A worker stopped while some jobs were given to the executor",
)


def guarded(command: Callable[P, R]) -> Callable[P, R]:
    """Turn ``ValueError`` and ``OSError`` of a command into one line on stderr and exit code 2.

    An interrupt is one line too, with what it was raised with, and exit code 130.
    """

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except KeyboardInterrupt as interrupt:
            note(": ".join(("interrupted", *map(str, interrupt.args))))
            raise SystemExit(INTERRUPTED) from None
        except (ValueError, OSError) as error:
            if isinstance(error, BrokenPipeError):
                raise
            message = " ".join(str(error).split()) or type(error).__name__
            sys.stderr.write(f"error: {message}\n")
            raise SystemExit(BAD_INPUT) from None

    return run


def check_target(option: str, path: Path | None) -> None:
    """Raise where an output file cannot be written, before the work that would fill it."""
    if path is None:
        return
    if path.is_dir():
        raise ValueError(f"{option} must name a file, not a folder; got {path}")
    folder = path.absolute().parent
    if not folder.is_dir():
        raise ValueError(f"{option} must lie in an existing folder; got {path}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ValueError(f"{option} must lie in a folder we may write to; got {path}")


def emit_json(command: str, *, seed: int | None, config: dict[str, Any], **payload: Any) -> None:
    """Print one JSON object: command, version, seed, config, and ``metrics`` or ``rows``.

    Its ``provenance`` says what made it (``traces.provenance``).
    """
    document = {**made_by(command, seed=seed, config=config), "config": config, **payload}
    sys.stdout.write(json.dumps(document, indent=1, allow_nan=False) + "\n")


def made_by(command: str, *, seed: int | None, config: dict[str, Any]) -> dict[str, Any]:
    """Return what every JSON document of ``command`` begins with."""
    from traces.provenance import KEY, provenance

    schema = "entropic-" + command.replace(" ", "-")
    version = importlib.metadata.version("entropic-time")
    made = provenance(schema, seed=seed, config=config)
    return {"command": command, "version": version, "seed": seed, KEY: made}


def note(text: str) -> None:
    """Write one line of diagnostics to stderr."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


@contextmanager
def progress(title: str) -> Iterator[Callable[[int, int], None]]:
    """Yield ``update(done, total)`` drawing a bar on stderr.

    Where stderr is no terminal a line is written at each tenth, so that logs show life.
    """
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _tenths(title)
        return
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _tenths(title: str) -> Callable[[int, int], None]:
    seen = -1

    def update(done: int, total: int) -> None:
        nonlocal seen
        tenth = 10 * done // max(total, 1)
        if tenth > seen:
            seen = tenth
            note(f"{title}: {done}/{total}")

    return update


def quiet_libraries() -> None:
    """Keep library chatter off the terminal; our own logs go to stderr.

    joblib warns of what an interrupt or an error, of which we speak ourselves, left undone.
    """
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s")
    for text in JOBLIB:
        warnings.filterwarnings("ignore", message=text, category=UserWarning)


def commit(folder: Path) -> str:
    """Return the commit of the checkout ``folder`` lies in, "-dirty" if changed, or "unknown".

    A checkout that does not track ``folder`` is another's: we may be installed within one.
    """
    if _git(folder, "ls-files", "--error-unmatch", ".") is None:
        return "unknown"
    return _git(folder, "describe", "--always", "--dirty", "--exclude", "*") or "unknown"


def _git(folder: Path, *words: str) -> str | None:
    """Return what git says in ``folder``, None where it fails or is not there."""
    git = ["git", *words]
    try:
        done = subprocess.run(git, capture_output=True, text=True, cwd=folder, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def package_versions(*names: str) -> dict[str, str]:
    """Return installed versions of ``names``, and Python's."""
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
