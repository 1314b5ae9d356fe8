"""A real gate is told over its control socket what is poison, and is killed in between."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import zmq

from homeostat.proto import codec, messages as m, records as r, subjects, wire
from homeostat.proto.config import Agent, Config
from homeostat.proto.ids import Key
from homeostat.workers.gate.journal.store import Store
from homeostat.workers.gate.journal.verify import verify
from tests.integration.gate.gate_world import FakeBrain, FakeWorker, GateWorld, ask

CONFIG = Config(agent=(Agent(name="default", provider="chat", stage="off"),))
SHELL = r.Call("shell.run", b'{"command": "make"}', "because")
READ = r.Call("file.read", b'{"path": "a"}', "because")
REPORT = "executor.0 was killed by SIGSEGV\x1b[2J\nlast message: execute"
MakeWorld = Callable[[Config], GateWorld]


class DyingExecutor(FakeWorker):
    """Hears, and answers nothing: as far as the gate can tell it dies of every Execute."""

    def __init__(self, world: GateWorld) -> None:
        super().__init__(world, "executor")
        self.heard: list[Any] = []

    def on_message(self, message: Any) -> None:
        """Keep it."""
        self.heard.append(message)

    def of(self, kind: type) -> list[Any]:
        """Messages of one type."""
        return [message for message in self.heard if isinstance(message, kind)]


def say(world: GateWorld, subject: str, worker: str = "executor.0") -> None:
    """What the supervisor says after the second crash."""
    world.control.send(codec.encode(m.Poison(subject, worker, 2, REPORT)))


def hear(world: GateWorld, kind: type) -> Any:
    """The next word of this type; the workers live meanwhile."""
    while True:
        assert world.pump(60, lambda: bool(zmq.select([world.control], [], [], 0)[0]))
        if isinstance(word := world.hear(), kind):
            return word


def get(world: GateWorld, request: wire.Request) -> Any:
    """Ask as a client."""
    with world.client() as sock:
        return ask(sock, request)


def started(world: GateWorld) -> None:
    """A gate that serves."""
    world.start()
    hear(world, m.Ready)


def under_way(world: GateWorld, calls: tuple[r.Call, ...]) -> tuple[str, DyingExecutor]:
    """A task whose calls were given out."""
    FakeBrain(world, [calls])
    executor = DyingExecutor(world)
    started(world)
    task: str = get(world, wire.Submit(objective="work")).task
    assert world.pump(60, lambda: len(executor.of(m.Execute)) == len(calls))
    return task, executor


def test_task_is_quarantined_when_its_call_is_poison_and_stays_so_when_the_gate_is_killed(
    new_world: MakeWorld,
) -> None:
    """Confirmed after the sync, shown with the reason and the report, audited, and never given out again."""
    world = new_world(CONFIG)
    task, executor = under_way(world, (SHELL,))
    key = executor.of(m.Execute)[0].key
    size = _leaves_after(world, lambda: say(world, f"execute {key}"))
    world.start()
    hear(world, m.Ready)
    executor.heard.clear()
    assert world.pump(60, lambda: executor.welcomed == world.epoch)
    shown = get(world, wire.Get(task=task))
    assert shown.task.status == "quarantined"
    assert "2 crashes of executor.0" in shown.task.reason
    assert f"execute {key}" in shown.task.reason
    assert shown.task.result == REPORT
    outcome = shown.steps[0].calls[0].outcome
    assert outcome.status == "in_doubt", "class once: it may have happened"
    assert "executor.0" in outcome.note
    events = get(world, wire.Watch(task=task)).events
    (event,) = [one for one in events if one.kind == "quarantined"]
    assert event.data == {"subject": f"execute {key}", "worker": "executor.0", "crashes": 2, "report": REPORT}
    assert get(world, wire.Status()).tasks["quarantined"] == 1
    world.pump(0.3)
    assert not executor.of(m.Execute)
    world.stop()
    with Store.open(world.home / "journal", create=False) as store:
        assert verify(store).clean
        assert store.tree_size >= size + 2, "the quarantine and the outcome are leaves of the audit tree"


def _leaves_after(world: GateWorld, act: Callable[[], None]) -> int:
    """Kill and start the gate around an act that it confirms; give the number of audit leaves before it."""
    world.kill()
    with Store.open(world.home / "journal", create=False) as store:
        size = store.tree_size
    started(world)
    act()
    assert hear(world, m.Quarantined).subject.startswith("execute ")
    world.kill()
    return size


def test_poison_is_heard_before_anything_is_resumed_when_a_gate_starts(new_world: MakeWorld) -> None:
    """What killed the former gate is in the new one's socket: it is settled before its first word."""
    world = new_world(CONFIG)
    task, executor = under_way(world, (READ,))
    key = executor.of(m.Execute)[0].key
    while not get(world, wire.Get(task=task)).steps:  # A read is handed out before its intent is on disk.
        world.pump(0.05, lambda: False)
    executor.link.post(m.Ended(key, "ok", "poison"))
    world.kill()
    executor.heard.clear()
    world.start()
    say(world, f"ended {key}", "gate.0")
    assert isinstance(world.hear(), m.Quarantined)
    assert isinstance(world.hear(), m.Ready)
    assert world.pump(60, lambda: executor.welcomed == world.epoch and not executor.link.unacknowledged)
    assert world.pump(60, lambda: m.Forget(Key(key)) in executor.heard), "its sender is done with it"
    assert not executor.of(m.Execute)
    assert get(world, wire.Get(task=task)).task.status == "quarantined"
    (letter,) = [one for one in get(world, wire.Letters()).letters if one.reason == "quarantined"]
    assert (letter.subject, letter.sender) == (f"ended {key}", "executor.0.1")
    assert "poison" in letter.data


