"""A connection that failed, in words for the operator: who was asked, and what the network said.

Owns: those words, and the hint at a wrong base_url. Must not know: streams, tasks, keys.
Invariant: no class names and no addresses of objects; the same trouble gives the same words.
Source: urllib3's manual, "Exceptions"; the cause is an OSError somewhere down the chain.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from urllib.parse import urlsplit

import urllib3

from ....proto.config import Model

HINT = "is this the right base_url? It usually ends in /v1"
MESSAGE_LIMIT_CHARS = 500
_CHAIN_LIMIT = 16


def address(model: Model) -> str:
    """``host:port`` of the model's base URL, or the URL itself where it has none."""
    try:
        parts = urlsplit(model.base_url)
        host, port = parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        return model.base_url[:200]
    if not host:
        return model.base_url[:200]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def failure_words(model: Model, error: Exception) -> str:
    """Say what went wrong with a connection to the model's server."""
    return f"{address(model)}: {_reason(model, error)}"[:MESSAGE_LIMIT_CHARS]


def _reason(model: Model, error: Exception) -> str:
    chain = list(_chain(error))
    if any(isinstance(one, urllib3.exceptions.ReadTimeoutError) for one in chain):
        return f"timed out: nothing came for {model.timeout_s:g} s"
    if any(isinstance(one, TimeoutError) for one in chain):
        return "timed out: no connection could be made"
    if any(isinstance(one, urllib3.exceptions.LocationValueError) for one in chain):
        return f"not a URL that can be asked: {HINT}"
    for one in reversed(chain):
        if isinstance(one, ssl.SSLCertVerificationError):
            return f"TLS: {one.verify_message}"
        if isinstance(one, ssl.SSLError):
            return f"TLS: {one.reason or one}"
        if isinstance(one, OSError) and one.strerror:
            return one.strerror.lower()
    return str(chain[-1]) or "the connection failed"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what it was made of, from the outside in."""
    one: BaseException | None = error
    for _ in range(_CHAIN_LIMIT):
        if one is None:
            return
        yield one
        inner = next((arg for arg in one.args if isinstance(arg, BaseException)), None)
        one = inner or one.__cause__ or one.__context__
