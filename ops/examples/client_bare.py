"""A client with bare pyzmq and a MessagePack library, written from docs/PROTOCOL.md alone.

Usage: client_bare.py ipc://HOME/run/client.sock [WORKSPACE]
Submits a plan of two steps, prints its events as they come, exits 0 when the task is done.
"""

import sys
import uuid
from typing import Any

import zmq
from msgspec import msgpack  # any MessagePack library will do

PLAN = {
    "on_error": "stop",
    "step": [
        {"thought": "Say hello.", "tool": "task.note", "args": {"text": "hello"}},
        {"thought": "See what is there.", "tool": "file.list", "args": {}},
    ],
}


def ask(socket: Any, wait_s: float = 0.0, **request: Any) -> dict[str, Any]:
    """Send a request; send it again every two seconds without an answer (all of ours are safe to repeat)."""
    rid = uuid.uuid4().hex
    message = msgpack.encode({"v": 1, "rid": rid, **({"wait_s": wait_s} if wait_s else {}), **request})
    for _ in range(15):
        socket.send(message)
        while socket.poll(int((wait_s + 2) * 1000)):
            answer: dict[str, Any] = msgpack.decode(socket.recv())
            if answer["type"] == "refused" and answer["rid"] in (rid, ""):
                sys.exit(f"refused ({answer['code']}): {answer['message']}")
            if answer["rid"] == rid:
                return answer
    sys.exit("no answer: is the supervisor running?")


def main(endpoint: str, workspace: str = "") -> int:
    """Submit, watch, tell how it ended."""
    socket: Any = zmq.Context.instance().socket(zmq.DEALER)
    socket.setsockopt(zmq.LINGER, 0)
    socket.connect(endpoint)
    task = ask(
        socket, type="submit", objective="Say hello.", plan=PLAN, workspace=workspace, key=uuid.uuid4().hex
    )["task"]
    cursor, ended = 0, False
    while not ended:
        batch = ask(socket, type="watch", task=task, cursor=cursor, wait_s=10.0)
        for event in batch["events"]:
            print(event["position"], event["kind"], event["data"].get("status", ""), flush=True)
        cursor, ended = batch["cursor"], batch["ended"]
    status = ask(socket, type="get", task=task)["task"]["status"]
    print(task, status)
    return 0 if status == "done" else 1


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 3:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
