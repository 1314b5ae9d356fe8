"""A real gate process is SIGKILLed again and again: nothing accepted is lost, nothing is done twice."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import zmq

from homeostat.proto import codec, messages as m, records as r, wire
from homeostat.proto.config import Agent, Config, Policy
from homeostat.workers.gate.journal.store import Store
from homeostat.workers.gate.journal.verify import verify
from homeostat.workers.gate.projection import steps, turn
from homeostat.workers.gate.state import Summary, decode_head
from tests.integration.gate.gate_world import (
    FakeBrain,
    FakeExecutor,
    FakeWorker,
    GateWorld,
    ask,
)

CONFIG = Config(
    agent=(
        Agent(name="default", provider="chat"),
        Agent(name="unstaged", provider="chat", stage="off"),
    )
)
NOTE = r.Call("task.note", b'{"text": "x"}', "because")
SHELL = r.Call("shell.run", b'{"command": "make"}', "because")
READ = r.Call("file.read", b'{"path": "a"}', "because")
REFUSED = r.Call("rocket.launch", b"{}", "because")
STEPS = [(NOTE,), (SHELL,), (NOTE, SHELL, READ), (REFUSED,), (NOTE,), (SHELL, NOTE), (NOTE,), (READ,)]
KILLS = 12
MakeWorld = Callable[[Config], GateWorld]


class Client:
    """Submits with keys and asks again whenever the gate may have forgotten the question."""

    def __init__(self, world: GateWorld) -> None:
        self.socket = world.client()
        self.answered: dict[str, wire.Submitted] = {}
        self.asked: dict[str, wire.Submit] = {}

    def submit(self, key: str, agent: str) -> None:
        """Ask for a task."""
        self.asked[key] = wire.Submit(rid=key, objective="work", key=key, agent=agent)

    def insist(self) -> None:
        """Send again what nobody answered."""
        for key in self.asked.keys() - self.answered.keys():
            self.socket.send(codec.encode(self.asked[key]))

    def listen(self) -> None:
        """Take the answers: the same key must always be the same task."""
        while self.socket.poll(0):
            reply = codec.decode_reply(self.socket.recv())
            assert isinstance(reply, wire.Submitted), reply
            before = self.answered.setdefault(reply.rid, reply)
            assert before.task == reply.task, "one key gave two tasks"

    def complete(self) -> bool:
        """Everything asked was answered."""
        self.listen()
        return self.asked.keys() == self.answered.keys()


def test_gate_loses_and_doubles_nothing_when_killed_again_and_again(new_world: MakeWorld) -> None:
    """Every accepted task ends; each effect happens once and has one outcome; the journal verifies clean."""
    dice = random.Random(20)
    world = new_world(CONFIG)
    brain, executor = FakeBrain(world, STEPS), FakeExecutor(world)
    client = Client(world)
    for number in range(KILLS):
        world.start()
        for agent in ("default", "unstaged"):
            client.submit(f"{agent}-{number}", agent)
        client.insist()
        if number % 3:
            assert isinstance(world.hear(), m.Ready)
        world.pump(dice.random() * 0.06 + (0 if number % 3 else 0.2))
        client.listen()
        world.kill()
    world.start()
    assert isinstance(world.hear(), m.Ready)
    client.insist()
    assert world.pump(60, client.complete)
    client.socket.close(0)
    assert world.pump(60, lambda: _all_ended(world))
    assert world.pump(10, lambda: brain.link.unacknowledged == executor.link.unacknowledged == 0)
    assert world.stop() == 0
    _check(world, client, brain, executor)


def _all_ended(world: GateWorld) -> bool:
    sock = world.client()
    status = ask(sock, wire.Status())
    sock.close(0)
    return bool(status.tasks["open"] == 0)


def _check(world: GateWorld, client: Client, brain: FakeBrain, executor: FakeExecutor) -> None:
    assert set(executor.effects.values()) == {1}, "an effect happened twice"
    outcomes: Counter[str] = Counter()
    with Store.open(world.home / "journal", create=False) as store:
        assert verify(store).clean, verify(store).difference
        numbers = {store.task_no(reply.task) for reply in client.answered.values()}
        assert len(numbers) == 2 * KILLS
        assert {number for number, _ in store.heads()} == numbers
        for number, data in store.heads():
            head = decode_head(data)
            assert isinstance(head, Summary)
            assert (head.status, head.steps) == ("done", len(STEPS))
            outcomes += _check_task(store, number, head.id, brain)
    assert set(outcomes.values()) == {1}, "a key has two outcomes"
    assert executor.effects.keys() <= outcomes.keys()
    per_task = sum(call.tool != "rocket.launch" for calls in STEPS for call in calls)
    assert len(outcomes) == 2 * KILLS * per_task


def _check_task(store: Store, number: int, task: str, brain: FakeBrain) -> Counter[str]:
    """Each admitted call has its outcome; what the brain was told live is what the journal tells."""
    history = [r.decode_record(record.payload) for record in store.task_records(number)]
    for step in steps(history):
        assert step.complete
        told = brain.told.get((task, step.proposed.step))
        if told is not None:
            assert (told.observations, told.event) == (turn(step).observations, turn(step).event)
    keys = Counter(one.key for one in history if isinstance(one, r.Outcome))
    intents = {one.intent.key for one in history if isinstance(one, r.Decided) and one.intent}
    assert set(keys) == intents
    return Counter(keys)


def test_gate_welcomes_nobody_without_the_secret_of_its_incarnation(new_world: MakeWorld) -> None:
    """A wrong secret, and a brain that calls itself an executor, stay outside; the right one comes in."""
    world = new_world(CONFIG)
    FakeWorker(world, "brain", secret=b"guessed")
    posing = FakeWorker(world, "memory")
    posing.role = "executor"
    honest = FakeWorker(world, "executor")
    world.start()
    assert isinstance(world.hear(), m.Ready)
    assert world.pump(10, lambda: honest.welcomed == 1)
    world.pump(0.3)
    sock = world.client()
    assert ask(sock, wire.Status()).workers == ["executor.0.1"]
    sock.close(0)


@pytest.mark.slow
def test_gate_has_a_silent_executor_killed(new_world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps the time itself: Abort after Abort, then a word to the supervisor."""
    limits = r.Limits(call_timeout_s=0.1)
    world = new_world(Config(agent=(Agent(name="default", provider="chat", limits=limits),)))
    FakeBrain(world, [(SHELL,)])
    heard: list[Any] = []
    silent = FakeWorker(world, "executor")
    monkeypatch.setattr(silent, "on_message", heard.append)  # It hears, and does nothing.
    world.start()
    assert isinstance(world.hear(), m.Ready)
    sock = world.client()
    sock.send(codec.encode(wire.Submit(objective="x")))
    assert world.pump(30, lambda: bool(zmq.select([world.control], [], [], 0)[0]))
    sock.close(0)
    kill = world.hear()
    assert isinstance(kill, m.KillWorker)
    assert (kill.role, kill.index, kill.epoch) == ("executor", 0, 1)
    assert [type(one) for one in heard][:2] == [m.Execute, m.Abort]


