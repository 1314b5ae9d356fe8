"""The brain's shell against a real HTTP server: streams, cuts, refusals, keys."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from homeostat.proto.config import Agent, Config, Model
from homeostat.proto.ids import TaskId
from homeostat.proto.messages import (
    AgentSpec,
    Assign,
    Drop,
    Finish,
    ModelTrouble,
    Observation,
    Observe,
    Propose,
    ToolSpec,
)
from homeostat.proto.records import Call, Usage
from homeostat.workers.brain.shell import SYSTEM, make
from tests.fakes.chat_server import (
    DONE,
    ChatServer,
    Reply,
    call_more,
    call_start,
    calls,
    chunk,
    text,
)
from tests.fakes.loop import FakeLoop

if TYPE_CHECKING:
    from homeostat.workers.runtime import Context, Loop

TASK = TaskId("t1")
ARGS = '{"thought":"look first","command":"ls"}'
SPEC = AgentSpec("talker", "Be brief.", "chat", (ToolSpec("shell.run", "Run.", b'{"type":"object"}'),))
ASSIGN = Assign(TASK, 0, SPEC, "Count the files.", None, 0, 0, failed=False)
KEY = "sk-made-up-0123456789"


class Bench:
    """A brain's shell on a fake loop."""

    def __init__(self, url: str, **model: Any) -> None:
        agent = Agent("talker", provider="chat", model=Model(url, "tiny", **({"timeout_s": 20.0} | model)))
        context = cast("Context", SimpleNamespace(config=Config(agent=(agent,))))
        self.loop = FakeLoop()
        self.brain = make(context, cast("Loop", self.loop))

    def next(self) -> Any:
        """The next message that the brain posts."""
        count = len(self.loop.posted)
        self.loop.turn(lambda: len(self.loop.posted) > count)
        return self.loop.posted[-1]


def test_brain_carries_a_conversation_through_a_real_stream() -> None:
    """Calls, then a report; the second request repeats the first's words and adds the result."""
    with ChatServer(Reply(calls(("c1", "shell_run", ARGS))), Reply(text("Three ", "files."))) as server:
        bench = Bench(server.url)
        assert bench.loop.is_ready
        bench.brain.on_message(ASSIGN)
        propose = bench.next()
        assert isinstance(propose, Propose)
        assert propose.calls == (Call("shell.run", ARGS.encode(), "", "c1"),)
        assert propose.usage == Usage(200, 20)
        seen = (Observation(0, "shell.run", "c1", "ok", "a\nb\nc"),)
        bench.brain.on_message(Observe(TASK, 0, 0, seen))
        finish = bench.next()
        assert finish == Finish(TASK, 0, 1, "done", "Three files.", Usage(100, 10), finish.raw)
        first, second = (json.loads(body)["messages"] for body in server.bodies)
        assert first[0]["content"] == f"{SYSTEM.rstrip()}\n\nBe brief."
        assert second[:2] == first
        assert second[2] == json.loads(propose.raw)
        assert second[3]["tool_call_id"] == "c1"


BEGUN = [call_start(0, "c1", "shell_run"), call_more(0, ARGS[:9])]


@pytest.mark.parametrize(("reply", "kind"), [
    (Reply(BEGUN, cut=True), "cut"),
    (Reply(BEGUN), "cut"),
    (Reply([*BEGUN, chunk(finish="length"), DONE]), "cut"),
    (Reply([*BEGUN, chunk(finish="tool_calls"), DONE]), "garbled"),
    (Reply([b"\x00\xffdata data: \n\ndata: }{\n\n"]), "garbled"),
    (Reply([b"data: " + b"x" * (2 << 20)]), "garbled"),
    (Reply([b'{"choices":[]}'], content_type="application/json"), "garbled"),
    (Reply([b'{"error":{"message":"busy"}}'], 500), "overload"),
    (Reply([], 503, cut=True), "overload"),
])  # fmt: skip
def test_brain_proposes_nothing_and_asks_again_when_a_stream_is_broken(reply: Reply, kind: str) -> None:
    """The failure is told with its kind; the same words are asked again; then all is well."""
    with ChatServer(reply, Reply(text("ok"))) as server:
        bench = Bench(server.url)
        bench.brain.on_message(ASSIGN)
        trouble = bench.next()
        assert isinstance(trouble, ModelTrouble)
        assert (trouble.error, trouble.attempt, trouble.final) == (kind, 1, False)
        assert len(bench.loop.fire()) == 1
        assert bench.next().status == "done"
        assert server.bodies[0] == server.bodies[1]


