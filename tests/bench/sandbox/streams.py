"""What commands print, taken in by a real executor: terminal and pipe, memory, fifty at once.

Owns: the figures of the streams.
Must not know: the bounds (__main__.py).
Invariant: everything goes the way of a call: sandbox, drain, stripper, hash, artifact; the whole is kept, and
    its size checked.
Source: issue 4 "Speed" and "Bad input".
"""

from __future__ import annotations

import time
from pathlib import Path

from homeostat.proto import messages as m
from tests.integration.executor.bench import Bench

MB = 1_000_000
LINE = b"0123456789 some line of output, as a build prints them\n"
COMMANDS = 50
BEAT_S = 0.005


def measure(folder: Path, *, quick: bool) -> dict[str, float]:
    """All figures of this file; ``quick`` only sees that it works."""
    bench = Bench(folder=str(folder))
    try:
        big = 64 if quick else 1_000
        bench.file("lines", LINE * (big * MB // 10 // len(LINE)))
        return {
            **pipe(bench, rounds=10),
            **terminal(bench, rounds=1 if quick else 4),
            **fifty(bench, kilobytes=200 if quick else 2_000),
        }
    finally:
        bench.close()


def pipe(bench: Bench, rounds: int) -> dict[str, float]:
    """``cat`` into a pipe, so many times the file; how fast, and by how much the executor's memory grew."""
    bench.shell("cat lines > /dev/null", "read")
    before = resident_kb("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew (proc_pid_clear_refs(5))
    ended, whole_s = _print(bench, "cat" + " lines" * rounds, pty=False)
    grown = resident_kb("VmHWM") - before
    return {
        "pipe_mb_s": ended.output_bytes / MB / ended.duration_s,
        "pipe_to_artifact_mb_s": ended.output_bytes / MB / whole_s,
        "pipe_mb": ended.output_bytes / MB,
        "flood_grown_mb": grown / 1_000,
    }


def resident_kb(name: str) -> int:
    """The resident memory of this process as proc_pid_status(5) names it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(f"{name}:")))


def terminal(bench: Bench, rounds: int) -> dict[str, float]:
    """A tenth of that on a terminal, which gives it in pieces of 4 kB."""
    ended, _ = _print(bench, f"for i in $(seq {rounds}); do head -c 8000000 lines; done", pty=True)
    return {"pty_mb_s": ended.output_bytes / MB / ended.duration_s}


def _print(bench: Bench, command: str, *, pty: bool) -> tuple[m.Ended, float]:
    """The outcome, and how long it took until it was there, artifact and all."""
    began = time.perf_counter()
    key = bench.send(
        "shell.run", "read", command=command, pty=pty, deadline_s=600.0, output_limit_bytes=2_000 * MB
    )
    bench.wait(lambda: bench.answers(key), 600.0)
    whole_s = time.perf_counter() - began
    ended = bench.ended(key)
    artifact = bench.home / "artifacts" / ended.artifact[:2] / ended.artifact
    if ended.status != "ok" or artifact.stat().st_size != ended.output_bytes:
        raise RuntimeError(f"not all of it was kept: {ended}")
    artifact.unlink()
    return ended, whole_s


def fifty(bench: Bench, kilobytes: int) -> dict[str, float]:
    """Commands that compute and print, all asked for at once: the latest beat of the executor's loop."""
    late_s: list[float] = []
    due = [time.monotonic() + BEAT_S]

    def beat() -> None:
        now = time.monotonic()
        late_s.append(now - due[0])
        due[0] = now + BEAT_S
        bench.loop.call_later(BEAT_S, beat)

    bench.loop.call_later(BEAT_S, beat)
    began = time.perf_counter()
    command = f"i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; head -c {kilobytes}000 lines"
    keys = [bench.send("shell.run", "read", command=command, deadline_s=600.0) for _ in range(COMMANDS)]
    bench.wait(lambda: all(bench.answers(key) for key in keys), 600.0)
    took_s = time.perf_counter() - began
    if any(bench.ended(key).status != "ok" for key in keys):
        raise RuntimeError("a command of the fifty failed")
    return {"late_ms": 1e3 * max(late_s), "fifty_s": took_s, "beats": float(len(late_s))}


if __name__ == "__main__":
    for name, value in measure(Path("/var/tmp"), quick=False).items():
        print(f"{name:24}{value:12.1f}")
