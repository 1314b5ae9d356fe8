"""What a command leaves behind when it ends."""

from __future__ import annotations

import os
import time
from pathlib import Path

from tests.sandbox.stand import PATIENCE_S, PYTHON, Stand

DAEMONS = 300
#: Each by a double fork, with a session of its own and deaf to whatever it may be; the command ends when
#: every one of them has said that it is there.
LEAVE = b"""
import os, signal, sys
there, they = os.pipe()
for _ in range(%d):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)
            os.write(they, b"x")
            os.execlp("sleep", "sleep", sys.argv[1])
        os._exit(0)
    os.wait()
seen = 0
while seen < %d:
    seen += len(os.read(there, 4096))
print("left", seen, flush=True)
""" % (DAEMONS, DAEMONS)


def alive(word: bytes) -> list[int]:
    """The processes of this machine whose last argument is this word; zombies have none."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                line = (folder / "cmdline").read_bytes()
            except OSError:  # it has just gone, or is another user's and hidden
                continue
            if line.endswith(b"\0" + word + b"\0"):
                found.append(int(folder.name))
    return found


def test_daemons_of_a_command_are_dead_when_it_has_ended(stand: Stand) -> None:
    """Three hundred of them, which nobody waits for, and the sandbox is as good as before."""
    word = b"%d.%d" % (10_000_000 + os.getpid(), stand.next_id())  # so many seconds to sleep, and a name
    result = stand.run([PYTHON, b"-I", b"-S", b"-c", LEAVE, word])
    assert (result.code, result.out) == (0, f"left {DAEMONS}\n")
    end = time.monotonic() + PATIENCE_S
    while left := alive(word):
        assert time.monotonic() < end, f"{len(left)} live on: {left[:5]}"
        time.sleep(0.05)
    assert stand.run([b"true"]).code == 0


def test_daemons_are_seen_by_the_test_that_looks_for_them(stand: Stand) -> None:
    """While the command that left them lives: else the test beside this one could not fail."""
    word = b"%d.%d" % (20_000_000 + os.getpid(), stand.next_id())
    seen: list[int] = []
    last = b'print("ready", flush=True)\nimport time\nwhile not os.path.exists("seen"): time.sleep(0.05)\n'

    def look() -> None:
        while not (ready := stand.workspace / "seen").exists() and len(seen) < DAEMONS:
            seen[:] = alive(word)
            time.sleep(0.05)
        stand.file(ready, "")

    _ = last, look
