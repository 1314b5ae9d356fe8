"""Client messages on the wire: version 1 can't change silently."""

from __future__ import annotations

from typing import Any, get_args

import jsonschema_rs
import msgspec
import pytest

from homeostat.proto import records as r, wire as w
from homeostat.proto.codec import decode_reply, decode_request, encode, json_schema

PLAN = r.Plan([r.PlanStep("why", "task.note", {"text": "x"})])
ROW = w.TaskView(
    task="t1", status="done", objective="o", agent="default", workspace="/w", steps=1, accepted_at_ns=5
)
CALL = w.CallView(
    tool="task.note",
    args={"text": "x"},
    thought="why",
    klass="once",
    key="k",
    verdict="admit",
    outcome=w.OutcomeView(status="ok", text="noted"),
)
OPEN = w.OpenTask(task="t1", agent="default", status="running", step=1, accepted_at_ns=5, tool="task.note")
MESSAGES: dict[str, w.Request | w.Reply] = {
    "submit": w.Submit(rid="1", objective="o", plan=PLAN, key="k", limits=r.Limits()),
    "get": w.Get(rid="1", task="t1"),
    "list": w.List(rid="1"),
    "watch": w.Watch(rid="1", task="t1", cursor=4, wait_s=1.5),
    "cancel": w.Cancel(rid="1", task="t1", reason="why"),
    "resolve": w.Resolve(rid="1", task="t1", key="k", answer="happened"),
    "status": w.Status(rid="1", open_limit=5),
    "freeze": w.Freeze(rid="1", scope="agent", name="a", reason="why"),
    "thaw": w.Thaw(rid="1"),
    "attach": w.Attach(rid="1", task="t1", terminal="a"),
    "diff": w.Diff(rid="1", task="t1", step=2),
    "rewind": w.Rewind(rid="1", task="t1", to_step=-1),
    "attached": w.Attached(rid="1", task="t1", terminal="a", path="/s", token="t", rows=24, cols=80),
    "diffs": w.Diffs(
        rid="1",
        task="t1",
        step=2,
        calls=[w.CallDiff(index=0, tool="shell.run", key="k", status="ok", diff={"total": 1}, text="+a")],
    ),
    "rewound": w.Rewound(
        rid="1", task="t1", status="running", to_step=0, branch=1, kept=["step 2: http.request"]
    ),
    "submitted": w.Submitted(rid="1", task="t1", created=True, status="queued", cursor=7),
    "task": w.Task(rid="1", task=ROW, steps=[w.StepView(step=0, thought="why", calls=[CALL])]),
    "tasks": w.Tasks(rid="1", tasks=[ROW], next=3),
    "events": w.Events(
        rid="1",
        cursor=8,
        events=[w.Event(position=8, task="t1", kind="status", at_ns=5, data={"status": "done"})],
        ended=True,
    ),
    "cancelled": w.Cancelled(rid="1", task="t1", status="cancelled"),
    "resolved": w.Resolved(rid="1", task="t1", status="running"),
    "frozen": w.Frozen(
        rid="1", scope="agent", name="a", created=True, since=5, reason="why", tasks=2, moving=1
    ),
    "thawed": w.Thawed(
        rid="1",
        scope="all",
        name="",
        changed=True,
        since=5,
        frozen=[w.FreezeView(scope="tool", name="shell.run", since=4, reason="r")],
    ),
    "status_reply": w.StatusReply(
        rid="1",
        ready=True,
        version="0.1.0",
        tasks={"open": 0},
        workers=["brain.0.1"],
        position=8,
        tree_root="ab",
        mailboxes={"brain.0": 2},
        totals={"steps": 3},
        journal_bytes=4096,
        letters=1,
        open=[OPEN],
    ),
    "letters": w.Letters(rid="1", limit=9, before=4),
    "dead_letters": w.DeadLetters(
        rid="1",
        letters=[
            w.LetterView(
                number=3, at_ns=5, reason="undecodable", sender="brain.0.1", size_bytes=2, data="\\xc1x"
            )
        ],
        next=3,
    ),
    "refused": w.Refused(rid="1", code="bad_field", message="m", field="f", expected="e", remedy="r"),
}

