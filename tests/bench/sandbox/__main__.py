"""``make bench-sandbox``: homeostat's sandbox beside each peer that the machine has, in the same run.

Owns: which parts there are, their bounds, the tables beside the peers.
Must not know: how each one is measured.
Invariant: exits 1 when a bound was missed or a part of ours is missing; a peer that is not installed is named
    so and misses nothing. Source: issue 4 "Speed".
"""

from __future__ import annotations

import argparse
import importlib
import os
import statistics
import sys
from pathlib import Path

from tests.bench.sandbox import attacks, starts
from tests.bench.sandbox.foreign import ORDINARY_UID, Foreign
from tests.bench.sandbox.peers import Peers
from tests.bench.stand import machine, missed, tail

ALL = ("launches", "merges", "streams", "peers", "attacks")
OURS = {"launches": "launches", "merges": "merges", "streams": "streams"}
"""Parts that measure ours alone: each a module with ``measure(folder, quick)`` that gives figures by name."""
MOST = {
    "true_p50_ms": 2.5, "true_p99_ms": 4.0, "cold_p50_ms": 7.0, "staged_p50_ms": 6.0, "merge_100_ms": 15.0,
    "late_ms": 100.0,
}  # fmt: skip
LEAST = {"pty_mb_s": 9.0, "pipe_mb_s": 300.0}
ROUNDS, QUICK_ROUNDS = 100, 10


def main() -> None:
    """Run the parts that were named, or all."""
    parser = argparse.ArgumentParser(prog="make bench-sandbox", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", choices=[*ALL, []], help="which parts (default: all)")
    parser.add_argument("--quick", action="store_true", help="small counts: whether it works, no figures")
    parser.add_argument("--dir", type=Path, default=Path("/var/tmp"), help="a folder on the disk under test")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--install-peers", action="store_true", help="by apt-get and npm, the missing ones")
    parser.add_argument("--as-user", action="store_true", help="as root: run the peers as an ordinary user")
    options = parser.parse_args()
    print(machine(), flush=True)
    user = ORDINARY_UID if options.as_user and os.geteuid() == 0 else None
    peers = Peers(install=options.install_peers, user=user)
    try:
        found = _run(options.names or list(ALL), peers, options)
    finally:
        peers.close()
    for line in found:
        print(f"bound missed: {line}", flush=True)
    sys.exit(1 if found else 0)


def _run(names: list[str], peers: Peers, options: argparse.Namespace) -> list[str]:
    wrong: list[str] = []
    figures: dict[str, float] = {}
    others = [] if options.no_peers else peers.all()
    for name in names:
        if name in OURS:
            try:
                module = importlib.import_module(f"tests.bench.sandbox.{OURS[name]}")
            except ModuleNotFoundError:
                wrong.append(
                    f"{name}: tests/bench/sandbox/{OURS[name]}.py is missing, so it was not measured"
                )
                continue
            figures |= module.measure(options.dir, quick=options.quick)
            wrong += _judged(name, figures)
        elif name == "peers":
            _beside(peers, others, options)
        else:
            wrong += attacks.run(others, quick=options.quick)
    return wrong


def _judged(part: str, figures: dict[str, float]) -> list[str]:
    """Print a part's figures, give the bounds it missed."""
    print(f"{part}:")
    wrong: list[str] = []
    for name, value in figures.items():
        most, least = MOST.get(name), LEAST.get(name)
        bound = f"at most {most:g}" if most else f"at least {least:g}" if least else ""
        print(f"  {name:<24}{value:>12,.2f}  {bound}", flush=True)
        wrong += missed(name, value, most=most, least=least)
    return wrong


def _beside(peers: Peers, others: list[Foreign], options: argparse.Namespace) -> None:
    """``true`` in ours and in each peer, with the ratio to ours."""
    rounds = QUICK_ROUNDS if options.quick else ROUNDS
    found = starts.measure(others, options.dir, rounds)
    ours_ms = statistics.median(found[0].times_ms) if found[0].times_ms else None
    print(f"`true` beside the peers, {rounds} runs each, taking turns; ours with a stage, as commands run")
    print(f"  {'':<18}{'p50 ms':>10}{'p99 ms':>10}{'x ours':>9}")
    for one in found:
        if not one.times_ms:
            print(f"  {one.name:<18}  {one.why_not}")
            continue
        ratio = f"{statistics.median(one.times_ms) / ours_ms:>9.1f}" if ours_ms else f"{'-':>9}"
        spread = tail(one.times_ms)
        print(f"  {one.name:<18}{spread['p50']:>10.1f}{spread['p99']:>10.1f}{ratio}", flush=True)
    for name, why in peers.why_not.items():
        print(f"  {name:<18}  {why}", flush=True)


if __name__ == "__main__":
    main()
