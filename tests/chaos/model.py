"""What a round asks for, and what must then be found at the target.

Owns: the plans of a round's tasks, drawn from its own random source, and the files that they must leave.
Must not know: processes, sockets, who is killed when.
Invariants: every effect has a token of its own, so that it can be counted; the same seed, the same plans.
Source: issue "The spine", `make chaos`; DESIGN §4 (effect classes).
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Literal

from homeostat.proto.records import Plan, PlanStep

Agent = Literal["default", "tell", "ask"]
AGENTS: dict[Agent, str] = {"default": "required", "tell": "off", "ask": "off"}
"""The agents of the campaign, and whether they stage."""
Files = dict[str, list[str]]
END = "<end>"
READ_LIMIT_BYTES = 8_000


@dataclass(frozen=True)
class Effect:
    """One change that must be found: a line ``token`` in the files of ``paths``, once in each."""

    token: str
    paths: tuple[str, ...]


@dataclass
class Place:
    """A workspace: what it must hold. Tasks that share it may append in any order."""

    path: str
    shared: bool = False
    files: Files = field(default_factory=dict)


@dataclass
class Job:
    """One task: what is submitted, and what is expected of each of its steps."""

    name: str
    agent: Agent
    place: Place
    on_error: str
    steps: list[PlanStep] = field(default_factory=list)
    effects: dict[int, Effect] = field(default_factory=dict)
    reads: dict[int, str] = field(default_factory=dict)
    """Texts that the reading steps must have seen; only where nobody else writes."""
    artifacts: dict[int, str] = field(default_factory=dict)
    """Steps whose whole output must be kept, with the file that has the same lines."""
    delay_s: float = 0.0
    """When it is submitted, after the begin of the round."""
    cancel_after: int | None = None
    """The user cancels it after so many events."""
    task: str = ""

    @property
    def staged(self) -> bool:
        """Whether its effects must be there exactly once, or at most once."""
        return AGENTS[self.agent] == "required"

    @property
    def plan(self) -> Plan:
        """For the submission."""
        return Plan(step=self.steps, on_error=self.on_error)


class Writer:
    """Writes one job's plan; keeps the model of its workspace in step with it."""

    def __init__(self, job: Job, rng: Random) -> None:
        self.job, self.rng = job, rng
        self._tokens = 0
        self._mine: list[str] = []
        """Files that surely exist when a later step reads them."""

    def write(self, count: int) -> None:
        """Add so many random steps."""
        if self.job.staged:
            self._file_write(f"chain-{self.job.name}.txt", [END])
            ways = [
                self.append,
                self.append,
                self.counter,
                self.bulk,
                self.churn,
                self.write_file,
                self.edit,
                self.shout,
            ]
        else:
            ways = [self.append, self.append, self.append, self.write_file]
        for _ in range(count):
            self.rng.choice([*ways, *ways, self.note, self.recall, self.read, self.look])()

    # -- effects ---------------------------------------------------------------------------------------------
    def append(self) -> None:
        """A line at the end of a file; a second time would be a second line."""
        token = self._token()
        path = "effects.log" if self.job.staged else "once.log"
        self._shell(f"{self._pause()}; echo {token} >> {path}; {self._pause()}", Effect(token, (path,)))
        self._lines(path).append(token)

    def counter(self) -> None:
        """Read, add one, write back: an update that is lost or doubled shows in the sum."""
        self._shell("n=$(cat counter 2>/dev/null || echo 0); echo $((n+1)) > counter")
        lines = self._lines("counter")
        lines[:] = [str(int(lines[0]) + 1 if lines else 1)]

    def bulk(self) -> None:
        """Many files in one merge, so that kills find it half done."""
        token, folder, count = self._token(), f"bulk-{self.job.name}", self.rng.randint(8, 40)
        self._shell(
            f"mkdir -p {folder}; for i in $(seq {count}); do echo {token} >> {folder}/$i; done",
            Effect(token, tuple(f"{folder}/{number}" for number in range(1, count + 1))),
        )
        for number in range(1, count + 1):
            self._lines(f"{folder}/{number}").append(token)

    def churn(self) -> None:
        """A new folder for an old one: creations and deletions in one merge."""
        token, folder = self._token(), f"churn-{self.job.name}"
        files = self.job.place.files
        self._shell(
            f"rm -rf {folder}; mkdir -p {folder}/{token}; "
            f"echo {token} | tee -a churns.log {folder}/{token}/a > {folder}/b",
            Effect(token, ("churns.log",)),
        )
        self._lines("churns.log").append(token)
        for path in [path for path in files if path.startswith(f"{folder}/")]:
            del files[path]
        files[f"{folder}/{token}/a"], files[f"{folder}/b"] = [token], [token]

    def write_file(self) -> None:
        """A whole file."""
        token = self._token()
        path = f"docs/{token}.txt"
        self._file_write(path, [token], Effect(token, (path,)))

    def edit(self) -> None:
        """One more link of a chain; done twice it would be there twice."""
        token, path = self._token(), f"chain-{self.job.name}.txt"
        args = {"path": path, "old": END, "new": f"{token}\n{END}"}
        self._step("file.edit", Effect(token, (path,)), **args)
        self._lines(path).insert(-1, token)

    def shout(self) -> None:
        """More output than the model gets: the whole must be an artifact."""
        token, first = self._token(), self.rng.randint(1, 9_999)
        path = f"shout-{token}.txt"
        command = f"seq {first} {first + 4_000} | tee -a {path}; echo {token} >> shouts.log"
        self._shell(command, Effect(token, ("shouts.log",)))
        self._lines("shouts.log").append(token)
        self._lines(path)[:] = [str(number) for number in range(first, first + 4_001)]
        self.job.artifacts[len(self.job.steps) - 1] = path

    # -- no effects ------------------------------------------------------------------------------------------
    def note(self) -> None:
        """An effect in the journal itself."""
        self._step("task.note", text=f"note {self._token()}")

    def recall(self) -> None:
        """A question to the memory."""
        self._step("memory.recall", query=f"what was appended by {self.job.name}", limit=3)

    def read(self) -> None:
        """Read what was written before; the text is checked where it is certain."""
        written = sorted({path for path in self._mine if not path.startswith(("churn-", "shout-"))})
        if not written or not self.job.staged:  # What is in doubt may not be there.
            return self.note()
        path = self.rng.choice(written)
        if not self.job.place.shared:
            self.job.reads[len(self.job.steps)] = "".join(f"{line}\n" for line in self.job.place.files[path])
        return self._step("file.read", path=path, limit_bytes=READ_LIMIT_BYTES)

    def look(self) -> None:
        """List, or search what is certainly there: finding nothing is an error."""
        if self.job.staged and self.rng.random() < 0.5:
            self._step("file.search", pattern=END, limit=50)
        else:
            self._step("file.list", recursive=True)

    # -- parts -----------------------------------------------------------------------------------------------
    def _token(self) -> str:
        self._tokens += 1
        return f"{self.job.name}-{self._tokens}"

    def _pause(self) -> str:
        return self.rng.choice(["true", "sleep 0.02", "sleep 0.08", "sleep 0.2"])

    def _lines(self, path: str) -> list[str]:
        self._mine.append(path)
        return self.job.place.files.setdefault(path, [])

    def _file_write(self, path: str, lines: list[str], effect: Effect | None = None) -> None:
        self._mine.append(path)
        self.job.place.files[path] = list(lines)
        content = "".join(f"{line}\n" for line in lines)
        self._step("file.write", effect, path=path, content=content)

    def _shell(self, command: str, effect: Effect | None = None) -> None:
        # The name makes every command line tell whose it is, and every call of the plan another one.
        marked = f": {shlex.quote(f'{self.job.name} {len(self.job.steps)}')}; {command}"
        self._step("shell.run", effect, command=marked)

    def _step(self, tool: str, effect: Effect | None = None, **args: Any) -> None:
        if effect is not None:
            self.job.effects[len(self.job.steps)] = effect
        self.job.steps.append(PlanStep(thought=f"step {len(self.job.steps)}: {tool}", tool=tool, args=args))