GOLDEN: dict[str, str] = {
    "submit": (
        "89a474797065a67375626d6974a96f626a656374697665a16fa56167656e74a764656661756c74a4706c616e82a47374"
        "65709183a774686f75676874a3776879a4746f6f6ca97461736b2e6e6f7465a46172677381a474657874a178a86f6e5f"
        "6572726f72a473746f70a9776f726b7370616365a0a36b6579a16ba66c696d69747386a96d61785f7374657073ccc8aa"
        "6d61785f77616c6c5f73cb40f5180000000000b06d61785f6f75747075745f6279746573ce40000000aa6d61785f746f"
        "6b656e73ce001e8480b66d61785f636f6e73656375746976655f6572726f727319ae63616c6c5f74696d656f75745f73"
        "cb405e000000000000a17601a3726964a131"
    ),
    "get": ("86a474797065a3676574a47461736ba27431a966726f6d5f7374657000a56c696d697464a17601a3726964a131"),
    "list": ("86a474797065a46c697374a6737461747573a0a56c696d697464a66265666f726500a17601a3726964a131"),
    "watch": (
        "88a474797065a57761746368a47461736ba27431a6637572736f7204a56c696d6974cd0100a6666f6c6c6f77c2a67761"
        "69745f73cb3ff8000000000000a17601a3726964a131"
    ),
    "cancel": ("85a474797065a663616e63656ca47461736ba27431a6726561736f6ea3776879a17601a3726964a131"),
    "resolve": (
        "86a474797065a77265736f6c7665a47461736ba27431a36b6579a16ba6616e73776572a868617070656e6564a17601a3"
        "726964a131"
    ),
    "status": ("84a474797065a6737461747573aa6f70656e5f6c696d697405a17601a3726964a131"),
    "freeze": (
        "86a474797065a6667265657a65a573636f7065a56167656e74a46e616d65a161a6726561736f6ea3776879a17601a372"
        "6964a131"
    ),
    "thaw": ("86a474797065a474686177a573636f7065a3616c6ca46e616d65a0a6726561736f6ea0a17601a3726964a131"),
    "frozen": (
        "8aa474797065a666726f7a656ea573636f7065a56167656e74a46e616d65a161a763726561746564c3a573696e636505"
        "a6726561736f6ea3776879a57461736b7302a66d6f76696e6701a17601a3726964a131"
    ),
    "thawed": (
        "88a474797065a6746861776564a573636f7065a3616c6ca46e616d65a0a76368616e676564c3a573696e636505a66672"
        "6f7a656e9184a573636f7065a4746f6f6ca46e616d65a97368656c6c2e72756ea573696e636504a6726561736f6ea172"
        "a17601a3726964a131"
    ),
    "submitted": (
        "87a474797065a97375626d6974746564a47461736ba27431a763726561746564c3a6737461747573a6717565756564a6"
        "637572736f7207a17601a3726964a131"
    ),
    "task": (
        "86a474797065a47461736ba47461736b8aa47461736ba27431a6737461747573a4646f6e65a96f626a656374697665a1"
        "6fa56167656e74a764656661756c74a9776f726b7370616365a22f77a5737465707301ae61636365707465645f61745f"
        "6e7305a6726561736f6ea0a6726573756c74a0a8696e5f646f75627490a573746570739184a47374657000a774686f75"
        "676874a3776879a563616c6c73918aa4746f6f6ca97461736b2e6e6f7465a46172677381a474657874a178a774686f75"
        "676874a3776879a5636c617373a46f6e6365a36b6579a16ba776657264696374a561646d6974a57374616765a0a47275"
        "6c65a0a6726561736f6ea0a76f7574636f6d658aa6737461747573a26f6ba9657869745f636f6465c0a67369676e616c"
        "c0a474657874a56e6f746564a86172746966616374a0ac6f75747075745f627974657300a464696666c0aa6475726174"
        "696f6e5f73cb0000000000000000aa70726f74656374696f6ea0a46e6f7465a0a56576656e74a0a96e6578745f737465"
        "7000a17601a3726964a131"
    ),
    "tasks": (
        "85a474797065a57461736b73a57461736b73918aa47461736ba27431a6737461747573a4646f6e65a96f626a65637469"
        "7665a16fa56167656e74a764656661756c74a9776f726b7370616365a22f77a5737465707301ae61636365707465645f"
        "61745f6e7305a6726561736f6ea0a6726573756c74a0a8696e5f646f75627490a46e65787403a17601a3726964a131"
    ),
    "events": (
        "86a474797065a66576656e7473a6637572736f7208a66576656e74739185a8706f736974696f6e08a47461736ba27431"
        "a46b696e64a6737461747573a561745f6e7305a46461746181a6737461747573a4646f6e65a5656e646564c3a17601a3"
        "726964a131"
    ),
    "cancelled": (
        "85a474797065a963616e63656c6c6564a47461736ba27431a6737461747573a963616e63656c6c6564a17601a3726964a131"
    ),
    "resolved": (
        "85a474797065a87265736f6c766564a47461736ba27431a6737461747573a772756e6e696e67a17601a3726964a131"
    ),
    "status_reply": (
        "8fa474797065ac7374617475735f7265706c79a57265616479c3a776657273696f6ea5302e312e30a57461736b7381a4"
        "6f70656e00a7776f726b65727391a9627261696e2e302e31a8706f736974696f6e08a9747265655f726f6f74a26162a9"
        "6d61696c626f78657381a7627261696e2e3002a6746f74616c7381a5737465707303ad6a6f75726e616c5f6279746573"
        "cd1000a76c65747465727301a46f70656e9186a47461736ba27431a56167656e74a764656661756c74a6737461747573"
        "a772756e6e696e67a47374657001ae61636365707465645f61745f6e7305a4746f6f6ca97461736b2e6e6f7465a66672"
        "6f7a656e90a17601a3726964a131"
    ),
    "letters": ("85a474797065a76c657474657273a56c696d697409a66265666f726504a17601a3726964a131"),
    "dead_letters": (
        "85a474797065ac646561645f6c657474657273a76c657474657273918aa66e756d62657203a561745f6e7305a6726561"
        "736f6eab756e6465636f6461626c65a673656e646572a9627261696e2e302e31aa73697a655f627974657302a4646174"
        "61a55c78633178a664657461696ca0a77375626a656374a0a574696d657301a6756e6b65707400a46e65787403a17601"
        "a3726964a131"
    ),
    "refused": (
        "89a474797065a772656675736564a4636f6465a96261645f6669656c64a76d657373616765a16da56669656c64a166a8"
        "6578706563746564a165a672656d656479a172ad72657472795f61667465725f73c0a17601a3726964a131"
    ),
    "attach": ("85a474797065a6617474616368a47461736ba27431a87465726d696e616ca161a17601a3726964a131"),
    "diff": (
        "86a474797065a464696666a47461736ba27431a47374657002ab6c696d69745f6279746573ce00040000a17601a37269"
        "64a131"
    ),
    "rewind": ("85a474797065a6726577696e64a47461736ba27431a7746f5f73746570ffa17601a3726964a131"),
    "attached": (
        "89a474797065a86174746163686564a47461736ba27431a87465726d696e616ca161a470617468a22f73a5746f6b656e"
        "a174a4726f777318a4636f6c7350a17601a3726964a131"
    ),
    "diffs": (
        "86a474797065a56469666673a47461736ba27431a47374657002a563616c6c739187a5696e64657800a4746f6f6ca973"
        "68656c6c2e72756ea36b6579a16ba6737461747573a26f6ba46469666681a5746f74616c01a474657874a22b61a77472"
        "6f75626c65a0a17601a3726964a131"
    ),
    "rewound": (
        "88a474797065a77265776f756e64a47461736ba27431a6737461747573a772756e6e696e67a7746f5f7374657000a662"
        "72616e636801a46b65707491b47374657020323a20687474702e72657175657374a17601a3726964a131"
    ),
}


