"""No file tells where it was made: no registry's host, no path of the machine that built it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UNTRACKED = {".git", ".hypothesis", ".venv", "__pycache__", "build", "dist", "htmlcov"}

# Written so that the expressions don't match their own text.
FORBIDDEN = {
    "registry host": re.compile(
        r"files[.]pythonhosted|pypi[.](?:org|python)|(?:deb|security|ftp)[.]debian[.]org|(?:archive|security)[.]ubuntu[.]com"
        r"|registry[.](?:npmjs|yarnpkg)|(?:static|index)[.]crates[.]io|proxy[.]golang[.]org"
    ),
    "index option": re.compile(r"(?m)^-(?:-index-url|-extra-index-url|-find-links|f|i)\b"),
    # /root/x and /root/.ssh are what attacks in the sandbox reach for; they say nothing of the machine.
    "home of root": re.compile(r"(?<![\w.$}])[/]root[/](?=[.\w]{2})(?![.]ssh)"),
    "home of a person": re.compile(r"(?<![\w.$}])[/]home[/](?!you|user|alice|bob|agent)[a-z][\w-]*[/]"),
    "checkout": re.compile(
        r"(?<![\w.$}])[/]work[/](?:main|shared|plan|src)\b|[/](?:builds|workspace)[/][a-z]+[/]src"
    ),
    "package folder": re.compile(r"[/]opt[/](?:wheels|pypi)|[.]pyenv[/]"),
}


def _files() -> Iterator[Path]:
    """Tracked files and new ones that git wouldn't ignore; every file where there is no repository."""
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    if (ROOT / ".git").exists():
        listed = subprocess.run(command, capture_output=True, check=True, text=True).stdout
        yield from (ROOT / name for name in listed.split("\0") if name)
        return
    for path in ROOT.rglob("*"):
        parts = path.relative_to(ROOT).parts
        if not any(part in UNTRACKED or part.endswith(("_cache", ".egg-info")) for part in parts):
            yield path


def _texts() -> Iterator[tuple[str, str]]:
    for path in _files():
        if path.is_symlink() or not path.is_file():
            continue
        try:
            yield str(path.relative_to(ROOT)), path.read_text()
        except UnicodeDecodeError:
            continue  # not a text


def _findings(name: str, text: str) -> Iterator[str]:
    for kind, pattern in FORBIDDEN.items():
        for match in pattern.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            yield f"{name}:{line}: {kind}: {match[0]}"


def test_files_name_no_machine_when_committed() -> None:
    """What is published must hold for every reader's machine."""
    texts = dict(_texts())
    assert "pyproject.toml" in texts
    assert [finding for name, text in texts.items() for finding in _findings(name, text)] == []


def test_files_do_not_name_this_checkout_when_committed() -> None:
    """The folder that this copy lies in is known here and nowhere else."""
    if len(ROOT.parts) < 3:
        pytest.skip("the checkout is a folder at the top, whose name is too short to look for")
    assert [name for name, text in _texts() if re.search(rf"{re.escape(str(ROOT))}(?!\w)", text)] == []


@pytest.mark.parametrize(
    "pieces",
    [
        ("https://files.", "pythonhosted.org/x"),
        ("--index", "-url x"),
        ("see /", "root/.cache/pip"),
        ("cd /ho", "me/builder/project"),
        ("cd /wo", "rk/main"),
    ],
)
def test_words_are_found_when_a_file_has_them(pieces: tuple[str, str]) -> None:
    """The expressions find what they are for."""
    assert list(_findings("made-up", "".join(pieces)))


@pytest.mark.parametrize(
    "text", ["{stage}/work/upper", "/work/upper", "/home/you/project", "$HOME/x", "/root/.ssh/id"]
)
def test_words_are_not_found_when_a_path_is_anyones(text: str) -> None:
    """Paths that every machine has, or that stand for a reader's own, are fine."""
    assert list(_findings("made-up", text)) == []
