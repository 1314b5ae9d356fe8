"""What a command leaves behind when it ends."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.sandbox.stand import PATIENCE_S, PYTHON, Stand

DAEMONS = 300
#: Each by a double fork, with a session of its own and deaf to whatever it may be; the command ends when it
#: is told to.
LEAVE = b"""
import os, signal, sys, time
for _ in range(300):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)
            os.execlp("sleep", "sleep", sys.argv[1])
        os._exit(0)
    os.wait()
while not os.path.exists("end"):
    time.sleep(0.02)
"""


def alive(word: bytes) -> list[int]:
    """The processes of this machine that sleep for so long; a zombie has no arguments."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                line = (folder / "cmdline").read_bytes()
            except OSError:  # it has just gone, or is hidden from us
                continue
            if line == b"sleep\0" + word + b"\0":
                found.append(int(folder.name))
    return found


def wait_for(word: bytes, number: int) -> None:
    """Until so many of them are alive."""
    end = time.monotonic() + PATIENCE_S
    while len(found := alive(word)) != number:
        assert time.monotonic() < end, f"{len(found)} are alive and not {number}: {found[:5]}"
        time.sleep(0.05)


def test_daemons_of_a_command_are_dead_when_it_has_ended(stand: Stand) -> None:
    """Three hundred that nobody waits for, seen alive before; the zygote serves on."""
    word = b"%d.%d" % (10_000_000 + os.getpid(), stand.next_id())  # so many seconds to sleep: a name
    with ThreadPoolExecutor(1) as beside:
        running = beside.submit(stand.run, [PYTHON, b"-I", b"-S", b"-c", LEAVE, word])
        try:
            wait_for(word, DAEMONS)
        finally:
            stand.file(stand.workspace / "end", "")
        result = running.result()
    assert (result.code, result.out) == (0, "")
    wait_for(word, 0)
    assert stand.run([b"true"]).code == 0
