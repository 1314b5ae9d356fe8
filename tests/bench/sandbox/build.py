"""A real program, configured, built and tested inside a sandbox, and beside it on the bare machine.

Owns: how its source is had (apt's own client, in a temporary folder), the three steps, the two clocks.
Must not know: how results are shown.
Invariants: nothing of the machine's apt is changed and nothing is kept; inside it is one staged call, its
    merge included.
Source: Debian's xz-utils: 56,000 lines of C, autoconf, libtool, and a test suite of its own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from homeostat.proto.config import Config
from homeostat.workers.executor.stage import remove_tree
from tests.compatibility.workbench import Workbench, is_there

PACKAGE = "xz-utils"
PROGRAMS = ("gcc", "make")
STEPS = (
    "./configure -q --disable-shared --disable-nls --disable-doc && make -s -j2 && "
    "make -s -j2 check > check.log 2>&1 && grep '^# ' check.log"
)
FETCH_S, BUILD_S = 120.0, 300.0


class UnobtainableError(Exception):
    """The source can't be had here; the message says why."""


@dataclass(frozen=True)
class Built:
    """Seconds on the clock, from the first step to the last (inside: to the end of the merge)."""

    seconds: float
    text: str
    files: int


def obtain(folder: Path) -> Path:
    """Download the source beneath this folder and unpack it; its top folder. Raises UnobtainableError."""
    if shutil.which("apt-get") is None:
        raise UnobtainableError("there is no apt-get")
    if absent := [program for program in PROGRAMS if not is_there(program)]:
        raise UnobtainableError(f"needs {' '.join(absent)}")
    for name in ("lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True)
    (folder / "sources.list").write_text(_sources())
    _apt(folder, "update")
    _apt(folder, "source", "--download-only", PACKAGE)
    (archive,) = (path for path in folder.glob("*.orig.tar.*") if path.suffix != ".asc")
    with tarfile.open(archive) as file:
        file.extractall(folder / "source", filter="data")
    (top,) = (folder / "source").iterdir()
    return top


def _sources() -> str:
    """The machine's own archives, for sources."""
    said = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(SITE) $(RELEASE) $(COMPONENT)", "Created-By: Packages"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    lines = {
        line for line in said.stdout.splitlines() if line.endswith(" main") and "-" not in line.split()[1]
    }
    if not lines:
        raise UnobtainableError("apt has no archive whose sources could be had")
    return "".join(f"deb-src {line}\n" for line in sorted(lines))


def _apt(folder: Path, *command: str) -> None:
    """Run apt-get on folders of its own."""
    options = {
        "Dir::Etc::sourcelist": folder / "sources.list", "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::lists": folder / "lists", "Dir::Cache": folder / "cache", "APT::Sandbox::User": "",
        "Acquire::Languages": "none", "Acquire::Retries": "1", "Acquire::http::Timeout": "20",
    }  # fmt: skip
    words = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
    try:
        ran = subprocess.run(
            ["apt-get", "-qq", *words, *command], cwd=folder, capture_output=True, text=True, check=False,
            timeout=FETCH_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise UnobtainableError(f"apt-get {command[0]} took more than {FETCH_S:.0f} s") from error
    if ran.returncode != 0:
        last = (ran.stderr.strip() or ran.stdout.strip() or "no reason given").splitlines()[-1]
        raise UnobtainableError(f"apt-get {command[0]}: {last}")


def build_inside(source: Path, work: Workbench) -> Built:
    """One staged call on a copy in a workspace, and the merge of all that it made."""
    work.copy(source, "source")
    began_s = time.monotonic()
    text = work.output(f"cd source && {STEPS}", "staged", limit_s=BUILD_S)
    seconds = time.monotonic() - began_s
    return Built(seconds, text, sum(1 for _ in (work.workspace / "source").rglob("*")))


def build_outside(source: Path, folder: Path) -> Built:
    """The same steps on a copy, by the same shell and with the same environment, without a sandbox."""
    shutil.copytree(source, folder / "outside", symlinks=True)
    environment = {"PATH": Config().sandbox.path, "HOME": str(folder), "LANG": "C.UTF-8", "TERM": "dumb"}
    began_s = time.monotonic()
    ran = subprocess.run(
        ["bash", "-c", STEPS], cwd=folder / "outside", env=environment, capture_output=True, text=True,
        check=True, timeout=BUILD_S, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    seconds = time.monotonic() - began_s
    return Built(seconds, ran.stdout, sum(1 for _ in (folder / "outside").rglob("*")))


def measure(rounds: int = 1) -> list[tuple[Built, Built]]:
    """Outside and inside, in turn. Raises UnobtainableError."""
    folder, work = Path(tempfile.mkdtemp(prefix="homeostat-build-", dir="/var/tmp")), Workbench()
    try:
        source = obtain(folder)
        pairs = []
        for number in range(rounds):
            work.renew()
            (folder / str(number)).mkdir()
            pairs.append((build_outside(source, folder / str(number)), build_inside(source, work)))
        return pairs
    finally:
        work.close()
        parent_fd = os.open(folder.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            remove_tree(parent_fd, folder.name)
        finally:
            os.close(parent_fd)


def main() -> int:
    """Print what building inside costs."""
    try:
        pairs = measure(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
    except UnobtainableError as error:
        print(f"build: SKIPPED: {error}")
        return 0
    for outside, inside in pairs:
        more = 100 * (inside.seconds / outside.seconds - 1)
        print(
            f"build of {PACKAGE}: outside {outside.seconds:.2f} s, "
            f"inside {inside.seconds:.2f} s ({more:+.1f} %)"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
