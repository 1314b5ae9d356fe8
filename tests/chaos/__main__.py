"""`make chaos`: kill random workers for many rounds, and count every effect at its target.

Owns: the command line of the campaign.
Must not know: anything else.
Invariant: exits 1 on any violation.
Source: issue "The spine", "Shown by".
"""

from __future__ import annotations

import argparse
import secrets
import signal
import sys

from .campaign import Campaign, Settings
from .sabotage import MODES


def main(arguments: list[str] | None = None) -> int:
    """Run a campaign."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=None, help="of plans and kills; printed; default: random")
    parser.add_argument("--minutes", type=float, default=60.0, help="begin no round after so long")
    parser.add_argument("--tasks", type=int, default=4, help="at once, in each round")
    parser.add_argument("--kills", type=int, default=6, help="at most, in each round")
    parser.add_argument("--batch", type=int, default=25, help="rounds in one home")
    parser.add_argument("--sabotage", choices=MODES, default="", help="break a law on purpose; must exit 1")
    parser.add_argument("--keep", action="store_true", help="keep the homes")
    asked = parser.parse_args(arguments)
    # So that a campaign that is told to go still takes its supervisor and workspaces with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    seed = asked.seed if asked.seed is not None else secrets.randbelow(1_000_000)
    return Campaign(
        Settings(
            asked.rounds,
            seed,
            asked.minutes,
            asked.tasks,
            asked.kills,
            asked.batch,
            asked.sabotage,
            asked.keep,
        )
    ).run()


if __name__ == "__main__":
    sys.exit(main())
