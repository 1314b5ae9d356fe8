"""A Chat Completions server on loopback that says what a test tells it to say.

Owns: a real HTTP server in a thread, and what it was asked.
Must not know: the brain.
Invariant: one scripted Reply per request, in order; an unscripted request gets status 500.
Source: OpenAI's API reference, "Chat / streaming".
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

DONE = b"data: [DONE]\n\n"


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, **more: Any) -> bytes:
    """One server-sent event with one choice."""
    choices = (
        []
        if delta is None and finish is None
        else [{"index": 0, "delta": delta or {}, "finish_reason": finish}]
    )
    return (
        b"data: "
        + json.dumps({"object": "chat.completion.chunk", "choices": choices, **more}).encode()
        + b"\n\n"
    )


def usage(input_tokens: int, output_tokens: int) -> bytes:
    """The last chunk, with empty choices."""
    return chunk(usage={"prompt_tokens": input_tokens, "completion_tokens": output_tokens})


def text(*pieces: str) -> list[bytes]:
    """A whole answer of text."""
    return [*(chunk({"content": piece}) for piece in pieces), chunk(finish="stop"), usage(100, 10), DONE]


def call_start(index: int, call_id: str, name: str) -> bytes:
    """The first piece of a call."""
    function = {"name": name, "arguments": ""}
    return chunk({"tool_calls": [{"index": index, "id": call_id, "type": "function", "function": function}]})


def call_more(index: int, arguments: str) -> bytes:
    """Another piece of a call's arguments."""
    return chunk({"tool_calls": [{"index": index, "function": {"arguments": arguments}}]})


def calls(*wanted: tuple[str, str, str]) -> list[bytes]:
    """A whole answer of (id, name, arguments), the arguments in pieces."""
    pieces = []
    for index, (call_id, name, arguments) in enumerate(wanted):
        middle = len(arguments) // 2
        pieces += [call_start(index, call_id, name), call_more(index, arguments[:middle])]
        pieces.append(call_more(index, arguments[middle:]))
    return [*pieces, chunk(finish="tool_calls"), usage(200, 20), DONE]


@dataclass
class Reply:
    """What to answer: chunks; then ``hold`` waits, and ``cut`` breaks the connection."""

    chunks: Iterable[bytes] = ()
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str = "text/event-stream"
    cut: bool = False
    hold: threading.Event | None = None


class ChatServer:
    """Use as a context manager; ``url`` is the base URL."""

    def __init__(self, *replies: Reply) -> None:
        self.replies = deque(replies)
        self.bodies: list[bytes] = []
        self.keys: list[str] = []
        self.asked = threading.Condition()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        )

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def wait_asked(self, count: int) -> bool:
        """Wait until so many requests have come."""
        with self.asked:
            return self.asked.wait_for(lambda: len(self.bodies) >= count, timeout=30)

    def _next(self, body: bytes, key: str) -> Reply:
        with self.asked:
            self.bodies.append(body)
            self.keys.append(key)
            self.asked.notify_all()
            return self.replies.popleft() if self.replies else Reply(status=500)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                """Answer with the next reply."""
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self._say(server._next(body, self.headers.get("Authorization", "")))

            def _say(self, reply: Reply) -> None:
                try:
                    self.send_response(reply.status)
                    for name, value in reply.headers.items():
                        self.send_header(name, value)
                    self.send_header("Content-Type", reply.content_type)
                    self.send_header("Transfer-Encoding", "chunked")
                    self.end_headers()
                    for data in reply.chunks:
                        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
                        self.wfile.flush()
                    if reply.hold is not None:
                        reply.hold.wait(30)
                    if not reply.cut:
                        self.wfile.write(b"0\r\n\r\n")
                except OSError:
                    self.close_connection = (
                        True  # The client has cut the call: that is what some tests are about.
                    )
                if reply.cut:
                    self.close_connection = True

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the original's name
                """Stay silent."""

        return Handler
