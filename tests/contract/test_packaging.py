"""What is shipped, what is locked, and what setting up says when something is missing."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("supervisor", "workers", "sandbox", "proto")
DATA_SUFFIXES = (".toml", ".cedar", ".cedarschema", ".json", ".md", ".txt")


def _project() -> dict[str, Any]:
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return project


def _normal(name: str) -> str:
    """A distribution's name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _names(requirements: list[str]) -> set[str]:
    return {_normal(re.split(r"[<>=~! ;\[]", text, maxsplit=1)[0]) for text in requirements}


def _locked(name: str) -> dict[str, str]:
    """Package → version of one lock file."""
    text = (ROOT / "requirements" / name).read_text()
    return {_normal(m[1]): m[2] for m in re.finditer(r"^([\w.-]+)==(\S+)", text, re.MULTILINE)}


def _copy_checkout(target: Path) -> Path:
    """What git would bring, symbolic links kept, without what tools leave behind."""
    ignored = shutil.ignore_patterns(
        ".git", ".venv", "__pycache__", "*.egg-info", ".*_cache", ".hypothesis", "build"
    )
    return Path(shutil.copytree(ROOT, target, symlinks=True, ignore=ignored))


@pytest.fixture(scope="module")
def wheel_names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names in a wheel that was built, without an index, from a copy of the checkout."""
    base = tmp_path_factory.mktemp("wheel")
    copy = _copy_checkout(base / "checkout")
    program = "import sys; from setuptools import build_meta as b; print(b.build_wheel(sys.argv[1]))"
    command = [sys.executable, "-W", "ignore", "-c", program, str(base)]
    built = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    (wheel,) = base.glob("*.whl")
    return set(zipfile.ZipFile(wheel).namelist())


def test_wheel_holds_one_package_when_built(wheel_names: set[str]) -> None:
    """Installed as they are, the four folders would overwrite other projects' packages of these names."""
    tops = {name.split("/")[0] for name in wheel_names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"homeostat"}


def test_wheel_holds_every_module_and_data_file_when_built(wheel_names: set[str]) -> None:
    """A policy, schema or prompt that is read at run time, or a module, must not be left behind."""
    expected = {
        f"homeostat/{path.relative_to(ROOT)}"
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*")
        if path.suffix == ".py" or (path.suffix in DATA_SUFFIXES and path.is_file())
    }
    assert len(expected) > 10
    assert expected - wheel_names == set()
    assert "homeostat/py.typed" in wheel_names


def test_folders_are_reached_by_relative_links_when_checked_out() -> None:
    """An absolute link, or a copy where a link should be, works on one machine only."""
    for folder in FOLDERS:
        assert os.readlink(ROOT / "src" / "homeostat" / folder) == f"../../{folder}"


def test_tests_are_no_package_when_collected() -> None:
    """With an __init__.py in tests/, pytest would name modules after the checkout's own folder."""
    assert list((ROOT / "tests").rglob("__init__.py")) == []


def test_entry_point_loads_when_installed() -> None:
    """`homeostat` on the command line leads to a function that exists."""
    (entry,) = importlib.metadata.entry_points(group="console_scripts", name="homeostat")
    assert callable(entry.load())


def test_version_is_the_same_everywhere_when_released() -> None:
    """The package says the version that its metadata says."""
    import homeostat

    assert homeostat.__version__ == _project()["version"]


@pytest.mark.parametrize("name", ["runtime.txt", "dev.txt", "build.txt"])
def test_lock_pins_by_hash_and_names_no_place_when_read(name: str) -> None:
    """Every package has a version and hashes; no index, link or path of one machine."""
    text = (ROOT / "requirements" / name).read_text()
    blocks = [block for block in re.split(r"(?m)^(?=[^\s#])", text) if block.strip() and block[0] != "#"]
    assert blocks
    for block in blocks:
        assert re.match(r"[\w.-]+==\S+", block), block
        assert "--hash=sha256:" in block, block
    assert not re.search(r"(?m)^-|://|@ ", text)


def test_lock_covers_what_the_project_declares_when_resolved() -> None:
    """A dependency added to pyproject.toml without `make lock` would be missing after set-up."""
    project = _project()
    runtime, dev = _locked("runtime.txt"), _locked("dev.txt")
    assert _names(project["dependencies"]) <= runtime.keys()
    assert _names(project["optional-dependencies"]["dev"]) <= dev.keys()
    assert runtime.items() <= dev.items()


def test_dependencies_have_a_reason_when_declared() -> None:
    """Each package that a user must install is explained in the ADR on dependencies."""
    text = (ROOT / "docs" / "adr" / "0002-dependencies.md").read_text().lower()
    unexplained = {name for name in _names(_project()["dependencies"]) if f"| `{name}`" not in text}
    assert unexplained == set()


def _setup_without_compiler(tmp_path: Path, uid: int) -> subprocess.CompletedProcess[str]:
    """Run ops/setup.sh as it would be seen by `uid` on a machine whose compiler finds no libcap."""
    copy = tmp_path / "checkout"
    for folder in ("ops", "requirements"):
        shutil.copytree(ROOT / folder, copy / folder)
    shutil.copy(ROOT / "pyproject.toml", copy)
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, body in {"gcc": "exit 1", "id": f"echo {uid}", "apt-get": 'echo "apt-get $*"; exit 9'}.items():
        (tools / name).write_text(f"#!/bin/sh\n{body}\n")
        (tools / name).chmod(0o755)
    environment = {"PATH": f"{tools}:{os.environ['PATH']}", "PYTHON": sys.executable, "HOME": str(tmp_path)}
    return subprocess.run(
        [copy / "ops" / "setup.sh"], env=environment, capture_output=True, text=True, check=False
    )


def test_setup_prints_the_one_command_when_a_user_lacks_packages(tmp_path: Path) -> None:
    """An ordinary user is told exactly what to run; nothing is half made."""
    done = _setup_without_compiler(tmp_path, uid=1000)
    assert done.returncode == 1
    assert "sudo apt-get install -y --no-install-recommends gcc libc6-dev libcap-dev" in done.stderr
    assert "apt-get update" not in done.stdout
    assert not (tmp_path / "checkout" / ".venv").exists()


def test_setup_installs_packages_when_root_lacks_them(tmp_path: Path) -> None:
    """Root gets them installed; when that fails, so does set-up, with the status of what failed."""
    done = _setup_without_compiler(tmp_path, uid=0)
    assert done.returncode == 9
    assert "apt-get update" in done.stdout
    assert not (tmp_path / "checkout" / ".venv").exists()
