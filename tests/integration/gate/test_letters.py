"""What a real gate drops leaves a letter each, outlives a SIGKILL, and a flood of it costs no disk."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq
from prometheus_client.mmap_dict import MmapedDict

from homeostat.proto import codec, link, messages as m, records as r, wire
from homeostat.proto.config import Agent, Config
from homeostat.proto.ids import TaskId, identity
from homeostat.proto.transport import dealer
from homeostat.workers.gate.letters import SLOT_BYTES, SLOTS
from tests.integration.gate.gate_world import FakeWorker, GateWorld, ask

MakeWorld = Callable[[Config], GateWorld]
GARBAGE = b"\xc1not a frame\x1b[2J"
FLOOD = 20_000
PROPOSE = m.Propose(TaskId("t"), 0, 0, "", (), r.Usage())


@pytest.fixture
def world(new_world: MakeWorld) -> GateWorld:
    """With a gate that serves."""
    world = new_world(Config(agent=(Agent(name="default", provider="chat"),)))
    world.start()
    assert isinstance(world.hear(), m.Ready)
    return world


def letters(world: GateWorld) -> list[wire.LetterView]:
    """All of them, oldest first."""
    with world.client() as sock:
        return list(reversed(ask(sock, wire.Letters(limit=SLOTS)).letters))


def one_letter(world: GateWorld) -> wire.LetterView:
    """The only one, once it is there."""
    assert world.pump(60, lambda: bool(letters(world)))
    world.pump(0.2)
    (found,) = letters(world)
    return found


def stranger(world: GateWorld, epoch: int) -> zmq.Socket[Any]:
    """Somebody who speaks as a brain of this epoch."""
    return dealer(world.zmq, f"ipc://{world.home}/run/gate.sock", identity("brain", 0, epoch))


def frame(message: m.FromWorker) -> bytes:
    """As a worker of epoch 7 sends it to the first gate."""
    return link.encode(link.Data(7, 1, 1, 0, (msgspec.Raw(codec.encode(message)),)))


def test_undecodable_bytes_leave_one_letter(world: GateWorld) -> None:
    """With the bytes as they came, escaped, and who sent them."""
    with stranger(world, 1) as sock:
        sock.send(GARBAGE)
        letter = one_letter(world)
    assert (letter.reason, letter.sender, letter.size_bytes) == ("undecodable", "brain.0.1", len(GARBAGE))
    assert letter.data == "\\xc1not a frame\\x1b[2J"


@pytest.mark.parametrize("word", ["frame", "hello"])
def test_words_of_a_stale_epoch_leave_one_letter(world: GateWorld, word: str) -> None:
    """Of a former incarnation's frame the bytes; of a greeting none, for they hold a secret."""
    hello = m.Hello(link.VERSION, "brain", 0, 7, b"of epoch seven", 1)
    with stranger(world, 7) as sock:
        sock.send(frame(PROPOSE) if word == "frame" else link.encode(hello))
        letter = one_letter(world)
    assert (letter.reason, letter.sender) == ("stale_epoch", "brain.0.7")
    assert ("propose" in letter.data) == (word == "frame")
    assert "seven" not in letter.data


def test_greeting_without_the_secret_leaves_one_letter_however_often_it_is_said(world: GateWorld) -> None:
    """Two say nothing new: the letter counts them."""
    hello = m.Hello(link.VERSION, "brain", 0, 1, b"guessed", 1)
    with stranger(world, 1) as sock:
        for _ in range(3):
            sock.send(link.encode(hello))
        assert world.pump(60, lambda: [one.times for one in letters(world)] == [3])
    (letter,) = letters(world)
    assert (letter.reason, letter.subject, letter.data) == ("no_secret", "hello", "")


def test_identity_stays_its_owners_when_another_connection_claims_it(world: GateWorld) -> None:
    """Of two peers with one identity the welcomed one is heard on, the other one never: it gave no secret."""
    memory = FakeWorker(world, "memory")
    assert world.pump(60, lambda: memory.welcomed == 1)
    with dealer(world.zmq, f"ipc://{world.home}/run/gate.sock", identity("memory", 0, 1)) as thief:
        thief.send(GARBAGE)
        world.pump(0.3)
        memory.link.post(PROPOSE)
        letter = one_letter(world)
        assert (letter.reason, letter.sender) == ("not_its_role", "memory.0.1")
        assert not thief.poll(0)