def decode(kind: str, data: bytes) -> w.Request | w.Reply:
    """Read as the side that is meant to read it."""
    return decode_request(data) if isinstance(MESSAGES[kind], get_args(w.Request)) else decode_reply(data)


def test_wire_golden_holds_every_type() -> None:
    """A new message needs a golden line of its own."""
    kinds = {str(kind.__struct_config__.tag) for kind in (*get_args(w.Request), *get_args(w.Reply))}
    assert set(GOLDEN) == set(MESSAGES) == kinds


@pytest.mark.parametrize("kind", sorted(MESSAGES))
def test_message_encodes_to_its_golden_bytes(kind: str) -> None:
    """The bytes that version 1 speaks."""
    assert encode(MESSAGES[kind]).hex() == GOLDEN[kind]


@pytest.mark.parametrize("kind", sorted(MESSAGES))
def test_message_is_read_back_from_its_golden_bytes(kind: str) -> None:
    """The bytes that version 1 speaks are understood."""
    assert decode(kind, bytes.fromhex(GOLDEN[kind])) == MESSAGES[kind]


FORMER: dict[str, tuple[w.Request | w.Reply, str]] = {
    "status": (w.Status(rid="1"), "83a474797065a6737461747573a17601a3726964a131"),
    "status_reply": (
        w.StatusReply(
            rid="1",
            ready=True,
            version="0.1.0",
            tasks={"open": 0},
            workers=["brain.0.1"],
            position=8,
            tree_root="ab",
        ),
        (
            "89a474797065ac7374617475735f7265706c79a57265616479c3a776657273696f6ea5302e312e30a57461736b7381a4"
            "6f70656e00a7776f726b65727391a9627261696e2e302e31a8706f736974696f6e08a9747265655f726f6f74a26162a1"
            "7601a3726964a131"
        ),
    ),
}
"""What 0.1.0 said, before fields were added."""


