"""The laws, as what must be true of a round that is over.

Owns: the comparison of three stories: the plan's model, the journal as clients read it, the target's files.
Must not know: how the round went.
Invariant: every difference is a sentence with the names of task and step; none is explained away.
Source: DESIGN §2 laws 1 and 3, §4; issue "The spine" ("none lost, none doubled, every in-doubt one visible").
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from homeostat.proto import wire
from homeostat.proto.client import Client
from homeostat.proto.ids import ENDED

from .driver import Driver, count
from .model import Effect, Job, Place, read_tree


@dataclass
class Counts:
    """What was found."""

    tasks: int = 0
    steps: int = 0
    effects: int = 0
    lost: int = 0
    doubled: int = 0
    in_doubt: int = 0
    violations: list[str] = field(default_factory=list)


class Inspector:
    """Checks one round."""

    def __init__(self, client: Client, counts: Counts) -> None:
        self._client, self._counts = client, counts

    def say(self, job: Job, what: str) -> None:
        """Take down a violation."""
        self._counts.violations.append(f"{job.name} ({job.agent}, {job.task or 'not accepted'}): {what}")

    def round(self, drivers: list[Driver]) -> None:
        """Everything about the tasks of a round."""
        for driver in drivers:
            self._counts.tasks += 1
            self._check_user(driver)
            if driver.job.task:
                self._check_task(driver)
        for place, where in self._places(drivers):
            self._check_tree(place, where, [driver.job for driver in drivers if driver.job.place is place])

    def _places(self, drivers: list[Driver]) -> list[tuple[Place, Path]]:
        found = {id(driver.job.place): (driver.job.place, driver.workspace()) for driver in drivers}
        return list(found.values())

    # -- what the user saw -----------------------------------------------------------------------------------
    def _check_user(self, driver: Driver) -> None:
        seen, job = driver.seen, driver.job
        if not seen.ended:
            self.say(job, f"did not end: {seen.trouble or 'the user still waits'}")
        if len(seen.submissions) > 1 or seen.created > 1:
            self.say(job, f"one key gave {sorted(seen.submissions)}, created {seen.created} times")
        if not job.task:
            return
        told = [event.position for event in seen.events]
        written = [event.position for event in self._client.history(job.task)]
        if told != written[: len(told)] or (seen.ended and len(told) != len(written)):
            self.say(job, f"a watcher was told the records {told}, the journal has {written}")

    # -- what the journal says -------------------------------------------------------------------------------
    def _check_task(self, driver: Driver) -> None:
        job = driver.job
        shown = self._client.show(job.task)
        if shown.task.status != "done" and not (job.cancel_after and shown.task.status == "cancelled"):
            self.say(job, f"is {shown.task.status}: {shown.task.reason or shown.task.result}")
        planned = [(step.tool, step.args) for step in job.steps]
        recorded = [(call.tool, call.args) for step in shown.steps for call in step.calls]
        if recorded != (planned[: len(recorded)] if shown.task.status == "cancelled" else planned):
            self.say(job, f"{len(recorded)} recorded calls are not the plan's {len(planned)}")
        self._check_records(job)
        for step in shown.steps:
            self._counts.steps += 1
            self._check_step(driver, step)

    def _check_records(self, job: Job) -> None:
        """One intent before one outcome for each call; one end, and nothing after it."""
        intents: Counter[tuple[int, int]] = Counter()
        outcomes: Counter[tuple[int, int]] = Counter()
        last = ""
        for event in self._client.history(job.task):
            data = event.data
            if last in ENDED:
                self.say(job, f"{event.kind} at {event.position}, after the task was {last}")
            if event.kind == "decided" and data["phase"] == "call":
                intents[data["step"], data["index"]] += 1
            elif event.kind == "outcome":
                call = (data["step"], data["index"])
                outcomes[call] += 1
                if not intents[call]:
                    self.say(job, f"step {call[0]} has an outcome before its intent")
            elif event.kind == "status":
                last = data["status"]
        if last not in ENDED:
            self.say(job, f"its last recorded status is {last!r}")
        if wrong := {
            call: (n, outcomes[call]) for call, n in intents.items() if (n, outcomes[call]) != (1, 1)
        }:
            self.say(job, f"intents and outcomes are not one each: {wrong}")

    def _check_step(self, driver: Driver, step: wire.StepView) -> None:
        job, number = driver.job, step.step
        for call in step.calls:
            outcome = call.outcome
            if call.verdict != "admit" or outcome is None:
                self.say(job, f"step {number} {call.tool}: {call.verdict} {call.reason}, outcome {outcome}")
                continue
            if outcome.status == "in_doubt":
                self._check_doubt(driver, call, outcome)
            elif job.cancel_after and outcome.status == "cancelled":
                pass
            elif outcome.status != "ok" or outcome.exit_code not in (None, 0):
                self.say(
                    job,
                    f"step {number} {call.tool} ended as {outcome.status} {outcome.exit_code}: "
                    f"{outcome.text[:300]}",
                )
            seen_all = number in job.reads and outcome.status == "ok"
            if seen_all and outcome.text.rstrip("\n") != job.reads[number].rstrip("\n"):
                self.say(job, f"step {number} read {outcome.text[-200:]!r}, not {job.reads[number][-200:]!r}")
            if number in job.artifacts and outcome.status == "ok":
                self._check_artifact(driver, number, outcome)
            if number in job.effects:
                self._check_effect(driver, number, job.effects[number], outcome)

    def _check_doubt(self, driver: Driver, call: wire.CallView, outcome: wire.OutcomeView) -> None:
        self._counts.in_doubt += 1
        if call.klass != "once":
            self.say(driver.job, f"a call of class {call.klass} is in doubt: {call.args}")
        if driver.job.agent == "ask" and not driver.job.cancel_after:  # A cancelled task asks nobody.
            said = driver.seen.answers.get(call.key, "nothing")
            if not outcome.note.endswith(f"says: {said}"):
                self.say(driver.job, f"in doubt; its user said {said}, recorded is {outcome.note!r}")

    def _check_artifact(self, driver: Driver, number: int, outcome: wire.OutcomeView) -> None:
        """Its name is in a synced outcome, so it must be there, and be what was printed."""
        name = outcome.artifact or "none"
        kept = driver.home / "artifacts" / name[:2] / name
        printed = driver.job.place.files[driver.job.artifacts[number]]
        if not kept.exists() or kept.read_text().splitlines() != printed:
            self.say(driver.job, f"step {number}: the artifact {name} is not what was printed")

    # -- what is at the target -------------------------------------------------------------------------------
    def _check_effect(self, driver: Driver, number: int, effect: Effect, outcome: wire.OutcomeView) -> None:
        job = driver.job
        self._counts.effects += 1
        found = [count(driver.workspace(), path, effect.token) for path in effect.paths]
        if any(times > 1 for times in found):
            self._counts.doubled += 1
            self.say(job, f"step {number} DOUBLED: {effect.token} is found {found} times")
        if not all(found) and self._must_be(driver, outcome):
            self._counts.lost += 1
            self.say(job, f"step {number} LOST: {effect.token} is found {found} times, outcome {outcome}")
        if any(found) and job.staged and outcome.status == "cancelled":
            self.say(job, f"step {number}: {effect.token} is there although its call was cancelled")
        if any(found) and outcome.status == "in_doubt" and outcome.note.endswith("says: did_not"):
            self.say(
                job, f"step {number}: {effect.token} appeared after its user had said that it did not happen"
            )

    def _must_be(self, driver: Driver, outcome: wire.OutcomeView) -> bool:
        """Whether the effect must be there. Zero is fine only where a person can see that it may be zero."""
        if outcome.status == "cancelled":
            return False
        if driver.job.staged or outcome.status != "in_doubt":
            return True
        return outcome.note.endswith("says: happened")

    def _check_tree(self, place: Place, where: Path, jobs: list[Job]) -> None:
        """The whole workspace of staged tasks; of the others, that there is nothing unknown."""
        if any(job.cancel_after for job in jobs):
            return  # Where it stopped is known of each effect, but not of the whole.
        tree = read_tree(where) if where.exists() else {}
        for job in jobs:
            if not job.staged:
                stray = {
                    path: line
                    for path, lines in tree.items()
                    for line in lines
                    if line not in place.files.get(path, ())
                }
                if stray:
                    self.say(job, f"unknown effects: {stray}")
                return
        if place.shared:
            tree = {path: sorted(lines) for path, lines in tree.items()}
        expected = {path: sorted(lines) if place.shared else lines for path, lines in place.files.items()}
        wrong = [path for path in tree.keys() | expected.keys() if tree.get(path) != expected.get(path)]
        for path in sorted(wrong)[:5]:
            self.say(jobs[0], f"{path} holds {tree.get(path)}, not {expected.get(path)} (in {where})")

    # -- the whole home --------------------------------------------------------------------------------------
    def census(self, jobs: list[Job], place: str) -> None:
        """Every accepted task is there, once."""
        rows: Counter[str] = Counter()
        before = 0
        while True:
            page = self._client.list(limit=200, before=before)
            rows.update(row.objective for row in page.tasks)
            before = page.next
            if not before:
                break
        expected = Counter(job.name for job in jobs if job.task)
        if rows != expected:
            gone, more = expected - rows, rows - expected
            self._counts.violations.append(
                f"{place}: tasks lost {dict(gone)}, unknown or doubled {dict(more)}"
            )
