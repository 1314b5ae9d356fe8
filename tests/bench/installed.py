"""What the peers run on: an environment of their own, and programs of the operating system.

Owns: making .venv-peers from requirements/peers.txt; Debian's packages of peers, when they are asked for.
Must not know: what is measured.
Invariant: nothing of a peer is installed into the project's environment; no package of the system without the
    reader's word.
Source: issue 2 and 3 "Speed and memory".
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def peers_python() -> Path:
    """The interpreter of the peers' own environment, made at the first use from requirements/peers.txt."""
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


def install_debian(packages: Sequence[str]) -> None:
    """Have apt-get install these, as root; otherwise say what to run."""
    command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]
    if shutil.which("apt-get") is None:
        print(f"there is no apt-get here: install {', '.join(packages)} as your distribution does")
    elif os.geteuid() != 0:
        print(f"run this, then the benchmark again: sudo {' '.join(command)}")
    else:
        print(f"installing {', '.join(packages)} ...", flush=True)
        done = subprocess.run(
            command,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            print(f"  apt-get failed, so they are not measured: {done.stderr.strip()[-500:]}")
