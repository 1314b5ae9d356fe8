"""The tool for requests to the world outside.

Owns: their names, descriptions, effect classes and JSON Schemas.
Must not know: how they do their work, what policy says about them.
Invariant: schemas are closed, every string is bounded, every pattern is linear in time (form.py).
Source: DESIGN §3 ("Where tools run"), §4 (effect classes), §8.2.
"""

from __future__ import annotations

from typing import Final

from .form import CONTENT_CHARS, Tool, arguments, count, seconds, text

HTTP_REQUEST: Final = Tool(
    "http.request",
    "Make one HTTP request to a host that this agent may reach. Credentials that the operator set for the "
    "host are added on the way and never shown. Gives status, headers and body; a redirect is followed if "
    "its host is allowed too.",
    "keyed",
    "courier",
    arguments(
        ("url",),
        url=text("http:// or https://, with the host's name.", 8_192, minLength=8, pattern="^[!-~]+$"),
        method={
            "type": "string",
            "enum": ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"],
            "description": "Default: GET.",
        },
        headers={
            "type": "object",
            "maxProperties": 64,
            "additionalProperties": text("Its value.", 4_096, pattern="^[ -~]*$"),
            "description": "Headers to send, but Host, Content-Length, Connection and credentials.",
        },
        body=text("The body, as text. Default: none.", CONTENT_CHARS),
        timeout_s=seconds("Give up after so long. Default: 30.", 600),
        limit_bytes=count("So much of the body to show. Default: 4,096.", 1, 16_000),
    ),
)
