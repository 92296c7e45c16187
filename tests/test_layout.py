"""The shape of the repository: names, layers, file lengths, and nothing private in the texts."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = ("controllers", "simulator", "backend", "kernels", "traces", "reports")
TEXTS = {".py", ".md", ".toml", ".json", ".jsonl", ".csv", ".yaml", ".txt", ".mplstyle", ".cfg", ""}
LONGEST_FILE = 300
SKIPPED = {"__pycache__", "build", "dist"}

# Built from pieces, so that this file does not match itself.
PRIVATE_PATH = re.compile(r"(?<![\w.~}])/(?:" + "|".join(("home", "work", "tmp", "root")) + r")/\w")


def lint_imports(tree: Path) -> subprocess.CompletedProcess[str]:
    # A process of its own: in this one the packages may already be imported from elsewhere.
    code = "from importlinter.cli import lint_imports as lint; exit(lint(no_cache=True))"
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree), "NO_COLOR": "1", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def files() -> Iterator[Path]:
    for folder, folders, names in os.walk(ROOT):
        here = Path(folder)
        folders[:] = sorted(name for name in folders if not ignored(here / name))
        yield from (here / name for name in sorted(names) if not name.startswith("."))


def ignored(folder: Path) -> bool:
    hidden = folder.name.startswith(".") and folder != ROOT / ".ci"
    built = folder.name in SKIPPED or folder.name.endswith(".egg-info")
    return hidden or built or folder == ROOT / "reports" / "out"


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_resolves_inside_the_repository(name):
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin == str(ROOT / name / "__init__.py")


def test_no_other_distribution_ships_one_of_our_names():
    owners = importlib.metadata.packages_distributions()
    for name in PACKAGES:
        assert set(owners.get(name, [])) <= {CONFIG["project"]["name"]}, name


def test_every_package_is_packaged_and_linted():
    find = CONFIG["tool"]["setuptools"]["packages"]["find"]["include"]
    assert set(find) == {f"{name}*" for name in PACKAGES}
    assert set(CONFIG["tool"]["importlinter"]["root_packages"]) == set(PACKAGES)


def test_imports_keep_their_contracts():
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the packages, to plant forbidden imports in."""
    for name in PACKAGES:
        ignore = shutil.ignore_patterns("__pycache__", "data", "out", "results")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignore)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_planted_imports_break_their_contracts(copy):
    plants = {
        "controllers/planted.py": ("import torch\n", "controllers.planted -> torch"),
        "simulator/planted.py": ("import backend\n", "simulator.planted -> backend"),
        "kernels/planted.py": ("from traces import info\n", "kernels.planted -> traces.info"),
    }
    for path, (line, _) in plants.items():
        (copy / path).write_text(line)
    done = lint_imports(copy)
    assert done.returncode == 1, done.stdout + done.stderr
    for _, chain in plants.values():
        assert chain in done.stdout
    for contract in CONFIG["tool"]["importlinter"]["contracts"][:2]:
        assert f"{contract['name']} BROKEN" in done.stdout


def test_importing_the_control_plane_loads_numpy_and_nothing_heavier():
    paths = [path.relative_to(ROOT) for path in (ROOT / "controllers").rglob("*.py")]
    names = [".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in paths]
    code = "\n".join(["import sys", *(f"import {name}" for name in names), "print(*sys.modules)"])
    command = [sys.executable, "-c", code]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    loaded = {name.partition(".")[0] for name in output.split()}
    assert "numpy" in loaded
    assert not loaded & {"torch", "simpy", "scipy", "pyarrow", "matplotlib", "transformers"}


def test_python_files_stay_short():
    lengths = {p: len(p.read_text().splitlines()) for p in files() if p.suffix == ".py"}
    long = {str(p.relative_to(ROOT)): n for p, n in lengths.items() if n > LONGEST_FILE}
    assert not long
    assert len(lengths) > 10


def test_texts_hold_no_path_of_one_machine():
    found = {}
    for path in files():
        if path.suffix not in TEXTS or path.name == "LICENSE":
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if PRIVATE_PATH.search(line):
                found[f"{path.relative_to(ROOT)}:{number}"] = line.strip()[:100]
    assert not found


def test_the_path_rule_sees_paths_and_leaves_urls_and_words_alone():
    for folder in ("home", "work", "tmp", "root"):
        assert PRIVATE_PATH.search(f"see /{folder}/x for it")
    for text in ("https://site.org/home/x", "his work/rest ratio", "$HOME/x", "./work/x"):
        assert not PRIVATE_PATH.search(text)