@pytest.mark.parametrize(("reply", "kind"), [
    (Reply([], 429, {"retry-after-ms": "9" * 400}), "rate_limit"),
    (Reply(text(*["\x01" * 100_000] * 41)), "garbled"),
])  # fmt: skip
def test_brain_lives_on_when_an_answer_is_beyond_all_bounds(reply: Reply, kind: str) -> None:
    """A number of 400 digits, or text whose JSON no message to the gate can carry, ends a task at most."""
    with ChatServer(reply, Reply(text("ok"))) as server:
        bench = Bench(server.url, attempts=1)
        bench.brain.on_message(ASSIGN)
        trouble = bench.next()
        assert isinstance(trouble, ModelTrouble)
        assert (trouble.error, trouble.attempt, trouble.final) == (kind, 1, True)
        bench.brain.on_message(Drop(TASK))
        bench.brain.on_message(ASSIGN)
        assert bench.next().status == "done"


def test_brain_waits_as_long_as_the_provider_asks() -> None:
    """Retry-After is a floor for the pause."""
    with ChatServer(Reply([], 429, {"Retry-After": "7"}), Reply(text("ok"))) as server:
        bench = Bench(server.url)
        bench.brain.on_message(ASSIGN)
        assert bench.next().error == "rate_limit"
        (delay_s,) = bench.loop.fire()
        assert 7.0 <= delay_s <= 8.0
        assert bench.next().status == "done"


def test_brain_accepts_a_whole_answer_when_the_end_is_ragged() -> None:
    """With the finish reason seen, a missing [DONE] or a broken connection costs nothing."""
    whole = calls(("c1", "shell_run", ARGS))[:-2]
    with ChatServer(Reply(whole, cut=True)) as server:
        bench = Bench(server.url)
        bench.brain.on_message(ASSIGN)
        assert isinstance(bench.next(), Propose)


def test_brain_gives_up_at_once_when_the_key_is_refused() -> None:
    """No retry mends a key."""
    with ChatServer(Reply([b'{"error":{"message":"no such key"}}'], 401)) as server:
        bench = Bench(server.url)
        bench.brain.on_message(ASSIGN)
        trouble = bench.next()
        assert (trouble.error, trouble.final) == ("auth", True)


def test_brain_does_not_follow_a_redirect() -> None:
    """The key would go to another host."""
    with ChatServer() as other, ChatServer(Reply([], 307, {"Location": f"{other.url}/x"})) as server:
        bench = Bench(server.url)
        bench.brain.on_message(ASSIGN)
        assert bench.next().error == "refusal"
        assert other.bodies == []


def test_brain_sends_the_key_of_its_file_and_reads_it_anew(tmp_path: Path) -> None:
    """A rotated key is used at the next call."""
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    with ChatServer(Reply(text("a")), Reply(text("b"))) as server:
        bench = Bench(server.url, key_file=str(file))
        bench.brain.on_message(ASSIGN)
        bench.next()
        file.write_text("sk-second")
        bench.brain.on_message(Drop(TASK))
        bench.brain.on_message(ASSIGN)
        bench.next()
        assert server.keys == [f"Bearer {KEY}", "Bearer sk-second"]


@pytest.mark.parametrize("content", [None, "", "two\nlines", "sk-\x00", "x" * 20_000])
def test_brain_names_the_source_and_never_the_key_when_it_is_unusable(
    tmp_path: Path, content: str | None
) -> None:
    """The message is for the operator; a key stays out of it."""
    file = tmp_path / "key"
    if content is not None:
        file.write_text(content)
    bench = Bench("http://127.0.0.1:9/v1", key_file=str(file))
    bench.brain.on_message(ASSIGN)
    trouble = bench.next()
    assert (trouble.error, trouble.final) == ("auth", True)
    assert str(file) in trouble.message
    assert not content or content not in trouble.message