@pytest.mark.parametrize("kind", sorted(FORMER))
def test_message_is_read_when_it_lacks_what_was_added(kind: str) -> None:
    """An older client's request and an older gate's answer: what they don't say has its default."""
    message, data = FORMER[kind]
    assert decode(kind, bytes.fromhex(data)) == message


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    """The exported schema."""
    return json_schema()


def validator(schema: dict[str, Any], which: str) -> jsonschema_rs.Draft202012Validator:
    """The part of the schema for requests or for replies, with its definitions."""
    (part,) = [one for one in schema["oneOf"] if one["title"] == which]
    return jsonschema_rs.Draft202012Validator({**part, "$defs": schema["$defs"]})


@pytest.mark.parametrize("kind", sorted(MESSAGES))
def test_schema_takes_every_message(kind: str, schema: dict[str, Any]) -> None:
    """The exported JSON Schema and the structs that run agree on what is right."""
    which = "request" if isinstance(MESSAGES[kind], get_args(w.Request)) else "reply"
    checker = validator(schema, which)
    plain = msgspec.msgpack.decode(bytes.fromhex(GOLDEN[kind]))
    assert [error.message for error in checker.iter_errors(plain)] == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"type": "nope", "v": 1, "rid": ""},
        {"type": "get", "v": 1, "rid": ""},
        {"type": "get", "v": 1, "rid": "", "task": 7},
        {"type": "get", "v": 1, "rid": "", "task": "t1", "extra": 1},
    ],
)
def test_schema_refuses_what_the_codec_refuses(wrong: dict[str, Any], schema: dict[str, Any]) -> None:
    """And on what is wrong."""
    assert not validator(schema, "request").is_valid(wrong)