def draw_jobs(rng: Random, number: int, tasks: int, make_place: Callable[[str], str]) -> list[Job]:
    """The jobs of one round: at least one of each agent from three tasks on, some in one workspace."""
    agents: list[Agent] = [
        "default",
        "ask",
        "tell",
        *rng.choices(["default", "default", "ask", "tell"], k=tasks),
    ][:tasks]  # type: ignore[assignment]  # choices() widens the literals
    common = Place(make_place(f"r{number}-shared"), shared=True)
    jobs = []
    for index, agent in enumerate(agents):
        name = f"r{number}j{index}"
        shares = agent == "default" and rng.random() < 0.4
        own = "" if rng.random() < 0.5 else make_place(name)
        place = common if shares else Place(own)
        job = Job(name, agent, place, "stop" if agent == "default" else "continue")
        Writer(job, rng).write(rng.randint(6, 12))
        job.delay_s = rng.choice([0.0, 0.0, rng.uniform(0.0, 0.8)])
        if not shares and rng.random() < 0.1:
            job.cancel_after = rng.randint(2, 20)
        jobs.append(job)
    return jobs


def read_tree(folder: Path) -> Files:
    """All files of a workspace with their lines."""
    return {
        str(path.relative_to(folder)): path.read_text().splitlines()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