def test_message_that_is_not_its_roles_leaves_one_letter(world: GateWorld) -> None:
    """A memory that proposes is welcome, and not heard."""
    memory = FakeWorker(world, "memory")
    assert world.pump(60, lambda: memory.welcomed == 1)
    memory.link.post(PROPOSE)
    letter = one_letter(world)
    assert (letter.reason, letter.sender, letter.subject) == ("not_its_role", "memory.0.1", "propose t 0")


def test_what_a_worker_drops_leaves_one_letter(world: GateWorld) -> None:
    """In the worker's words, within the gate's bounds."""
    memory = FakeWorker(world, "memory")
    assert world.pump(60, lambda: memory.welcomed == 1)
    memory.link.post(m.DeadLetter("undecodable", "records 4", "why", 90_000, b"\x1b" * 9_000, 3))
    letter = one_letter(world)
    assert (letter.reason, letter.sender, letter.subject) == ("undecodable", "memory.0.1", "records 4")
    assert (letter.size_bytes, len(letter.data), letter.unkept) == (90_000, 4 * 4_096, 3)


def test_malformed_request_leaves_one_letter_and_is_answered(world: GateWorld) -> None:
    """Refused as ever; the letter has what was sent."""
    with world.client() as sock:
        sock.send(codec.encode({"type": "submit", "v": 1, "objectiv": "typo"}))
        assert sock.poll(60_000)
        assert codec.decode_reply(sock.recv()).code == "bad_field"  # type: ignore[union-attr]  # it is refused
    letter = one_letter(world)
    assert (letter.reason, letter.sender, letter.detail) == ("bad_request", "local", "bad_field")
    assert "objectiv" in letter.data


def test_answer_to_an_unknown_destination_leaves_one_letter(world: GateWorld) -> None:
    """The client has gone before its task was on disk: the answer names the task that nobody waits for."""
    assert world.process is not None
    for number in range(100):
        os.kill(world.process.pid, signal.SIGSTOP)
        sock = world.client()
        sock.setsockopt(zmq.LINGER, 5_000)
        sock.send(codec.encode(wire.Submit(objective="work", key=str(number))))
        time.sleep(0.05)  # For its connection to carry it: then it is gone before the gate reads it.
        sock.close()
        os.kill(world.process.pid, signal.SIGCONT)
        if world.pump(1, lambda: bool(letters(world))):
            break
    letter = letters(world)[0]
    assert (letter.reason, letter.sender, letter.subject) == (
        "unknown_destination",
        "gate",
        "client submitted",
    )
    with world.client() as sock:
        known = ask(sock, wire.Submit(objective="work", key=str(number)))
    assert known.task in letter.data
    assert not known.created, "what was promised holds"


def test_letters_outlive_the_gate_when_it_is_killed(world: GateWorld) -> None:
    """No sync was waited for, and none is needed against the death of a process."""
    with stranger(world, 1) as sock:
        sock.send(GARBAGE)
        before = one_letter(world)
        world.kill()
        world.start()
        assert isinstance(world.hear(), m.Ready)
        assert letters(world) == [before]
        sock.send(b"another")
        assert world.pump(60, lambda: len(letters(world)) == 2)
    assert [one.number for one in letters(world)] == [1, 2]


def test_flood_of_letters_grows_no_journal_and_stops_no_client(world: GateWorld) -> None:
    """All are counted; few are kept; the journal's data is as it was, and the gate answers."""
    journal = world.home / "journal"
    with world.client() as sock:
        assert ask(sock, wire.Status()).ready  # That it began is written with its first round.
    before = (journal / "data.mdb").stat().st_size
    with stranger(world, 1) as worker, world.client() as client:
        for number in range(FLOOD):
            worker.send(b"\xc1%d" % number)
            if number % 20 == 0:
                client.send(b"\xc1%d" % number)
        wanted = {"undecodable": FLOOD, "bad_request": FLOOD // 20}
        assert world.pump(60, lambda: wanted.items() <= _counted(world.home).items())
    with world.client() as sock:
        assert ask(sock, wire.Status()).ready
    assert (journal / "data.mdb").stat().st_size == before
    assert (journal / "letters").stat().st_size <= SLOTS * SLOT_BYTES
    assert 0 < len(letters(world)) <= SLOTS


def _counted(home: Path) -> Counter[str]:
    """What the gate's metrics say of its dead letters."""
    found: Counter[str] = Counter()
    for file in (home / "run" / "metrics" / "gate.0").glob("counter_*.db"):
        for key, value, _, _ in MmapedDict.read_all_values_from_file(str(file)):  # type: ignore[no-untyped-call]
            _, name, labels, _ = msgspec.json.decode(key)
            if name == "homeostat_dead_letters_total":
                found[labels["reason"]] += int(value)
    return found
