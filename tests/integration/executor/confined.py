"""A program: an executor that gives up its powers as in production, then plays one call.

Owns: nothing that survives it.
Must not know: what the test expects.
Invariant: identity and confinement come before the first thread, by the same functions as in a real worker.
Source: DESIGN §3 (the table of powers), law 4.

Arguments: home, descriptor of the zygote's socket, the encoded Execute as hexadecimal digits.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import msgspec

from homeostat.proto import messages as m
from homeostat.proto.config import Config
from homeostat.workers import confine, identity
from homeostat.workers.runtime import Context
from tests.integration.executor.crashing import play


def main() -> None:
    """Become an executor, and play."""
    base = Config().users.base
    if os.geteuid() == 0:
        identity.become_executor(base + 3, base + 11, [])
    os.chdir(sys.argv[1])
    context = Context(
        role="executor",
        index=0,
        epoch=1,
        secret=b"",
        home=Path(),
        home_name=sys.argv[1],
        config=Config(),
        fds={"zygote": int(sys.argv[2])},
    )
    confine.apply(context.role, context.home, context.config)
    play(context, msgspec.msgpack.decode(bytes.fromhex(sys.argv[3]), type=m.Execute))


if __name__ == "__main__":
    main()