@pytest.mark.parametrize("damage", ["policy", "journal"])
def test_gate_says_fatal_when_no_restart_can_help(new_world: MakeWorld, damage: str) -> None:
    """A policy file that isn't there, a journal that is none: named, with an exit code, no traceback."""
    policy = Policy(files=("/nowhere/mine.cedar",)) if damage == "policy" else Policy()
    world = new_world(Config(policy=policy))
    if damage == "journal":
        (world.home / "journal").mkdir()
        (world.home / "journal" / "data.mdb").write_bytes(b"not a database" * 1_000)
    world.start()
    fatal = world.hear()
    assert isinstance(fatal, m.Fatal)
    assert fatal.message
    assert world.process is not None
    assert world.process.wait(10) == fatal.exit_code == (2 if damage == "policy" else 7)
    assert "Traceback" not in (world.home / "gate.log").read_text()


class TroubledBrain(FakeWorker):
    """Its provider gives nothing of use."""

    def __init__(self, world: GateWorld) -> None:
        super().__init__(world, "brain")
        self.assigned: list[m.Assign] = []

    def on_message(self, message: Any) -> None:
        """Keep what is to be thought about."""
        if isinstance(message, m.Assign):
            self.assigned.append(message)


def test_gate_tells_a_brain_how_many_attempts_have_failed(new_world: MakeWorld) -> None:
    """Counted from the journal: the death of a brain or of the gate gives no model another round."""
    world = new_world(CONFIG)
    brain = TroubledBrain(world)
    world.start()
    with world.client() as sock:
        task = ask(sock, wire.Submit(objective="o")).task
    assert world.pump(60, lambda: bool(brain.assigned))
    for attempt in (1, 2):
        brain.link.post(m.ModelTrouble(task, 0, 0, "garbled", "no use", attempt, final=False))
    assert world.pump(60, lambda: not brain.link.unacknowledged)
    world.kill()
    world.start()
    assert world.pump(60, lambda: len(brain.assigned) == 2)
    assert [(one.task, one.attempts) for one in brain.assigned] == [(task, 0), (task, 2)]
