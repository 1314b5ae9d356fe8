"""A real gate's answers: bounded for a client that doesn't read, whole for one that does, to no one else."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import zmq
from zmq.utils.monitor import parse_monitor_message

from homeostat.proto import codec, messages as m, records as r, wire
from homeostat.proto.config import Agent, Config
from tests.integration.gate.gate_world import PATIENCE_S, FakeBrain, GateWorld, ask

AGENT = (Agent(name="default", provider="chat"),)
MakeWorld = Callable[[Config], GateWorld]
HUGE = b'{"thought":"t","text":"x","n":100000000000000000000000}'
STEPS = 40


@pytest.fixture
def world(new_world: MakeWorld) -> GateWorld:
    """A gate that serves."""
    world = new_world(Config(agent=AGENT))
    world.start()
    assert isinstance(world.hear(), m.Ready)
    return world


def large(number: int) -> tuple[r.Call, ...]:
    """A step of three quarters of a megabyte."""
    text = f"{number}{'€' * 16_000}"
    return (r.Call("task.note", f'{{"text":"{text}"}}'.encode(), "why"),) * 16


def finished(world: GateWorld, steps: list[tuple[r.Call, ...]]) -> str:
    """Have a task run through these steps; give its id."""
    FakeBrain(world, steps)
    with world.client() as sock:
        task: str = ask(sock, wire.Submit(objective="o")).task
        assert world.pump(PATIENCE_S, lambda: not ask(sock, wire.Status()).tasks["open"])
    return task


def named(
    world: GateWorld, identity: bytes, waiting: int = 1_000, *, connect: bool = True
) -> zmq.Socket[bytes]:
    """A client's DEALER that chose its identity."""
    sock = world.zmq.socket(zmq.DEALER)
    sock.setsockopt(zmq.LINGER, 0)
    sock.setsockopt(zmq.RCVHWM, waiting)
    if identity:
        sock.setsockopt(zmq.IDENTITY, identity)
    if connect:
        sock.connect(f"ipc://{world.home}/run/client.sock")
    return sock


def test_gate_shows_a_number_beyond_64_bits_as_it_was_written(world: GateWorld) -> None:
    """One odd call of a model takes nothing down: shown and watched as text, call after call."""
    task = finished(world, [(r.Call("task.note", HUGE, ""),)])
    with world.client() as sock:
        for _ in range(2):
            (step,) = ask(sock, wire.Get(task=task)).steps
            assert (step.calls[0].args, step.calls[0].verdict) == (HUGE.decode(), "deny")
            events = ask(sock, wire.Watch(task=task)).events
            assert [event.data["calls"][0]["args"] for event in events if event.kind == "proposed"] == [
                HUGE.decode()
            ]


def test_gate_stays_small_when_a_client_never_reads_its_answers(world: GateWorld) -> None:
    """300 answers of a megabyte are asked for and not read; what waits for that client is bounded."""
    task = finished(world, [large(number) for number in range(6)])
    assert world.process is not None
    statm = Path(f"/proc/{world.process.pid}/statm")
    page = os.sysconf("SC_PAGE_SIZE")
    with world.client() as sock, named(world, b"", waiting=1) as deaf:
        before = int(statm.read_text().split()[1]) * page
        for _ in range(300):
            deaf.send(codec.encode(wire.Get(task=task)))
            assert isinstance(ask(sock, wire.Status()), wire.StatusReply)
        assert int(statm.read_text().split()[1]) * page - before < 120 << 20


def test_gate_answers_each_of_many_requests_that_were_sent_at_once(world: GateWorld) -> None:
    """A client that pipelines and reads loses none, of answers that wait for the sync neither."""
    with world.client() as sock:
        for number in range(500):
            sock.send(codec.encode(wire.Submit(rid=f"s{number}", objective="o")))
            sock.send(codec.encode(wire.Status(rid=f"q{number}")))
        seen: set[str] = set()
        for _ in range(1_000):
            assert sock.poll(int(PATIENCE_S * 1_000)), f"{1_000 - len(seen)} answers are missing"
            seen.add(codec.decode_reply(sock.recv()).rid)
        assert len(seen) == 1_000


def test_gate_feeds_a_watch_from_far_back_at_its_readers_pace(world: GateWorld) -> None:
    """Tens of megabytes of events for a client that takes them one by one: all of them, once, in order."""
    task = finished(world, [large(number) for number in range(STEPS)])
    with named(world, b"", waiting=1) as sock, world.client() as other:
        sock.send(codec.encode(wire.Watch(rid="w", task=task, follow=True, limit=2)))
        positions: list[int] = []
        ended = False
        while not ended:
            assert isinstance(ask(other, wire.Status()), wire.StatusReply)
            assert sock.poll(int(PATIENCE_S * 1_000)), f"the watch stopped after {len(positions)} events"
            batch = codec.decode_reply(sock.recv())
            assert isinstance(batch, wire.Events)
            positions += [event.position for event in batch.events]
            ended = batch.ended
        assert positions == sorted(set(positions))
        assert len(positions) > STEPS * 33


def test_gate_gives_no_answer_to_a_client_that_calls_itself_like_another(world: GateWorld) -> None:
    """An identity belongs to the connection that has it: a second one changes nothing for the first."""
    with named(world, b"mine") as first, named(world, b"mine") as second:
        assert ask(first, wire.Status(rid="a")).rid == "a"
        first.send(codec.encode(wire.Watch(rid="watch", follow=True, cursor=1_000_000)))
        second.send(codec.encode(wire.Status(rid="b")))
        assert second.poll(300) == 0
        task = ask(first, wire.Submit(rid="c", objective="o"))
        assert task.rid == "c"
        assert second.poll(300) == 0


@pytest.mark.parametrize("asked", [0, 10])
def test_gate_answers_a_named_client_whose_connection_broke(world: GateWorld, asked: int) -> None:
    """It comes back by itself, under its name, also when requests were on their way as it broke."""
    with (
        named(world, b"mine", connect=False) as sock,
        sock.get_monitor_socket(zmq.EVENT_CONNECTED) as monitor,
    ):
        sock.connect(f"ipc://{world.home}/run/client.sock")
        for number in range(5):
            for _ in range(asked):
                sock.send(codec.encode(wire.List()))
            assert monitor.poll(10_000), "it does not come back"
            connected = parse_monitor_message(monitor.recv_multipart())
            with socket.socket(fileno=os.dup(connected["value"])) as connection:
                assert isinstance(ask(sock, wire.Status(rid="before")), wire.Reply)
                connection.shutdown(socket.SHUT_RDWR)
            while sock.poll(50):
                sock.recv()
            answer = ask(sock, wire.Status(rid=f"{number}"), 10.0)
            while answer.rid != f"{number}":  # what was under way when the connection broke may still come
                answer = codec.decode_reply(sock.recv_multipart()[-1])
            assert isinstance(answer, wire.StatusReply)
        sock.disable_monitor()
