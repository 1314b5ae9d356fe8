"""``make bench-supervision``: homeostat's supervision beside each peer that the machine has, in the same run.

Owns: which parts there are, their order, and the table beside the peers.
Must not know: how each one is measured.
Invariant: exits 1 when a bound was missed; a peer that is not installed is named so and misses nothing.
Source: issue 3 "Speed and memory".
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.bench import idle
from tests.bench.installed import install_debian, peers_python
from tests.bench.stand import machine, missed, stand, tail
from tests.bench.supervision import hangs, kills, messages, orphans, peers, storm

ALL = ("messages", "kills", "peers", "hangs", "orphans", "idle", "storm")
MOST_WAKEUPS = 1.0


@dataclass(frozen=True)
class Counts:
    """How often each thing is done."""

    kills: int = 100
    peer_kills: int = 15
    hangs: int = 10
    orphans: int = 10
    storm: int = 1_000
    rounds: int = 5
    messages: int = 1_000_000
    trips: int = 20_000
    idle_s: float = 20.0


QUICK = Counts(
    kills=5, peer_kills=3, hangs=2, orphans=1, storm=30, rounds=1, messages=100_000, trips=2_000, idle_s=5
)


def main() -> None:
    """Run the parts that were named, or all."""
    parser = argparse.ArgumentParser(prog="make bench-supervision", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", choices=[*ALL, []], help="which parts (default: all)")
    parser.add_argument("--quick", action="store_true", help="small counts: whether it works, no figures")
    parser.add_argument("--dir", type=Path, default=Path("/var/tmp"), help="a folder on the disk under test")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--install-peers", action="store_true", help="have apt-get install the missing ones")
    options = parser.parse_args()
    counts = QUICK if options.quick else Counts()
    print(machine(), flush=True)
    names = [name for name in options.names or ALL if name != "peers" or not options.no_peers]
    found = _run(names, counts, options.dir, install=options.install_peers)
    for line in found:
        print(f"bound missed: {line}", flush=True)
    sys.exit(1 if found else 0)


def _run(names: list[str], counts: Counts, folder: Path, *, install: bool) -> list[str]:
    wrong: list[str] = []
    ours: kills.Found | None = None
    for name in names:
        if name == "messages":
            wrong += messages.run(counts.rounds, counts.messages, counts.trips)
        elif name == "kills":
            ours, missed_bounds = kills.run(folder, counts.kills)
            wrong += missed_bounds
        elif name == "peers":
            wrong += _beside_peers(ours, counts, folder, install=install)
        elif name == "hangs":
            wrong += hangs.run(folder, counts.hangs)
        elif name == "orphans":
            wrong += orphans.run(folder, counts.orphans)
        elif name == "idle":
            wrong += idle.run(folder, most_wakeups=MOST_WAKEUPS, window_s=counts.idle_s)
        else:
            wrong += storm.run(folder, counts.storm)
    return wrong


def _beside_peers(ours: kills.Found | None, counts: Counts, folder: Path, *, install: bool) -> list[str]:
    """Print the peers' times and memory with the ratio to ours; we are to be first in every column."""
    python = _python()
    if install and (missing := peers.missing(python)):
        install_debian(missing)
    if ours is None:
        ours, _ = kills.run(folder, counts.peer_kills)
    best = ours.worst_p50(spare=True)
    with stand(folder) as homeostat:
        kills.settled(homeostat)
        pss = sum(idle.pss_kb(one.pid) for one in homeostat.processes()) / 1024
    print(
        f"kill -9 to answering again beside the peers, {counts.peer_kills} kills each; theirs have no state"
    )
    print(f"  {'':<18}{'p50 ms':>10}{'p99 ms':>10}{'x ours':>9}{'PSS MB':>9}{'without children':>18}")
    p99 = tail(max(ours.times[True].values(), key=statistics.median))["p99"]
    print(f"  {'homeostat':<18}{best:>10.1f}{p99:>10.1f}{1.0:>9.1f}{pss:>9.1f}{'':>18}  (its slowest role)")
    wrong: list[str] = []
    for peer in peers.measure(python, counts.peer_kills):
        if not peer.times_ms:
            print(f"  {peer.name:<18}  {peer.why_not}", flush=True)
            continue
        spread = tail(peer.times_ms)
        print(
            f"  {peer.name:<18}{spread['p50']:>10.1f}{spread['p99']:>10.1f}{spread['p50'] / best:>9.1f}"
            f"{peer.pss_mb:>9.1f}{peer.own_mb:>18.1f}",
            flush=True,
        )
        wrong += missed(f"ms to bring back our slowest role, beside {peer.name}", best, most=spread["p50"])
    return wrong


def _python() -> Path:
    """The peers' interpreter; ours, which can run the child, where that can not be made."""
    try:
        return peers_python()
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"the peers of Python could not be installed: {error}", flush=True)
        return Path(sys.executable)


if __name__ == "__main__":
    main()
