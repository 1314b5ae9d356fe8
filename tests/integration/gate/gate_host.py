"""A real gate process without a supervisor: what workers/entry.py does, from what the test handed over.

Owns: building the gate's Context from inherited descriptors. Must not know: the test.
Invariant: dies with the test that started it.
Source: workers/entry.py.

Arguments: home, epoch, the configuration in hexadecimal, and the descriptors as a JSON object by name.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import prctl
import zmq

from homeostat.proto.config import from_bytes
from homeostat.workers.gate import shell
from homeostat.workers.runtime import Context


def main() -> None:
    """Be the gate."""
    home, epoch, config, fds = sys.argv[1:]
    prctl.set_pdeathsig(signal.SIGKILL)
    os.environ.pop("HOMEOSTAT_HOME", None)
    shell.main(
        Context(
            "gate",
            0,
            int(epoch),
            b"gate's own",
            Path(home),
            home,
            from_bytes(bytes.fromhex(config)),
            json.loads(fds),
            "",
            zmq.Context(io_threads=1),
        )
    )


if __name__ == "__main__":
    main()
