"""Chat Completions: from chunks to an answer, or to the reason why there is none."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given, strategies as st

from homeostat.proto.config import Model
from homeostat.proto.messages import ToolSpec
from homeostat.proto.records import Call, Usage
from homeostat.workers.brain.providers.assembly import Assembly
from homeostat.workers.brain.providers.chat import Dialect, Stream, request_body
from homeostat.workers.brain.providers.events import Answer, Failed
from homeostat.workers.brain.providers.sse import Parser
from tests.fakes.chat_server import DONE, call_more, call_start, calls, chunk, text, usage

SCHEMA = b'{"type":"object","properties":{"thought":{"type":"string"}}}'
TOOLS = (ToolSpec("shell.run", "Run a command.", SCHEMA), ToolSpec("file.read", "Read a file.", SCHEMA))
DIALECT = Dialect(TOOLS)
ARGS = '{"thought":"é😀","command":"ls"}'


def answer_of(stream: bytes, cuts: list[int] | None = None) -> Answer | Failed:
    """Read a stream in pieces."""
    parser, chat, assembly = Parser(), Stream(), Assembly(DIALECT, 3, 400)
    borders = sorted(cuts or [])
    for start, end in zip([0, *borders], [*borders, len(stream)], strict=True):
        for event in parser.feed(stream[start:end]):
            assembly.take(chat.take(event.data))
    return assembly.finish()


def failure_of(*chunks: bytes) -> Failed:
    """The failure of a stream that must have one."""
    failure = answer_of(b"".join(chunks))
    assert isinstance(failure, Failed)
    return failure


def test_answer_keeps_arguments_byte_for_byte_when_calls_are_parallel() -> None:
    """Names go back to the tools', arguments stay as the model wrote them."""
    odd = '{ "thought" : "a\\u00e9" ,"path":"x" }'
    answer = answer_of(b"".join(calls(("c1", "shell_run", ARGS), ("c2", "file_read", odd))))
    assert isinstance(answer, Answer)
    assert answer.calls == (
        Call("shell.run", ARGS.encode(), "", "c1"),
        Call("file.read", odd.encode(), "", "c2"),
    )
    assert answer.usage == Usage(200, 20)
    said = json.loads(answer.raw)
    assert [call["function"]["arguments"] for call in said["tool_calls"]] == [ARGS, odd]
    assert said["tool_calls"][0]["function"]["name"] == "shell_run"


def test_answer_is_text_when_there_is_no_call() -> None:
    """Text alone is the model's report."""
    answer = answer_of(b"".join(text("All ", "done")))
    assert isinstance(answer, Answer)
    assert (answer.text, answer.calls) == ("All done", ())
    assert json.loads(answer.raw) == {"role": "assistant", "content": "All done"}


def test_answer_keeps_reasoning_and_estimates_usage_when_none_is_reported() -> None:
    """Native reasoning goes back in ``raw``; tokens never escape the budget."""
    answer = answer_of(chunk({"reasoning_content": "hm"}) + chunk({"content": "ok"}) + chunk(finish="stop"))
    assert isinstance(answer, Answer)
    assert json.loads(answer.raw)["reasoning_content"] == "hm"
    assert answer.usage == Usage(100, 2)


@given(st.lists(st.integers(0, 900), max_size=25))
def test_answer_is_the_same_when_the_stream_is_cut_into_any_pieces(cuts: list[int]) -> None:
    """Chunk borders never change an answer."""
    stream = b"".join(
        [chunk({"content": "zwölf"}), *calls(("c1", "shell_run", ARGS), ("c2", "file_read", ARGS))]
    )
    assert answer_of(stream, [min(cut, len(stream)) for cut in cuts]) == answer_of(stream)


@given(st.integers(0, 10_000))
def test_answer_never_holds_a_call_when_the_stream_was_truncated(length: int) -> None:
    """Every prefix without the finish reason fails; no shorter set of calls is ever proposed."""
    stream = b"".join(calls(("c1", "shell_run", ARGS), ("c2", "file_read", ARGS)))
    answer = answer_of(stream[: length % len(stream)])
    if isinstance(answer, Answer):
        assert answer.calls == (
            Call("shell.run", ARGS.encode(), "", "c1"),
            Call("file.read", ARGS.encode(), "", "c2"),
        )
    else:
        assert answer.kind == "cut"


@given(st.lists(st.one_of(
    st.binary(max_size=40), st.sampled_from([*calls(("c1", "shell_run", ARGS)), *text("a"), DONE, usage(1, 1),
    call_start(1, "c9", "file_read"), call_more(7, "{"),
    chunk({"tool_calls": None}), chunk({"content": None})]),
), max_size=12))  # fmt: skip
def test_assembly_gives_an_answer_or_a_failure_for_any_garbage(chunks: list[bytes]) -> None:
    """Nothing is raised, and what is proposed is whole."""
    answer = answer_of(b"".join(chunks))
    if isinstance(answer, Answer):
        assert answer.text.strip() or answer.calls
        assert all(isinstance(msgspec.json.decode(call.args), dict) for call in answer.calls)


