"""Records on disk: their bytes must never change under a schema version."""

from __future__ import annotations

from typing import get_args

import msgspec
import pytest

from homeostat.proto import records as r
from homeostat.proto.ids import Key, TaskId

DIFF = r.DiffSummary((r.ChangeLine("created", "file", "a", 3, 0o644),), 1, 3, 0, 0, "d1", 0)
RECORDS: dict[str, r.Record] = {
    "accepted": r.Accepted(
        1,
        TaskId("t1"),
        "default",
        "do",
        "local",
        "k",
        "/w",
        r.Plan([r.PlanStep("why", "task.note", {"text": "x"})]),
        r.Limits(),
    ),
    "proposed": r.Proposed(2, 0, "", (r.Call("task.note", b"{}", "why", "c1"),), r.Usage(3, 4), b"raw"),
    "decided": r.Decided(
        3, 0, 0, "call", "admit", "policy", "own-task", "", "v1", r.Intent(Key("k" * 32), "once", 9)
    ),
    "staged": r.Staged(4, 0, 0, Key("k" * 32), DIFF),
    "outcome": r.Outcome(5, 0, 0, Key("k" * 32), "error", "out", 1, 9, "sha", 3, 0.5, DIFF, "userns", "note"),
    "event": r.SystemEvent(6, 2, "identical", "words"),
    "status": r.StatusChanged(7, "done", "", "result"),
    "cancel_requested": r.CancelRequested(8, "local", "why"),
    "doubt_resolved": r.DoubtResolved(9, 0, 0, Key("k" * 32), "happened", "local"),
    "model_failed": r.ModelFailed(10, 1, "rate_limit", "slow down", 2),
    "gate_started": r.GateStarted(11, 5, "0.1.0", "p", "c"),
    "worker_started": r.WorkerStarted(12, "brain", 0, 3),
    "quarantined": r.Quarantined(5, "propose t1 0", "gate.0", 2, "why"),
    "frozen": r.Frozen(13, "agent", "a", "local", "why"),
    "connected": r.Connected(
        15, 1, 0, Key("k" * 32), "h", 443, "192.0.2.1", "CONNECT", "open", "", 10, 20, 0.5
    ),
    "terminal_taken": r.TerminalTaken(16, "a", "local", True),
    "rewound": r.Rewound(17, 2, 1, "local"),
    "thawed": r.Thawed(14, "all", "", "local", ""),
}

GOLDEN: dict[str, str] = {
    "accepted": (
        "9aa8616363657074656401a27431a764656661756c74a2646fa56c6f63616ca16ba22f7782a4737465709183a774686f"
        "75676874a3776879a4746f6f6ca97461736b2e6e6f7465a46172677381a474657874a178a86f6e5f6572726f72a47374"
        "6f7086a96d61785f7374657073ccc8aa6d61785f77616c6c5f73cb40f5180000000000b06d61785f6f75747075745f62"
        "79746573ce40000000aa6d61785f746f6b656e73ce001e8480b66d61785f636f6e73656375746976655f6572726f7273"
        "19ae63616c6c5f74696d656f75745f73cb405e000000000000"
    ),
    "proposed": ("97a870726f706f7365640200a09194a97461736b2e6e6f7465c4027b7da3776879a26331920304c403726177"),
    "decided": (
        "9ba764656369646564030000a463616c6ca561646d6974a6706f6c696379a86f776e2d7461736ba0a2763193d9206b6b"
        "6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6ba46f6e636509"
    ),
    "staged": (
        "96a6737461676564040000d9206b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b989196"
        "a763726561746564a466696c65a16103cd01a4a001030000a264310000"
    ),
    "outcome": (
        "9fa76f7574636f6d65050000d9206b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6ba565"
        "72726f72a36f75740109a373686103cb3fe0000000000000989196a763726561746564a466696c65a16103cd01a4a001"
        "030000a264310000a6757365726e73a46e6f7465"
    ),
    "event": ("95a56576656e740602a96964656e746963616ca5776f726473"),
    "status": ("95a673746174757307a4646f6e65a0a6726573756c74"),
    "cancel_requested": ("94b063616e63656c5f72657175657374656408a56c6f63616ca3776879"),
    "doubt_resolved": (
        "97ae646f7562745f7265736f6c766564090000d9206b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b"
        "6b6b6b6b6ba868617070656e6564a56c6f63616c"
    ),
    "model_failed": ("96ac6d6f64656c5f6661696c65640a01aa726174655f6c696d6974a9736c6f7720646f776e02"),
    "gate_started": ("96ac676174655f737461727465640b05a5302e312e30a170a163"),
    "quarantined": ("96ab71756172616e74696e656405ac70726f706f73652074312030a6676174652e3002a3776879"),
    "worker_started": ("95ae776f726b65725f737461727465640ca5627261696e0003"),
    "frozen": ("96a666726f7a656e0da56167656e74a161a56c6f63616ca3776879"),
    "thawed": ("96a67468617765640ea3616c6ca0a56c6f63616ca0"),
    "connected": (
        "9ea9636f6e6e65637465640f0100d9206b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b"
        "a168cd01bba93139322e302e322e31a7434f4e4e454354a46f70656ea00a14cb3fe0000000000000"
    ),
    "terminal_taken": ("95ae7465726d696e616c5f74616b656e10a161a56c6f63616cc3"),
    "rewound": ("95a77265776f756e64110201a56c6f63616c"),
}


