"""`make tests` and `make test`: the suites in parts, several at a time, each part's output printed whole.

Owns: what makes a part, their order, how many run at a time, the summary.
Must not know: what any test does; who an ordinary user is (ops/test-as-user.sh).
Invariants: every folder of tests is in exactly one part, a new one without being named here; exits 1 when any
    part failed or nothing ran; an interrupt reaches every part, and each cleans up before this ends.
Source: most tests wait for processes and clocks, so that one after the other they use half of a core.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

ROOT: Final = Path(__file__).resolve().parents[1]
TOGETHER: Final = ("tests/unit", "tests/contract", "tests/sandbox", "tests/compatibility")
"""Run whole: many quick tests, or costly things that a session shares. Elsewhere each child is a part."""

FOR_USERS: Final = (
    "tests/unit/executor", "tests/unit/sandbox", "tests/unit/supervisor", "tests/sandbox",
    "tests/integration", "tests/compatibility",
)  # fmt: skip
"""What depends on who runs it. Pure logic is the same for everyone, and root has run the long ones."""

LONGEST_FIRST: Final = (
    "tests/compatibility", "tests/integration/supervisor", "tests/integration/upkeep", "tests/unit",
    "tests/sandbox", "tests/integration/daemon", "tests/integration/bad_input", "tests/integration/freeze",
    "tests/integration/executor", "tests/integration/test_chaos_detects.py", "tests/integration/gate",
)  # fmt: skip
"""A long part that began last would be waited for alone. Others come between the known and the very short."""

NOTHING_COLLECTED: Final = 5
PLACE: Final = "{place}"
"""Where a part's own folder for temporary files comes in: pytest's common one is swept by each that ends, and
what another has just left there (folders deeper than it can go) would be its failure.
"""
FAILURE: Final = re.compile(r"^(?:\x1b\[[0-9;]*m)*(?:FAILED|ERROR)\b.*", re.MULTILINE)


@dataclass(frozen=True)
class Part:
    """One process: what it is called in the summary, and what it runs."""

    name: str
    command: tuple[str, ...]
    may_be_empty: bool = False


@dataclass
class Running:
    """A part that has begun."""

    part: Part
    process: subprocess.Popen[bytes]
    output: IO[bytes]
    place: str
    began_s: float


@dataclass(frozen=True)
class Result:
    """How a part ended; the lines that name its failures."""

    part: Part
    status: int
    seconds: float
    failures: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether all that it ran did well, and it ran something."""
        return self.status == 0 or (self.status == NOTHING_COLLECTED and self.part.may_be_empty)


# -- what there is to run ------------------------------------------------------------------------------


def folders(paths: Iterable[str], root: Path = ROOT) -> list[str]:
    """The parts of these test paths: themselves, or each child with tests; longest first."""
    found: list[str] = []
    for path in paths:
        if path.startswith(TOGETHER):
            found += [path] if _has_tests(root / path) else []
        else:
            found += sorted(f"{path}/{child.name}" for child in (root / path).iterdir() if _has_tests(child))
    known = {path: place for place, path in enumerate(LONGEST_FIRST)}
    return sorted(found, key=lambda path: known.get(path, len(known)))


def _has_tests(path: Path) -> bool:
    return bool(re.fullmatch(r"test_.*\.py", path.name)) or any(path.rglob("test_*.py"))


def configured(root: Path = ROOT) -> list[str]:
    """What pyproject.toml says that pytest runs."""
    with (root / "pyproject.toml").open("rb") as file:
        paths: list[str] = tomllib.load(file)["tool"]["pytest"]["ini_options"]["testpaths"]
    return paths


