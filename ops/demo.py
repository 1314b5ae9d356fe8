"""`make demo`: a task does real work on a copy of this repository while its workers are killed.

Owns: a home and a workspace in a temporary folder, the plan, the kills, the verdict.
Must not know: how anything is carried out: it uses the command line, the client library and signals.
Invariant: it leaves nothing behind; 0 means that the effect of every command and of the edit was counted at
    its target, exactly once.
Source: issue "The spine", "Shown by".
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from homeostat.proto import wire
from homeostat.proto.client import Client
from homeostat.proto.config import Config
from homeostat.proto.errors import HomeostatError
from homeostat.proto.records import Plan, PlanStep
from homeostat.supervisor.cli.lines import Lines
from homeostat.supervisor.cli.text import brief, duration, table

REPOSITORY = Path(__file__).resolve().parents[1]
COPIED = (
    "proto",
    "supervisor",
    "workers",
    "sandbox",
    "src",
    "tests",
    "docs",
    "pyproject.toml",
    "__init__.py",
)
LEDGER = "ledger.txt"
SIGNATURE = ", written under fire"
COUNTED = ("shell.run", "file.edit")
"""Tools whose effect can be counted in the workspace: a line in the ledger, the signature in the report."""
COMMAND_UID = Config().users.base + 11  # whom commands run as under root: docs/OPERATIONS.md "Users"
READY_S, LIMIT_S = 30.0, 180.0


class DemoError(Exception):
    """What the demo promises did not happen."""


@dataclass
class Seen:
    """What the events told, and who has been killed."""

    outcomes: Counter[tuple[int, int]] = field(default_factory=Counter)
    killed: dict[str, int] = field(default_factory=dict)


def plan(python: str) -> tuple[Plan, dict[int, str]]:
    """The steps, and which worker dies while a step is under way; ``python`` runs in the sandbox."""
    python = f"PYTHONDONTWRITEBYTECODE=1 HYPOTHESIS_STORAGE_DIRECTORY=/tmp/h {python}"
    tests = sorted(path.name for path in (REPOSITORY / "tests" / "unit" / "proto").glob("test_*.py"))
    halves = tests[: len(tests) // 2], tests[len(tests) // 2 :]
    steps: list[PlanStep] = []
    kills: dict[int, str] = {}

    def step(thought: str, tool: str, dies: str = "", **args: Any) -> None:
        if dies:
            kills[len(steps)] = dies
        steps.append(PlanStep(thought=thought, tool=tool, args=args))

    def shell(thought: str, command: str, dies: str = "") -> None:
        step(
            thought, "shell.run", dies, command=f"set -eo pipefail; {command}; echo {len(steps)} >> {LEDGER}"
        )

    step("See what there is to work on.", "file.list", path=".")
    step("Say what I am about to do.", "task.note", text="Test proto/, count, search, and write a report.")
    shell("Make room for results.", "mkdir -p results")
    shell(
        "Count the lines of code.",
        "find proto supervisor workers sandbox -name '*.py' | sort | xargs wc -l | "
        "tail -n 1 | tee results/lines.txt; sleep 1",
        "brain",
    )
    for number, half in enumerate(halves, 1):
        names = " ".join(f"tests/unit/proto/{name}" for name in half)
        shell(
            f"Run the unit tests of proto/, part {number} of 2.",
            f"{python} -m pytest -q -p no:cacheprovider {names} 2>&1 | "
            f"tail -n 40 | tee results/tests{number}.txt",
            "executor" if number == 1 else "gate",
        )
    shell(
        "Count the functions and classes.",
        "grep -rhoE '^ *(async )?(def|class) ' --include='*.py' "
        "proto supervisor workers sandbox | wc -l | tee results/definitions.txt",
    )
    shell(
        "Count unfinished work.",
        "{ grep -rn TODO --include='*.py' proto supervisor workers sandbox || true; } | "
        "wc -l | tee results/todo.txt",
    )
    step("What does proto/ promise?", "file.search", pattern="Invariant:", path="proto", limit=20)
    step("What did the tests say?", "memory.recall", "memory", query="unit tests passed", limit=3)
    shell(
        "Find the largest files.",
        "find proto supervisor workers sandbox -name '*.py' -printf '%s %p\\n' | "
        "sort -rn | sed -n 1,5p | tee results/largest.txt; sleep 1",
    )
    shell(
        "Write the report.",
        "{ echo '# Report'; for f in results/*; do echo; echo \"## ${f##*/}\"; tail -n 5 $f; "
        "done; } > report.md",
    )
    step("Read the report back.", "file.read", path="report.md", limit_bytes=8_192)
    step("Sign it.", "file.edit", path="report.md", old="# Report", new=f"# Report{SIGNATURE}")
    return Plan(step=steps), kills


@contextlib.contextmanager
def theatre() -> Iterator[Path]:
    """A folder with a copy of the sources as the workspace, owned by whom commands run as."""
    root = Path(tempfile.mkdtemp(prefix="homeostat-demo-"))
    try:
        root.chmod(0o755)
        workspace = root / "workspace"
        workspace.mkdir()
        leave_out = shutil.ignore_patterns("__pycache__", "*.egg-info")
        for name in COPIED:
            source = REPOSITORY / name
            if source.is_dir():
                shutil.copytree(source, workspace / name, symlinks=True, ignore=leave_out)
            else:
                shutil.copy2(source, workspace / name)
        if os.geteuid() == 0:
            for path in [workspace, *workspace.rglob("*")]:
                os.chown(path, COMMAND_UID, COMMAND_UID, follow_symlinks=False)
        yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)


def interpreter(root: Path) -> tuple[str, list[Path]]:
    """A Python for the sandbox: how to call it, and the folders that must be visible there.

    Under root, commands have a uid of their own, which may not enter a folder that only root may;
    then the interpreter and its packages are copied to where it can.
    """
    packages = Path(pytest.__file__).parents[1]
    if reachable(Path(sys.prefix)) and reachable(Path(sys.base_prefix)):
        visible = [Path(sys.prefix), Path(sys.base_prefix), packages]
        return f"PYTHONPATH=src:{packages} {sys.executable}", visible
    home, library = root / "python", Path(sysconfig.get_path("stdlib"))
    leave_out = shutil.ignore_patterns("__pycache__", "site-packages", "test", "idlelib", "config-*")
    shutil.copytree(library, home / "lib" / library.name, ignore=leave_out, symlinks=True)
    for shared in Path(sys.base_prefix, "lib").glob("libpython*.so*"):
        shutil.copy2(shared, home / "lib")
    (home / "bin").mkdir()
    binary = shutil.copy2(Path(sys.executable).resolve(), home / "bin")
    if not reachable(packages):
        leave_out = shutil.ignore_patterns("__pycache__", "mypy*", "ruff*", "pip*", "setuptools*")
        packages = shutil.copytree(packages, root / "packages", ignore=leave_out)
    call = f"PYTHONHOME={home} LD_LIBRARY_PATH={home}/lib PYTHONPATH=src:{packages} {binary}"
    return call, [home, packages]


def reachable(folder: Path) -> bool:
    """Whether whoever commands run as may enter a folder."""
    return os.geteuid() != 0 or all(each.stat().st_mode & stat.S_IXOTH for each in (folder, *folder.parents))


def write_config(root: Path, visible: list[Path]) -> Path:
    """A free port for metrics; the interpreter with its packages visible to commands."""
    seen = sorted({str(path) for path in visible if not path.is_relative_to("/usr")})
    path = root / "demo.toml"
    path.write_text(f'[metrics]\nlisten = "127.0.0.1:0"\n[sandbox]\nread_only = {json.dumps(seen)}\n')
    return path


@contextlib.contextmanager
def supervisor(root: Path, config: Path) -> Iterator[subprocess.Popen[str]]:
    """`homeostat run`, ready; stopped at the end, by its own pid. What it logs is in its home too."""
    command = [*homeostat(root), "run", "--config", str(config)]
    with (
        (root / "stderr.txt").open("w") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        try:
            said = process.stdout.readline() if process.stdout else ""
            if not said.startswith("ready"):
                raise DemoError(f"the supervisor did not become ready (exit {process.wait(READY_S)})")
            print(said.rstrip())
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(READY_S)
            except subprocess.TimeoutExpired:
                process.kill()


def homeostat(root: Path) -> list[str]:
    """The command line on the demo's home."""
    return [sys.executable, "-m", "homeostat.supervisor.cli.main", "--home", str(root / "home")]


