"""The forms in which a secret is recognised again."""

from __future__ import annotations

import base64

import pytest

from homeostat.proto.config import Credential
from homeostat.workers.courier.credentials import read

SECRET = "s3cret-value/with+odd=chars"


@pytest.mark.parametrize("more", ["", "x", "xy"])
@pytest.mark.parametrize("before", range(4))
@pytest.mark.parametrize("after", range(4))
@pytest.mark.parametrize("urlsafe", [False, True])
def test_credential_is_taken_out_of_base64_wherever_it_stands_in_it(
    more: str, before: int, after: int, urlsafe: bool
) -> None:
    """Within a longer text each place in a triple makes other letters of it; nearly all go."""
    value = SECRET + more
    secret = read(Credential("token", value_env="T"), {"T": value})
    encode = base64.urlsafe_b64encode if urlsafe else base64.b64encode
    data = encode(b"u" * before + value.encode() + b"\xff" * after)
    shown = secret.taken_out(data)
    assert b"***" in shown
    assert len(shown.replace(b"***", b"").rstrip(b"=")) <= (before + after + 2) * 4 / 3 + 2
