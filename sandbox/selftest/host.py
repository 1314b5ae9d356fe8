"""The process that the selftest's zygote lives in: started by exec, as a supervisor's comes from a nursery.

Owns: the decoys that a sandbox must not inherit; the built-in through which attacks run as a file tool does.
Must not know: the attacks.
Invariant: whatever this process was given (secrets as variables, an open descriptor), no sandbox sees it.
Source: DESIGN §9; prover.py starts it.
"""

# ruff: noqa: F401 (what attacks import must be imported before the sandbox's root hides the library)

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import resource
import select
import signal
import socket
import struct
import sys
import threading
import time
import traceback
from typing import Final, NoReturn

from .. import zygote
from ..namespaces import Ids
from ..placement import Placement

SECRET: Final = "homeostat-selftest-secret"  # noqa: S105  no secret but a decoy
"""The value of every decoy: it must appear in no sandbox."""
DECOYS: Final = {
    "API_KEY": SECRET, "AWS_SECRET_ACCESS_KEY": SECRET, "SSH_AUTH_SOCK": SECRET, "GIT_DIR": SECRET,
    "BASH_ENV": SECRET, "LD_PRELOAD": SECRET, "PYTHONSTARTUP": SECRET,
}  # fmt: skip
BUILTIN: Final = "attack"


def attack(argv: list[bytes]) -> int:
    """The built-in: runs an attack, given as its source, under the confinement of a file tool."""
    exec(compile(argv[0], "attack", "exec"), {"__name__": "attack"})  # noqa: S102 (in a sandbox only)
    return 0


def main(words: list[str]) -> NoReturn:
    """Be the zygote. Words: descriptors of supervisor, owner and decoy, uid of the set-up and of commands
    (0: without privilege, all under the former), then NAME=DESCRIPTOR of each group that was lent.
    """
    control_fd, owner_fd, leaked_fd, setup_uid, command_uid = map(int, words[:5])
    lent = {name: int(fd) for name, _, fd in (word.partition("=") for word in words[5:])}
    os.environ.update(DECOYS)
    os.set_inheritable(leaked_fd, True)
    ids = Ids(setup_uid, command_uid or None)
    zygote.main(control_fd, owner_fd, ids, {BUILTIN: attack}, Placement(lent))


if __name__ == "__main__":
    main(sys.argv[1:])
