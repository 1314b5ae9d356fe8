"""The peers measured: kill -9 of a child to the answer of its replacement, and the memory of the tree.

Owns: the measuring, the same for each of them, and that nothing of a peer is left running.
Must not know: how each one is configured (kinds.py).
Invariants: asked every 0.2 ms at most, so a figure includes no more than that; kills are singular events,
    more than a second apart, as a supervisor's own protection against crash loops wants it.
Source: issue 3 "Speed and memory".
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.bench.idle import pss_kb
from tests.bench.supervision.kinds import PEERS, Peer

CHILDREN = 4
ASK_EVERY_S = 0.0002
START_S, AGAIN_S, STOP_S = 30.0, 15.0, 6.0
APART_S = 1.3
"""Least time between two kills of one child."""


@dataclass(frozen=True)
class Found:
    """One peer's figures; no times where it is not installed."""

    name: str
    times_ms: list[float] = field(default_factory=list)
    pss_mb: float = 0.0
    """All processes, the children too."""
    own_mb: float = 0.0
    """What is not a child."""
    why_not: str = ""


def measure(python: Path, kills: int) -> list[Found]:
    """Measure those that are installed, one after the other."""
    return [_measure(peer, python, kills) for peer in PEERS]


def missing(python: Path) -> list[str]:
    """Debian's packages of the peers that are not there."""
    return [peer.package for peer in PEERS if peer.package and not peer.found(python)]


def _measure(peer: Peer, python: Path, kills: int) -> Found:
    if not peer.found(python):
        return Found(peer.name, why_not="not installed")
    try:
        with _running(peer, python, peer.killed_among) as (folder, _):
            times = [_kill(peer, folder / "c1.sock") for _ in range(kills)]
        with _running(peer, python, CHILDREN) as (_, tree):
            pss = {process.pid: pss_kb(process.pid) / 1024 for process in tree}
            own = sum(pss[process.pid] for process in tree if not _is_child(process))
    except (OSError, psutil.Error, subprocess.SubprocessError, TimeoutError) as error:
        return Found(peer.name, why_not=f"could not be measured: {error}")
    return Found(peer.name, times, sum(pss.values()), own)


@contextlib.contextmanager
def _running(peer: Peer, python: Path, count: int) -> Iterator[tuple[Path, list[psutil.Process]]]:
    """The peer with so many children that answer; its folder and all of its processes."""
    folder = Path(tempfile.mkdtemp(prefix="hs-peer."))
    seen: set[psutil.Process] = set()
    process: subprocess.Popen[bytes] | None = None
    try:
        process = peer.start(folder, python, count)
        for number in range(1, count + 1):
            _wait_for(peer, folder / f"c{number}.sock", {0}, START_S)
        time.sleep(APART_S)
        tree = _tree(process.pid)
        yield folder, tree
        seen |= set(tree)
    finally:
        if process is not None:
            _end(peer, process, seen)
        shutil.rmtree(folder, ignore_errors=True)


def _tree(pid: int) -> list[psutil.Process]:
    top = psutil.Process(pid)
    return [top, *top.children(recursive=True)]


def _end(peer: Peer, process: subprocess.Popen[bytes], seen: set[psutil.Process]) -> None:
    """Stop it as it wants to be stopped, then kill what is left of it."""
    with contextlib.suppress(psutil.Error):
        seen |= set(_tree(process.pid))
    process.send_signal(peer.stop_signal)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_S)
    for one in seen:
        with contextlib.suppress(
            psutil.Error
        ):  # psutil looks at the start time, so it is still the same one.
            one.kill()
    process.kill()
    process.wait()
    psutil.wait_procs(list(seen), timeout=STOP_S)


def _is_child(process: psutil.Process) -> bool:
    """Whether it is one of the supervised: our child program, or gunicorn's worker."""
    words = process.cmdline()
    if any(word.endswith("supervised_child.py") for word in words):
        return "runsv" not in words[0]
    parent = process.parent()
    return any("gunicorn" in word for word in words) and parent is not None and parent.cmdline() == words


def _kill(peer: Peer, path: Path) -> float:
    """Kill the child that answers here; give the milliseconds until another one answers."""
    time.sleep(APART_S + 0.7 * random.random())
    victim = peer.ask(path)
    pidfd = os.pidfd_open(victim)
    try:
        began = time.perf_counter()
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        _wait_for(peer, path, {victim}, AGAIN_S)
        return 1e3 * (time.perf_counter() - began)
    finally:
        os.close(pidfd)


def _wait_for(peer: Peer, path: Path, not_these: set[int], within_s: float) -> int:
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        with contextlib.suppress(OSError):  # Nobody is there yet; that is what is waited for.
            if (pid := peer.ask(path)) not in not_these:
                return pid
        time.sleep(ASK_EVERY_S)
    raise TimeoutError(f"{peer.name} did not bring its child to answer within {within_s:g} s")
