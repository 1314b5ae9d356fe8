"""``make bench``: every figure that homeostat is held to, beside peers in the same run where one exists.

Owns: which benchmarks there are, and the peers' own environment.
Must not know: what each one measures.
Invariant: nothing of a peer is installed into the project's environment.
Source: issue 2 "Speed and memory".
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.bench import durable, growth, idle, restart
from tests.bench.stand import machine

ROOT = Path(__file__).resolve().parents[2]
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
            found += durable.run(options.dir, None if options.no_peers else _peers(), options.rounds)
        elif name == "restart":
            found += restart.run(options.dir, options.kills)
        elif name == "idle":
            found += idle.run(options.dir)
        else:
            found += growth.run(options.dir)
    for line in found:
        print(f"bound missed: {line}", flush=True)
    sys.exit(1 if found else 0)


def _peers() -> Path:
    """The peers' own environment, made at the first use from requirements/peers.txt."""
    place = ROOT / ".venv-peers"
    python = place / "bin" / "python"
    stamp = place / "stamp"
    lock = ROOT / "requirements" / "peers.txt"
    if not stamp.exists() or stamp.read_text() != lock.read_text():
        print("installing the peers into .venv-peers ...", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(place)], check=True)
        with tempfile.TemporaryFile() as log:
            subprocess.run(
                [str(python), "-m", "pip", "install", "--quiet", "--require-hashes", "-r", str(lock)],
                check=True,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        stamp.write_text(lock.read_text())
    return python


if __name__ == "__main__":
    main()
