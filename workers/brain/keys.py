"""The key of a model's endpoint: from a file or the environment, for the brain alone.

Owns: reading and checking a key.
Must not know: what it is sent to.
Invariant: a key is never part of a message, an error or a log line; it is read anew for each call,
so that a rotated key needs no restart.
Source: DESIGN §3 (the brain holds the keys); RFC 6750 §2.1 (bearer).
"""

from __future__ import annotations

import os
import re

from ...proto.config import Model

KEY_LIMIT_BYTES = 16 << 10
_BEARER = re.compile(r"[\x21-\x7e]+")


class KeyTroubleError(Exception):
    """There is no usable key; says where it was looked for, never what was found."""


def read(model: Model) -> str:
    """Give the key, or an empty string where none is configured. Raises KeyTroubleError."""
    if model.key_file:
        where, key = f"key_file {model.key_file}", _from_file(model.key_file)
    elif model.key_env:
        where, key = f"environment variable {model.key_env}", os.environ.get(model.key_env, "").strip()
    else:
        return ""
    if not key:
        raise KeyTroubleError(f"{where} is empty or missing")
    if not _BEARER.fullmatch(key):
        raise KeyTroubleError(f"{where} does not hold one line of printable ASCII")
    return key


def _from_file(path: str) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(KEY_LIMIT_BYTES + 1)
    except OSError as error:
        raise KeyTroubleError(f"key_file {path} can't be read: {error.strerror}") from error
    if len(data) > KEY_LIMIT_BYTES:
        raise KeyTroubleError(f"key_file {path} is larger than {KEY_LIMIT_BYTES} bytes")
    return data.decode("latin-1").strip()