def pytest_part(*paths: str, marks: str = "") -> Part:
    """A part that runs these paths. The cache of failures is left to a person: parts would mix it."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *paths]
    command += [f"--basetemp={PLACE}"]
    command += ["-m", marks] if marks else []
    command += ["--color=yes"] if sys.stdout.isatty() else []
    name = " ".join(path.removeprefix("tests/") for path in paths)
    return Part(name, tuple(command), may_be_empty=bool(marks))


def parts(*, for_user: bool, twice: bool) -> list[Part]:
    """All that this run consists of."""
    if for_user:
        return [pytest_part(path, marks="not slow") for path in folders(FOR_USERS)]
    both = [Part("as an ordinary user", ("ops/test-as-user.sh",))] if twice else []
    return both + [pytest_part(path) for path in folders(configured())]


# -- running it ----------------------------------------------------------------------------------------


def begin(part: Part) -> Running:
    """Start it in a process group of its own, by which an interrupt is passed on."""
    output = tempfile.TemporaryFile()  # noqa: SIM115 (finish() closes it)
    place = tempfile.mkdtemp(prefix="hs-part-")
    command = [word.replace(PLACE, f"{place}/t") for word in part.command]
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
        process_group=0,
    )  # fmt: skip
    return Running(part, process, output, place, time.monotonic())


def finish(running: Running, status: int) -> Result:
    """Print what it said."""
    seconds = time.monotonic() - running.began_s
    with running.output as output:
        output.seek(0)
        text = output.read().decode(errors="replace")
    # Not shutil.rmtree: it recurses, and tests leave folders thousands deep, and some that nobody may enter.
    subprocess.run(["rm", "-rf", "--", running.place], check=False, stderr=subprocess.DEVNULL)
    result = Result(running.part, status, seconds, tuple(FAILURE.findall(text)))
    verdict = "passed" if result.passed else f"FAILED (status {status})"
    say(f"{running.part.name}: {verdict} in {seconds:.0f} s", text.strip("\n"), "")
    return result


def run(waiting: deque[Part], lanes: int) -> list[Result]:
    """Carry all of it out, `lanes` at a time."""
    running: dict[int, Running] = {}
    results: list[Result] = []
    try:
        while waiting or running:
            while waiting and len(running) < lanes:
                begun = begin(waiting.popleft())
                running[begun.process.pid] = begun
            pid, status = os.wait()
            if ended := running.pop(pid, None):
                ended.process.returncode = os.waitstatus_to_exitcode(status)
                results.append(finish(ended, ended.process.returncode))
    except KeyboardInterrupt:
        interrupt(running.values())
        raise
    return results


def interrupt(running: Iterable[Running]) -> None:
    """Have every part stop and clean up, and show how far it was."""
    for one in running:
        os.killpg(one.process.pid, signal.SIGINT)
    for one in running:
        finish(one, one.process.wait())


# -- what a person sees --------------------------------------------------------------------------------


def say(*lines: str) -> None:
    """Print at once: a person waits for it."""
    print(*lines, sep="\n", flush=True)


def summary(results: list[Result], seconds: float) -> int:
    """The failures once more, at the end; the exit status."""
    failed = [result for result in results if not result.passed]
    for result in failed:
        lines = dict.fromkeys(result.failures) or ["(see its output above)"]
        say(f"tests: {result.part.name} failed:", *(f"  {line}" for line in lines))
    say(f"tests: {len(results) - len(failed)} of {len(results)} parts passed in {seconds:.0f} s")
    return 1 if failed or not results else 0


def lanes_wanted() -> int:
    """As many as there are processors, and never only one: who waits uses none."""
    return int(os.environ.get("HOMEOSTAT_TEST_LANES") or max(2, min(4, os.cpu_count() or 1)))


def main() -> int:
    """See `--help`."""
    parser = argparse.ArgumentParser(description="Run the tests in parts, several at a time.")
    parser.add_argument("--twice", action="store_true", help="as root, also as an ordinary user meanwhile")
    parser.add_argument("--for-user", action="store_true", help="only what depends on who runs it")
    parser.add_argument("--list", action="store_true", help="only name what the parts would run")
    chosen = parser.parse_args()
    if chosen.list:
        say(*folders(FOR_USERS if chosen.for_user else configured()))
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    twice, lanes, began_s = chosen.twice and os.geteuid() == 0, lanes_wanted(), time.monotonic()
    todo = parts(for_user=chosen.for_user, twice=twice)
    say(f"tests: {len(todo)} parts, {lanes + twice} at a time; each is shown when it ends")
    try:
        # The ordinary user's part comes first and has lanes of its own: it takes one beside this run's.
        return summary(run(deque(todo), lanes + twice), time.monotonic() - began_s)
    except KeyboardInterrupt:
        say("tests: interrupted")
        return 130


if __name__ == "__main__":
    sys.exit(main())
