"""Try a configuration's policies, in a process of its own: ``python -m homeostat.workers.gate.lawcheck``.

Owns: the words to who asks: nothing, or what is wrong. Must not know: who asks, and why.
Invariant: a gate is never restarted with policies that it would refuse: that would end the whole tree.
Source: DESIGN §8; supervisor/reloading.py, which may not import a worker and starts this by name.
"""

from __future__ import annotations

import sys

from ...proto.config import from_bytes
from ...proto.errors import ConfigError
from .law import pipeline_of

GOOD = "ok"


def main() -> None:
    """Read a configuration's bytes from standard input; write ``ok``, or what is wrong."""
    try:
        pipeline_of(from_bytes(sys.stdin.buffer.read()))
    except ConfigError as error:
        print(error.diagnostics())
    else:
        print(GOOD)


if __name__ == "__main__":
    main()