def test_task_awaits_its_open_calls_when_another_message_of_it_is_poison(new_world: MakeWorld) -> None:
    """Nothing is dropped in silence: the call is aborted, its outcome recorded, then the task ends."""
    world = new_world(CONFIG)
    task, executor = under_way(world, (SHELL,))
    key = executor.of(m.Execute)[0].key
    say(world, f"propose {task} 0", "gate.0")
    hear(world, m.Quarantined)
    assert world.pump(60, lambda: bool(executor.of(m.Abort)))
    assert get(world, wire.Get(task=task)).task.status == "running"
    executor.link.post(m.Ended(key, "ok", "done all the same"))
    assert world.pump(60, lambda: bool(executor.of(m.Forget)))
    shown = get(world, wire.Get(task=task))
    assert shown.task.status == "quarantined"
    assert shown.steps[0].calls[0].outcome.text == "done all the same"


def test_submission_is_refused_when_its_key_is_poison(new_world: MakeWorld) -> None:
    """At once and after a kill; the refusal is typed, other keys are taken in, nothing was accepted."""
    world = new_world(CONFIG)
    started(world)
    request = wire.Submit(objective="work", key="nightly-7")
    say(world, subjects.client_subject(request), "gate.0")
    assert hear(world, m.Quarantined) == m.Quarantined("client submit nightly-7")
    for _ in range(2):
        refused = get(world, request)
        assert isinstance(refused, wire.Refused)
        assert (refused.code, refused.field, refused.retry_after_s) == ("quarantined", "key", None)
        assert refused.remedy
        world.kill()
        started(world)
    assert get(world, wire.List()).tasks == []
    assert isinstance(get(world, wire.Submit(objective="work", key="nightly-8")), wire.Submitted)


def test_poison_is_confirmed_when_it_names_nothing_that_is_open(new_world: MakeWorld) -> None:
    """An ended task, an unknown one, no subject at all: each answered, each with a dead letter."""
    world = new_world(CONFIG)
    FakeBrain(world, [])
    started(world)
    task = get(world, wire.Submit(objective="work")).task
    assert world.pump(60, lambda: get(world, wire.Get(task=task)).task.status == "done")
    named = [f"observe {task} 0", "drop tnobody", "hello brain.0", "\x1b[2J"]
    for subject in named:
        say(world, subject, "brain.0")
        assert hear(world, m.Quarantined) == m.Quarantined(subject)
    letters = [one for one in get(world, wire.Letters()).letters if one.reason == "poison"]
    assert [one.subject for one in reversed(letters)] == [*named[:3], "\\x1b[2J"]
    assert get(world, wire.Get(task=task)).task.status == "done", "what has ended stays as it ended"
