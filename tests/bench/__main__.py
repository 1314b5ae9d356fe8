"""``make bench``: every figure that homeostat is held to, beside peers in the same run where one exists.

Owns: which benchmarks there are.
Must not know: what each one measures.
Invariant: exits 1 when a bound was missed.
Source: issue 2 "Speed and memory".
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.bench import durable, growth, idle, restart
from tests.bench.installed import peers_python
from tests.bench.stand import machine

ALL = ("durable", "restart", "idle", "growth")


def main() -> None:
    """Run the benchmarks that were named, or all."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", choices=[*ALL, []], help="which ones (default: all)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--dir", type=Path, default=Path("/var/tmp"), help="a folder on the disk under test")
    parser.add_argument("--no-peers", action="store_true")
    options = parser.parse_args()
    print(machine(), flush=True)
    found: list[str] = []
    for name in options.names or ALL:
        if name == "durable":
            found += durable.run(options.dir, None if options.no_peers else peers_python(), options.rounds)
        elif name == "restart":
            found += restart.run(options.dir, options.kills)
        elif name == "idle":
            found += idle.run(options.dir)
        else:
            found += growth.run(options.dir)
    for line in found:
        print(f"bound missed: {line}", flush=True)
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