def status(root: Path) -> dict[str, Any]:
    """`homeostat status --json`."""
    done = subprocess.run([*homeostat(root), "status", "--json"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise DemoError(f"status failed: {done.stderr.strip()}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def kill(root: Path, role: str) -> int:
    """SIGKILL the worker of a role; give its pid."""
    worker = next(row for row in status(root)["workers"] if row["role"] == role)
    pid = int(worker["pid"])
    os.kill(pid, signal.SIGKILL)
    print(f"              ---- SIGKILL {role}.{worker['index']} (pid {pid}) ----", flush=True)
    return pid


def follow(client: Client, root: Path, task: str, cursor: int, kills: dict[int, str]) -> Seen:
    """Show events; kill as planned, each when its step has just been admitted."""
    seen, line = Seen(), Lines()
    limit = time.monotonic() + LIMIT_S
    for event in client.watch(task, cursor=cursor):
        print(line(event), flush=True)
        if event.kind == "outcome":
            seen.outcomes[event.data["step"], event.data["index"]] += 1
        role = kills.get(event.data.get("step", -1))
        if event.kind == "decided" and role and role not in seen.killed:
            seen.killed[role] = kill(root, role)
        if time.monotonic() > limit:
            raise DemoError(f"the task is not over after {LIMIT_S:g} s")
    return seen


def verify(root: Path, shown: wire.Task, steps: list[PlanStep], seen: Seen, picture: dict[str, Any]) -> None:
    """Count every effect at its target. Raises DemoError."""
    found = count_effects(root / "workspace", steps)
    print("\nEvery step, and how often its effect is found in the workspace:")
    table(
        ("STEP", "TOOL", "CLASS", "STATUS", "TOOK", "OUTCOMES", "EFFECTS", "THOUGHT"),
        [row(step, found, seen) for step in shown.steps],
    )
    if shown.task.status != "done":
        raise DemoError(f"the task is {shown.task.status}: {shown.task.reason or shown.task.result}")
    if [call.tool for step in shown.steps for call in step.calls] != [step.tool for step in steps]:
        raise DemoError("the recorded steps are not the plan's")
    if found != {number: 1 for number, step in enumerate(steps) if step.tool in COUNTED}:
        raise DemoError(f"effects lost or doubled: {dict(found)}")
    if set(seen.outcomes.values()) != {1} or len(seen.outcomes) != len(steps):
        raise DemoError(f"outcomes lost or doubled: {dict(seen.outcomes)}")
    for number in (1, 2):
        said = (root / "workspace" / "results" / f"tests{number}.txt").read_text()
        if not re.search(r"\d+ passed", said) or "failed" in said:
            raise DemoError(f"the tests of proto/ did not pass: {said[-500:]}")
    if not (root / "workspace" / "report.md").read_text().startswith(f"# Report{SIGNATURE}\n"):
        raise DemoError("the report is not signed as planned")
    restarts = {worker["role"]: worker["restarts"] for worker in picture["workers"]}
    if missing := [
        role
        for role in ("brain", "gate", "executor", "memory")
        if not (role in seen.killed and restarts[role])
    ]:
        raise DemoError(f"not killed and restarted: {', '.join(missing)}")


def count_effects(workspace: Path, steps: list[PlanStep]) -> Counter[int]:
    """How often the effect of each step is found in the workspace."""
    ledger, report = workspace / LEDGER, workspace / "report.md"
    found = Counter(int(number) for number in (ledger.read_text().split() if ledger.exists() else []))
    signed = report.read_text().count(SIGNATURE) if report.exists() else 0
    for number, step in enumerate(steps):
        if step.tool == "file.edit":
            found[number] += signed
    return found


def row(step: wire.StepView, found: Counter[int], seen: Seen) -> tuple[str, ...]:
    """One line of the final table."""
    call = step.calls[0]
    effects = str(found[step.step]) if call.tool in COUNTED else "-"
    took = duration(call.outcome.duration_s) if call.outcome else "-"
    ended = call.outcome.status if call.outcome else call.verdict
    return (
        str(step.step),
        call.tool,
        call.klass,
        ended,
        took,
        str(seen.outcomes[step.step, 0]),
        effects,
        brief(step.thought, 44),
    )


def show_metrics(address: str) -> None:
    """The address, and a few lines of what a scrape gets."""
    with urllib.request.urlopen(address, timeout=10) as answer:  # noqa: S310  our own supervisor's address
        lines = answer.read().decode().splitlines()
    ours = [
        text
        for text in lines
        if text.startswith("homeostat_") and "_bucket" not in text and "_created" not in text
    ]
    print(f"\nMetrics at {address}, {len(ours)} samples, for example:")
    for text in ours[:: max(1, len(ours) // 8)][:8]:
        print(f"  {text}")


def play(root: Path) -> None:
    """The whole demo. Raises DemoError, HomeostatError."""
    python, visible = interpreter(root)
    script, kills = plan(python)
    with (
        supervisor(root, write_config(root, visible)),
        Client.for_home(root / "home", timeout_s=30) as client,
    ):
        taken = client.submit("Test proto/ and report.", plan=script, workspace=str(root / "workspace"))
        print(f"task {taken.task}")
        seen = follow(client, root, taken.task, taken.cursor, kills)
        shown = client.show(taken.task)
        picture = settled(root)
        verify(root, shown, script.step, seen, picture)
        print("\nKilled: " + ", ".join(f"{role} (pid {pid})" for role, pid in seen.killed.items()))
        table(
            ("WORKER", "PID", "EPOCH", "STATE", "RESTARTS"),
            [
                (
                    f"{w['role']}.{w['index']}",
                    *(str(w[name]) for name in ("pid", "epoch", "state", "restarts")),
                )
                for w in picture["workers"]
            ],
        )
        show_metrics(picture["metrics"])


def settled(root: Path) -> dict[str, Any]:
    """The status once every worker serves again."""
    limit = time.monotonic() + READY_S
    while not (picture := status(root))["ready"]:
        if time.monotonic() > limit:
            raise DemoError(f"not every worker serves again: {picture['workers']}")
        time.sleep(0.1)
    return picture


def main() -> int:
    """0 when everything was as promised."""
    began = time.monotonic()
    with theatre() as root:
        try:
            play(root)
        except (DemoError, HomeostatError, OSError) as error:
            said = error.diagnostics() if isinstance(error, HomeostatError) else str(error)
            print(f"\ndemo: FAILED: {said}", file=sys.stderr)
            for log in [root / "stderr.txt", *sorted((root / "home" / "log").glob("*.log"))]:
                if log.exists():
                    print(
                        f"--- {log.name}\n" + "\n".join(log.read_text().splitlines()[-12:]), file=sys.stderr
                    )
            return 1
    print(
        "\ndemo: the effect of every command and of the edit is in the workspace exactly once, every call "
        f"has one outcome; in {time.monotonic() - began:.0f} s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
