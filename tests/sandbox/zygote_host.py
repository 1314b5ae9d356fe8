"""Owns: the process that a test's zygote lives in: started by exec, so that no test runner is forked with it.
Must not know: which test uses it.
Invariants: it has a secret in its environment, which no sandbox may see, and a supervisor's strict umask.
Source: tests/sandbox/stand.py starts it.
"""

import os
import sys
import time

from homeostat.sandbox import zygote
from homeostat.sandbox.namespaces import Ids
from homeostat.sandbox.placement import Placement


def say(argv: list[bytes]) -> int:
    """A built-in: shows its arguments, who it is and the workspace; the exit code is the number of
    arguments.
    """
    print(argv, os.getuid(), sorted(os.listdir(".")), flush=True)
    return len(argv)


def attack(argv: list[bytes]) -> int:
    """A built-in that runs the attack given as its source, under the same confinement as a command."""
    exec(compile(argv[0], "attack", "exec"), {"__name__": "attack"})  # noqa: S102 (runs in a sandbox only)
    return 0


def crash(_: list[bytes]) -> int:
    """A built-in with a bug."""
    raise RuntimeError("as planned")


def sleep(_: list[bytes]) -> int:
    """A built-in that does not end by itself."""
    time.sleep(3600)
    return 0


BUILTINS = {"say": say, "attack": attack, "crash": crash, "sleep": sleep}


if __name__ == "__main__":
    control_fd, owner_fd, setup_uid, command_uid = map(int, sys.argv[1:5])
    groups = {name: int(fd) for name, _, fd in (word.partition("=") for word in sys.argv[6:])}
    placement = Placement(groups, sys.argv[5].split(","))
    os.environ.update(
        LD_PRELOAD="/nonexistent.so", BASH_ENV="/nonexistent", GIT_DIR="/nonexistent", API_KEY="secret"
    )
    zygote.main(
        control_fd,
        owner_fd,
        Ids(setup_uid, command_uid or None),
        BUILTINS,
        placement,
        armed=int(os.environ["ARMED"]),
    )