def test_records_golden_holds_every_kind() -> None:
    """A new kind of record needs a golden line of its own."""
    kinds = {str(kind.__struct_config__.tag) for kind in get_args(r.Record)}
    assert set(GOLDEN) == set(RECORDS) == kinds


def test_records_golden_is_of_this_schema() -> None:
    """Who raises the schema version keeps these bytes, as those of version 1, and adds new ones."""
    assert r.SCHEMA == 1


@pytest.mark.parametrize("kind", sorted(RECORDS))
def test_record_encodes_to_its_golden_bytes(kind: str) -> None:
    """What is written today is what version 1 wrote."""
    assert r.encode_record(RECORDS[kind]).hex() == GOLDEN[kind]


@pytest.mark.parametrize("kind", sorted(RECORDS))
def test_record_is_read_back_from_its_golden_bytes(kind: str) -> None:
    """What version 1 wrote is read, and written again alike."""
    record = r.decode_record(bytes.fromhex(GOLDEN[kind]))
    assert record == RECORDS[kind]
    assert r.encode_record(record).hex() == GOLDEN[kind]


def test_record_without_a_later_field_is_read_with_its_default() -> None:
    """Fields are appended with defaults: an outcome without its last ones is still read."""
    short = msgspec.msgpack.encode(["outcome", 5, 0, 0, "k", "ok", "out"])
    assert r.decode_record(short) == r.Outcome(5, 0, 0, Key("k"), "ok", "out")


@pytest.mark.parametrize("data", [b"", b"\x91\xa4nope", b"\x92\xa6status\x01", b"\xc1"])
def test_record_decoder_refuses_other_bytes(data: bytes) -> None:
    """Bytes that are no record raise, and give no record."""
    with pytest.raises(msgspec.MsgspecError):
        r.decode_record(data)


FORMER: dict[str, str] = {
    "staged": (
        "96a6737461676564040000d9206b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b979195"
        "a763726561746564a466696c65a16103cd01a401030000a2643100"
    ),
    "outcome": (
        "9fa76f7574636f6d65050000d9206b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6ba565"
        "72726f72a36f75740109a373686103cb3fe0000000000000979195a763726561746564a466696c65a16103cd01a40103"
        "0000a2643100a6757365726e73a46e6f7465"
    ),
}
"""What 0.1.0 wrote, before fields were added."""


@pytest.mark.parametrize("kind", sorted(FORMER))
def test_record_is_read_when_it_lacks_what_was_added(kind: str) -> None:
    """An older journal: what it doesn't say has its default."""
    assert r.decode_record(bytes.fromhex(FORMER[kind])) == RECORDS[kind]
