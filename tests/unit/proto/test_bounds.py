"""Bounds of the settings: every number has both ends, and none overflows where it is used."""

from __future__ import annotations

import math
import struct
import typing
from collections.abc import Iterator

import msgspec
import pytest
import zmq
from hypothesis import given, strategies as st
from zmq.utils import z85

from homeostat.proto import bounds, config as c
from homeostat.proto.confinement import path_fault
from homeostat.proto.errors import ConfigError
from homeostat.sandbox.profile import Profile

HEADERS = {"agent": '[[agent]]\nname = "a"\n', "agent.model": '[[agent]]\nname = "a"\n[agent.model]\n'}
HEADERS["agent.limits"] = '[[agent]]\nname = "a"\n[agent.limits]\n'
HEADERS["agent.egress"] = '[[agent]]\nname = "a"\n[[agent.egress]]\nhost = "h"\n'
HEADERS["connection"] = '[[connection]]\nname = "c"\nurl = "sqlite:////c"\n'
LISTS = ("agent.egress.ports",)
MODEL = {"base_url": '"http://h"', "model": '"m"'}


def numbers(struct_: type[msgspec.Struct], prefix: str = "") -> Iterator[tuple[str, type]]:
    """Every key whose value is a number, with its type."""
    for key, hint in typing.get_type_hints(struct_).items():
        for kind in (hint, *typing.get_args(hint)):
            if kind in (int, float):
                yield f"{prefix}{key}", kind
            elif isinstance(kind, type) and issubclass(kind, msgspec.Struct):
                yield from numbers(kind, f"{prefix}{key}.")


NUMBERS = dict(numbers(c.Config))


def parsed(key: str, value: float) -> c.Config:
    """The settings with this one number."""
    table, _, name = key.rpartition(".")
    lines = {
        **(MODEL if table == "agent.model" else {}),
        name: f"[{value!r}]" if key in LISTS else repr(value),
    }
    return c.parse(HEADERS.get(table, f"[{table}]\n") + "".join(f"{k} = {v}\n" for k, v in lines.items()))


@pytest.mark.parametrize("key", NUMBERS)
def test_number_is_taken_up_to_its_bounds_and_refused_beyond(key: str) -> None:
    """Both ends are good, reach a worker, and fit in 64 bits, seconds as nanoseconds beside today's too."""
    allowed, kind = bounds.of(key), NUMBERS[key]
    for value in (allowed.least, allowed.most):
        config = parsed(key, kind(value))
        assert c.from_bytes(c.to_bytes(config)) == config
    assert allowed.most * (1e9 if key.endswith("_s") else 1) < 2**62
    step = 1 if kind is int else 1e-6
    for value in (allowed.least - step, allowed.most + max(step, allowed.most / 1e9), kind(10**24)):
        with pytest.raises(ConfigError, match=key.rpartition(".")[2]):
            parsed(key, kind(value))


def test_numbers_that_were_seen_to_break_a_worker_are_out_of_bounds() -> None:
    """A socket's timeout of 25 days, a page that tmpfs rounds to no limit, descriptors beyond fs.nr_open."""
    assert 2_147_484.0 not in bounds.of("agent[3].model.timeout_s")
    assert 2_147_484.0 in bounds.of("agent[3].limits.max_wall_s")
    assert 4_095 not in bounds.of("sandbox.tmp_bytes")
    assert (1 << 20) + 1 not in bounds.of("sandbox.max_open_files")
    assert math.nan not in bounds.of("supervision.stop_s")  # noqa: PLW0177  containment is what is tried


@given(st.binary(min_size=32, max_size=32))
def test_key_is_one_when_zeromq_can_decode_it(data: bytes) -> None:
    """Every 32 bytes have a spelling that is taken."""
    assert bounds.is_key(z85.encode(data).decode())


@given(st.text(st.sampled_from("09azAZ.#%$~é"), min_size=38, max_size=42))
def test_key_is_none_when_zeromq_can_not_decode_it(text: str) -> None:
    """What is taken here never fails in the gate, and what would not fail there is taken."""
    try:
        decodes = len(z85.decode(text)) == 32 and len(text) == 40
    except (KeyError, ValueError, struct.error):
        decodes = False
    assert bounds.is_key(text) == decodes


def test_key_is_one_when_zeromq_made_it() -> None:
    """As `homeostat keys` would."""
    assert bounds.is_key(zmq.curve_keypair()[0].decode())


@given(st.lists(st.sampled_from(["opt", "etc", "proc", "..", ".", "", "usr", "x"]), max_size=4))
def test_profile_takes_the_folder_when_the_settings_do(names: list[str]) -> None:
    """One rule for both: nothing that passed the start is refused at a call."""
    path = "/" + "/".join(names)
    try:
        Profile(read_only=(path,))
    except ValueError:
        assert path_fault(path)
    else:
        assert not path_fault(path)
