"""The text of what is at hand: the same for a message that is sent again, short, and read back."""

from __future__ import annotations

from typing import Any, get_args

import msgspec
import pytest

from homeostat.proto import messages as m, records as r, subjects, wire
from homeostat.proto.ids import Key, TaskId

TASK, KEY = TaskId("tabcdefghijklmnop"), Key("0123456789abcdef0123456789abcdef")
TURN = m.Turn(3, "", b"", (), ())
DIFF = r.DiffSummary((), 1, 3, 0, 0, "digest")
AGENT = m.AgentSpec("default", "", "chat", ())
MESSAGES: dict[str, Any] = {
    f"propose {TASK} 5": m.Propose(TASK, 0, 5, "", (), r.Usage()),
    f"finish {TASK} 5": m.Finish(TASK, 0, 5, "done", "", r.Usage()),
    f"model_trouble {TASK} 5": m.ModelTrouble(TASK, 0, 5, "e", "m", 1, final=False),
    f"observe {TASK} 5": m.Observe(TASK, 0, 5, ()),
    f"assign {TASK} 6": m.Assign(TASK, 0, AGENT, "o", None, 6, 6, failed=False),
    f"history {TASK} 3": m.History(TASK, (TURN,), last=True),
    f"drop {TASK}": m.Drop(TASK),
    f"end_task {TASK}": m.EndTask(TASK),
    f"execute {KEY}": m.Execute(KEY, TASK, "shell.run", b"", "staged", "/w", 1.0, 1),
    f"ended {KEY}": m.Ended(KEY, "ok", ""),
    f"staged_diff {KEY}": m.StagedDiff(KEY, DIFF),
    f"merge {KEY}": m.Merge(KEY, "d"),
    "hello brain.1": m.Hello(1, "brain", 1, 9, b"s", 1),
    "follow memory": m.Follow("memory", 7),
    "records 8": m.Records((m.JournalRecord(8, TASK, 0, b""),)),
    "keeping": m.Keeping((TASK,)),
    "stop": m.Stop(1.0),
}


@pytest.mark.parametrize("text", MESSAGES)
def test_subject_names_tag_task_or_key_and_step(text: str) -> None:
    """What supervisor and gate agree on."""
    assert subjects.subject_of(MESSAGES[text]) == text


def test_every_message_has_a_subject_of_its_own_kind() -> None:
    """A message that is added later is named by its fields; none is forgotten."""
    handled = get_args(m.FromWorker | m.ToWorker | m.FromSupervisor)
    assert {kind for kind in handled if kind not in subjects._KNOWN} == set()
    for kind, (tag, _) in subjects._KNOWN.items():
        fields = set(kind.__struct_fields__)
        assert (subjects.parse(f"{tag} x").kind == "call") == ("key" in fields)
        assert (subjects.parse(f"{tag} x").kind == "task") == ("task" in fields and "key" not in fields)


def test_subject_is_the_same_when_a_message_is_sent_again() -> None:
    """Epochs, batches and request ids differ; what it is about does not."""
    assert subjects.subject_of(m.Hello(1, "brain", 0, 9, b"s", 1)) == subjects.subject_of(
        m.Hello(1, "brain", 0, 10, b"t", 44)
    )
    records = tuple(m.JournalRecord(place, TASK, 0, b"") for place in range(8, 20))
    assert subjects.subject_of(m.Records(records[:2])) == subjects.subject_of(m.Records(records))
    requests: tuple[wire.Request, ...] = (
        wire.Submit(objective="x", key="k"),
        wire.Submit(objective="x"),
        wire.List(before=9),
    )
    for request in requests:
        again = msgspec.structs.replace(request, rid="another")
        assert subjects.client_subject(request) == subjects.client_subject(again)


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        (wire.Submit(objective="x", key="nightly:7"), "client submit nightly:7"),
        (wire.Get(task=TASK), f"client get {TASK}"),
        (wire.Watch(task=TASK, cursor=9), f"client watch {TASK}"),
        (wire.Resolve(task=TASK, key=KEY, answer="fail"), f"client resolve {TASK}"),
    ],
)
def test_client_subject_names_type_and_task_or_key(request_: wire.Request, text: str) -> None:
    """As the operator would say it."""
    assert subjects.client_subject(request_) == text


def test_client_subject_tells_requests_apart_that_name_nothing() -> None:
    """By all that they ask for; and a key of one client is not another's."""
    plan = r.Plan([r.PlanStep("why", "task.note", {"text": "x"})])
    asked: list[wire.Request] = [
        wire.Submit(objective="x"),
        wire.Submit(objective="y"),
        wire.Submit(objective="x", plan=plan),
        wire.List(),
        wire.List(before=3),
        wire.Status(),
    ]
    texts = {subjects.client_subject(one) for one in asked}
    keyed = wire.Submit(objective="x", key="k")
    texts |= {subjects.client_subject(keyed), subjects.client_subject(keyed, "curve:abc")}
    assert len(texts) == len(asked) + 2


@pytest.mark.parametrize("name", ["", " ", "a b", "\x1b[2J", "ü" * 300, "k" * 5_000, "\ud800", "-x", "~" * 9])
def test_subject_is_one_short_printable_line_whatever_the_name(name: str) -> None:
    """At most 200 bytes of ASCII without spaces in a name; different names stay different."""
    texts = [subjects.subject_of(m.Drop(TaskId(name))), subjects.tend_subject(name)]
    if name != "\ud800":  # No message can carry it: the fingerprint of such a request can't be asked for.
        texts.append(subjects.client_subject(wire.Submit(objective="x", key=name), "curve:" + "z" * 40))
    for text in texts:
        assert len(text.encode()) <= subjects.LIMIT_BYTES
        assert text.isascii()
        assert text.isprintable()
        assert subjects.parse(text).kind != "other"
    assert subjects.subject_of(m.Drop(TaskId(name))) != subjects.subject_of(m.Drop(TaskId(name + "x")))


def test_subject_is_short_when_a_step_is_absurd() -> None:
    """A number of any length is cut."""
    text = subjects.subject_of(m.Propose(TaskId("t" * 80), 0, 10**300, "", (), r.Usage()))
    assert len(text) <= subjects.LIMIT_BYTES


@pytest.mark.parametrize(
    ("text", "kind", "verb", "name"),
    [
        (f"propose {TASK} 5", "task", "propose", TASK),
        (f"drop {TASK}", "task", "drop", TASK),
        (subjects.tend_subject(TASK), "task", "tend", TASK),
        (f"execute {KEY}", "call", "execute", KEY),
        ("client submit nightly", "request", "submit", "nightly"),
        ("hello brain.0", "other", "hello", ""),
        ("records 9", "other", "records", ""),
        ("", "other", "", ""),
        ("propose", "other", "propose", ""),
        ("propose  5", "other", "propose", ""),
        ("client submit", "other", "client", ""),
        ("propose a b c", "other", "propose", ""),
    ],
)
def test_parse_takes_apart_what_was_said(text: str, kind: str, verb: str, name: str) -> None:
    """And knows what is no subject."""
    found = subjects.parse(text)
    assert (found.kind, found.verb, found.name, found.text) == (kind, verb, name, text)