def test_brain_reads_the_key_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or says which variable is missing."""
    monkeypatch.setenv("MADE_UP_KEY", KEY)
    with ChatServer(Reply(text("a"))) as server:
        bench = Bench(server.url, key_env="MADE_UP_KEY")
        bench.brain.on_message(ASSIGN)
        bench.next()
        monkeypatch.delenv("MADE_UP_KEY")
        bench.brain.on_message(Drop(TASK))
        bench.brain.on_message(ASSIGN)
        assert "MADE_UP_KEY" in bench.next().message
        assert server.keys == [f"Bearer {KEY}"]


@pytest.mark.parametrize(("url", "kind"), [
    ("http://127.0.0.1:9/v1", "network"),
    ("http://[::1/v1", "network"),
    ("http://:::/v1", "network"),
    ("nonsense", "refusal"),
    ("ftp://127.0.0.1/", "refusal"),
])  # fmt: skip
def test_brain_tells_of_a_failure_when_nobody_answers(url: str, kind: str) -> None:
    """Whatever the base URL is, the call ends with a failure."""
    bench = Bench(url, attempts=1)
    bench.brain.on_message(ASSIGN)
    trouble = bench.next()
    assert (trouble.error, trouble.final) == (kind, True)


@pytest.mark.parametrize(("url", "words"), [
    ("http://127.0.0.1:9/v1", "127.0.0.1:9: connection refused"),
    ("http://127.0.0.1:9", "127.0.0.1:9: connection refused"),
    ("http://[::1/v1", "is this the right base_url"),
])  # fmt: skip
def test_brain_says_who_was_asked_and_why_it_failed_when_nobody_answers(url: str, words: str) -> None:
    """Host, port and the system's word; no class names, no addresses of objects."""
    bench = Bench(url, attempts=1)
    bench.brain.on_message(ASSIGN)
    trouble = bench.next()
    assert words in trouble.message
    assert not re.search(r"Error|urllib3|HTTPConnection|Pool|0x", trouble.message)


@pytest.mark.parametrize(("status", "kind"), [(200, "text/html; charset=utf-8"), (404, "text/html")])
def test_brain_hints_at_the_base_url_when_it_gets_a_page(status: int, kind: str) -> None:
    """A web server's page is most likely the wrong address; its markup is of no use to anyone."""
    with ChatServer(Reply([b"<html><body>Hello"], status=status, content_type=kind)) as server:
        bench = Bench(server.url.removesuffix("/v1"), attempts=1)
        bench.brain.on_message(ASSIGN)
        trouble = bench.next()
    assert "is this the right base_url? It usually ends in /v1" in trouble.message
    assert "<html>" not in trouble.message


def test_brain_reads_a_stream_whatever_its_type_is_called() -> None:
    """A server that names its stream otherwise is understood; only when that fails is the type blamed."""
    plain = "text/plain"
    with ChatServer(Reply(text("ok"), content_type=plain), Reply([b"hello"], content_type=plain)) as server:
        bench = Bench(server.url, attempts=1)
        bench.brain.on_message(ASSIGN)
        assert bench.next().status == "done"
        bench.brain.on_message(Drop(TASK))
        bench.brain.on_message(ASSIGN)
        assert "text/plain" in bench.next().message


def test_brain_ends_a_silent_call_at_its_time_limit() -> None:
    """``timeout_s`` bounds silence."""
    hold = threading.Event()
    with ChatServer(Reply(BEGUN, hold=hold)) as server:
        bench = Bench(server.url, timeout_s=0.2, attempts=1)
        bench.brain.on_message(ASSIGN)
        trouble = bench.next()
        assert trouble.error == "cut"
        assert "timed out" in trouble.message
        hold.set()


def test_brain_cuts_a_running_call_when_the_task_is_dropped() -> None:
    """The thread that waits for bytes is woken, and its answer ignored; the next task is served."""
    hold = threading.Event()
    with ChatServer(Reply(BEGUN, hold=hold), Reply(text("ok"))) as server:
        bench = Bench(server.url)
        bench.brain.on_message(ASSIGN)
        assert server.wait_asked(1)
        bench.brain.on_message(Drop(TASK))
        calls_ = bench.brain._calls
        assert calls_ is not None
        bench.loop.turn(lambda: not calls_._cuts)
        assert not hold.is_set()
        assert bench.loop.posted == []
        bench.brain.on_message(ASSIGN)
        assert bench.next().status == "done"
        hold.set()


def test_brain_leaves_at_once_when_it_is_stopped() -> None:
    """Calls on their way are cut; the answer would be asked for again."""
    hold = threading.Event()
    with ChatServer(Reply(BEGUN, hold=hold)) as server:
        bench = Bench(server.url)
        bench.brain.on_message(ASSIGN)
        assert server.wait_asked(1)
        bench.brain.on_stop(1.0)
        assert bench.loop.finished
        hold.set()