BEGUN = call_start(0, "c1", "shell_run")
ENDED = chunk(finish="tool_calls") + DONE


@pytest.mark.parametrize(("chunks", "kind", "words"), [
    ([BEGUN, call_more(0, '{"thought":'), ENDED], "garbled", "not JSON"),
    ([BEGUN, call_more(0, "[1]"), ENDED], "garbled", "not a JSON object"),
    ([BEGUN, ENDED], "garbled", "not JSON"),
    ([BEGUN, call_more(0, ARGS), DONE], "cut", "before the answer was whole"),
    ([BEGUN, call_more(0, ARGS), chunk(finish="length"), DONE], "cut", "max_output_tokens"),
    ([BEGUN, call_start(0, "c2", "file_read")], "garbled", "two calls under the index 0"),
    ([BEGUN, call_start(1, "c1", "file_read")], "garbled", "same id"),
    ([call_more(4, ARGS)], "garbled", "was not begun"),
    ([chunk({"tool_calls": [{"function": {"name": "shell_run"}}]})], "garbled", "without its index"),
    ([chunk(finish="tool_calls"), DONE], "garbled", "empty"),
    ([chunk({"content": "I will"}), chunk(finish="tool_calls")], "garbled", "announces calls"),
    ([chunk({"content": " \n"}), chunk(finish="stop"), DONE], "garbled", "empty"),
    ([chunk(finish="stop"), chunk({"content": "more"})], "garbled", "after the end"),
    ([chunk({"content": "x"}), chunk(finish="content_filter")], "refusal", "content_filter"),
    ([chunk({"refusal": "I can't"})], "refusal", "I can't"),
    ([b"data: {nonsense\n\n"], "garbled", "not valid"),
    ([b"data: [1,2]\n\n"], "garbled", "not valid"),
    ([b'data: {"error":{"message":"slow down","type":"rate_limit_error"}}\n\n'], "rate_limit", "slow down"),
    ([b'data: {"error":{"message":"maximum context length 8","code":4}}\n\n'], "context_too_long", "maximum"),
    ([b'data: {"error":"boom"}\n\n'], "overload", "boom"),
])  # fmt: skip
def test_stream_fails_with_its_kind_when_it_is_of_no_use(chunks: list[bytes], kind: str, words: str) -> None:
    """What is truncated, malformed or refused has a name and is never proposed."""
    failure = failure_of(*chunks)
    assert failure.kind == kind
    assert words in failure.message


def test_answer_is_refused_when_it_is_larger_than_its_limit() -> None:
    """An answer is bounded."""
    assert failure_of(*[chunk({"content": "x" * 500_000})] * 9).kind == "garbled"


def test_answer_is_refused_when_names_and_ids_make_it_larger_than_its_limit() -> None:
    """They go to the gate too, twice."""
    starts = [call_start(number, f"{number}{'i' * 490_000}", "shell_run") for number in range(9)]
    assert failure_of(*starts, ENDED).message == "the answer is larger than 4194304 bytes"
    names = [call_start(number, f"{number}", "n" * 490_000) for number in range(9)]
    assert failure_of(*names, ENDED).message == "the answer is larger than 4194304 bytes"


def test_usage_is_bounded_when_a_server_counts_nonsense() -> None:
    """What no message can carry is taken for very much: a budget ends there."""
    answer = answer_of(chunk({"content": "x"}) + chunk(finish="stop") + usage(10**24, -5) + DONE)
    assert isinstance(answer, Answer)
    assert answer.usage == Usage(1 << 53, 0)


def test_dialect_maps_names_one_to_one_when_they_collide() -> None:
    """Dots are not allowed in function names; two tools never share one."""
    names = ["a.b", "a_b", "a-b", "x" * 70 + ".1", "x" * 70 + ".2"]
    dialect = Dialect(ToolSpec(name, "", SCHEMA) for name in names)
    functions = [dialect.function(name) for name in names]
    assert len(set(functions)) == len(names)
    assert all(len(name) <= 64 and "." not in name for name in functions)
    assert [dialect.tool(function) for function in functions] == names
    assert dialect.tool("invented") == "invented"


def test_request_is_valid_json_and_the_same_every_time() -> None:
    """Schema and messages are taken as they are."""
    model = Model("http://127.0.0.1:1/v1", "m", temperature=0.5)
    body = request_body(model, DIALECT, b'[{"role":"user","content":"hi"}]')
    assert body == request_body(model, Dialect(reversed(TOOLS)), b'[{"role":"user","content":"hi"}]')
    parsed = json.loads(body)
    assert parsed["stream"] is True
    assert parsed["stream_options"] == {"include_usage": True}
    assert parsed["max_tokens"] == model.max_output_tokens
    assert [tool["function"]["name"] for tool in parsed["tools"]] == ["file_read", "shell_run"]
    assert parsed["tools"][0]["function"]["parameters"] == json.loads(SCHEMA)
    openai = json.loads(request_body(Model("https://api.openai.com/v1", "m"), Dialect(()), b"[]"))
    assert "max_completion_tokens" in openai
    assert "tools" not in openai
