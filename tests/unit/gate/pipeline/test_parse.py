"""Stage 1: what is accepted has exactly one reading."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, strategies as st

from homeostat.workers.gate.pipeline.parse import ARGUMENTS_LIMIT_BYTES, canonical, parse
from homeostat.workers.gate.pipeline.verdict import Denied


def rule_of(data: bytes) -> str:
    """The rule by which these arguments are refused."""
    with pytest.raises(Denied) as caught:
        parse(data)
    assert caught.value.stage == "parse"
    assert len(caught.value.reason) < 500
    return caught.value.rule


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (b'{"a": 1, "a": 2}', "duplicate_key"),
        (b'{"a": {"b": 1, "b": 1}}', "duplicate_key"),
        (b'{"a": 1, "\\u0061": 2}', "duplicate_key"),
        (b'{"%s": 1, "%s": 2}' % (b"k" * 9_000, b"k" * 9_000), "duplicate_key"),
        (b'{"a": NaN}', "not_a_number"),
        (b'{"a": Infinity}', "not_a_number"),
        (b'{"a": -Infinity}', "not_a_number"),
        (b'{"a": 1e999}', "not_a_number"),
        (b'{"a": -1e999}', "not_a_number"),
        (b'{"a": 9223372036854775808}', "not_a_number"),
        (b'{"a": -9223372036854775809}', "not_a_number"),
        (b'{"a": %s}' % (b"9" * 5_000), "not_a_number"),
        (b'{"a": "\\ud800"}', "lone_surrogate"),
        (b'{"a": ["x", "\\udfff"]}', "lone_surrogate"),
        (b'{"\\ud800": 1}', "lone_surrogate"),
        (b'{"path": "a\\u0000b"}', "bad_path"),
        (b'{"path": "\\u00e4\\u0000b"}', "bad_path"),
        (b'{"cwd": "a\\ufffdb"}', "bad_path"),
        (b'{"path": ["a\\u0000"]}', "bad_path"),
        (b'{"a": "\xff"}', "not_utf8"),
        (b'{"a": "\xed\xa0\x80"}', "not_utf8"),
        (b"", "not_json"),
        (b"{", "not_json"),
        (b"{'a': 1}", "not_json"),
        (b'{"a": 1,}', "not_json"),
        (b'{"a": 1} {"b": 2}', "not_json"),
        (b"\xef\xbb\xbf{}", "not_json"),
        (b"[]", "not_object"),
        (b'"x"', "not_object"),
        (b"null", "not_object"),
        (b'{"a": ' + b"[" * 40 + b"]" * 40 + b"}", "too_deep"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "too_deep"),
        (b'{"a":' * 40_000 + b"1" + b"}" * 40_000, "too_deep"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_parse_refuses_what_has_no_single_reading(data: bytes, rule: str) -> None:
    """Each by its own rule, with a bounded reason."""
    assert rule_of(data) == rule


def test_parse_refuses_arguments_when_longer_than_256_kb() -> None:
    """The limit itself is accepted."""
    frame = len(b'{"a":""}')
    parse(b'{"a":"%s"}' % (b"x" * (ARGUMENTS_LIMIT_BYTES - frame)))
    assert rule_of(b'{"a":"%s"}' % (b"x" * (ARGUMENTS_LIMIT_BYTES - frame + 1))) == "too_large"
    assert ARGUMENTS_LIMIT_BYTES == 256 << 10


def test_parse_gives_the_largest_integers_unchanged() -> None:
    """64 bits, both ends."""
    for value in ((1 << 63) - 1, -(1 << 63), 0):
        assert parse(b'{"a": %d}' % value) == {"a": value}


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 63) - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text().filter(lambda key: key not in ("path", "cwd", "dir", "file")), VALUES))
def test_canonical_is_the_same_for_equal_arguments(args: dict[str, object]) -> None:
    """Order and spaces are gone; reading the canonical form gives the same arguments."""
    once = parse(json.dumps(args).encode())
    turned = parse(json.dumps(dict(reversed(args.items())), indent=3).encode())
    assert once == args
    assert canonical(once) == canonical(turned)
    assert parse(canonical(once)) == once


@given(st.binary(max_size=200))
def test_parse_gives_a_dict_or_a_denial_when_fed_any_bytes(data: bytes) -> None:
    """Nothing else is ever raised."""
    try:
        result: object = parse(data)
    except Denied as denied:
        result = {"stage": denied.stage}
    assert isinstance(result, dict)
