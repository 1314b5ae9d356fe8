"""The program that a guardian starts, with fake workers.

Owns: nothing.
Must not know: what the fakes do.
Invariant: all but the workers is the real thing.
Source: supervisor/guarded.py; tests/fakes/worker.py.
"""

import sys

from homeostat.supervisor.guarded import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], entry="tests.fakes.worker:arm"))
