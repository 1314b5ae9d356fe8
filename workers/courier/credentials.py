"""The secrets that ``http.request`` carries: read when they are used, and kept out of all that is shown.

Owns: reading a credential, and taking it out again of whatever a server sends back.
Must not know: where it is sent (requests.py decides).
Invariants: a value is in no message, error or log; it is read anew each time, so that a rotated one needs no
    restart; what can't be recognised again (too short, too long) is not used at all.
Source: DESIGN §3 (the courier holds them), §5 "Secrets are redacted"; RFC 7617 (Basic).
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, quote_plus

from ...proto.config import Credential

LEAST_CHARS: Final = 8
LIMIT_BYTES: Final = 4_096
HIDDEN: Final = "***"
_PRINTABLE: Final = re.compile(r"[\x20-\x7e]+")


class CredentialError(Exception):
    """There is no usable value; says where it was looked for, never what was found."""


@dataclass(frozen=True)
class Secret:
    """A header to send, and what must not be seen of it."""

    header: str
    value: str
    """The whole of the header's value."""
    hidden: re.Pattern[bytes]
    longest: int
    """Bytes of the longest form."""

    def taken_out(self, data: bytes) -> bytes:
        """The data without it, in any of the forms in which a server may echo it."""
        return self.hidden.sub(HIDDEN.encode(), data)

    def taken_out_of_part(self, data: bytes) -> bytes:
        """The same, of the beginning of something: at its end there may be half of it."""
        return self.taken_out(data)[: -self.longest]


def read(credential: Credential, environment: Mapping[str, str] = os.environ) -> Secret:
    """Read it. Raises CredentialError."""
    if credential.value_file:
        where, value = f"value_file {credential.value_file}", _from_file(credential)
    else:
        where = f"environment variable {credential.value_env}"
        value = environment.get(credential.value_env, "").strip()
    if not value:
        raise CredentialError(f"credential {credential.name!r}: {where} is empty or missing")
    if not _PRINTABLE.fullmatch(value) or not LEAST_CHARS <= len(value) <= LIMIT_BYTES:
        raise CredentialError(
            f"credential {credential.name!r}: {where} must hold one line of printable ASCII, "
            f"of {LEAST_CHARS} to {LIMIT_BYTES} characters"
        )
    if credential.prefix and not _PRINTABLE.fullmatch(credential.prefix):
        raise CredentialError(f"credential {credential.name!r}: prefix must be printable ASCII")
    forms = _forms(credential.prefix, value)
    return Secret(credential.header, credential.prefix + value, _pattern(forms), max(map(len, forms)))


def _from_file(credential: Credential) -> str:
    try:
        with open(credential.value_file, "rb") as file:
            data = file.read(LIMIT_BYTES + 2)
    except OSError as error:
        raise CredentialError(
            f"credential {credential.name!r}: value_file {credential.value_file} can't be read: "
            f"{(error.strerror or '').lower()}"
        ) from error
    return data.decode("latin-1").strip()


def _forms(prefix: str, value: str) -> set[bytes]:
    """The value as it is, and as servers may write it; also what Basic hides in it."""
    plain = {value}
    if prefix.strip().lower() == "basic":
        plain |= _basic(value)
    forms = set(plain)
    for one in plain:
        forms |= {quote(one, safe=""), quote_plus(one), json.dumps(one)[1:-1]}
        for encoded in _encoded(one.encode()):
            forms |= {encoded, encoded.replace("+", "-").replace("/", "_")}
    told = {form for form in forms if len(form) >= LEAST_CHARS}
    return {form.encode(kind) for form in told for kind in ("ascii", "utf-16-le", "utf-16-be")}


def _encoded(value: bytes) -> set[str]:
    """Its base64, and what of it is the same wherever in a longer text it stands: one for each alignment.

    Characters that hold bits of a neighbour are left out, fewer than six bits of the value at either end.
    """
    forms = {base64.b64encode(value).decode().rstrip("=")}
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + value).decode().rstrip("=")
        last = len(encoded) - (1 if (before + len(value)) % 3 else 0)
        forms |= {encoded[(0, 2, 3)[before] : last]}
    return forms


def _basic(value: str) -> set[str]:
    """``user:password`` and the password."""
    try:
        pair = base64.b64decode(value, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return set()
    return {pair, pair.partition(":")[2]}


def _pattern(forms: set[bytes]) -> re.Pattern[bytes]:
    # The longest first: one form may begin another.
    ordered = sorted(forms, key=len, reverse=True)
    return re.compile(b"|".join(map(re.escape, ordered)), re.IGNORECASE)
