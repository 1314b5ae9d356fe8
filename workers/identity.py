"""Taking on an identity in a freshly forked worker, as root.

Owns: the change of user, and the executor's user namespace.
Must not know: which role gets which uid (the supervisor does); what else a worker gives up (confine.py).
Invariant: afterwards no capability is left in the initial user namespace, and none can come back.
Source: user_namespaces(7), capabilities(7), credentials(7); DESIGN §3.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path

import prctl

EXECUTOR_OFFSET = 3
"""Added to ``users.base``; the supervisor numbers all roles (supervisor/identities.py)."""
SETUP_OFFSET = 10
COMMAND_OFFSET = 11
"""Added to ``users.base``: who sets sandboxes up, and whom commands run as."""

CLONE_NEWUSER = 0x1000_0000
"""linux/sched.h; os.unshare is in Python only from 3.12."""

_libc = ctypes.CDLL(None, use_errno=True)


def become(uid: int, gid: int, groups: list[int]) -> None:
    """Be this user for good; the kernel clears all capabilities with the last uid 0. Raises OSError."""
    prctl.capbset.limit()  # Needs CAP_SETPCAP, so it comes first.
    os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def become_executor(
    uid: int, command_uid: int, groups: list[int], ask_for_maps: Callable[[], None] | None = None
) -> None:
    """Be the executor: a user namespace of itself and the commands' user, with power over these two only.

    The executor must merge into files of the commands' user, so it keeps four file capabilities; they belong
    to a namespace that maps no other uid, so they say nothing about anybody else's files.

    A map of two lines can only be written from the parent namespace. ``ask_for_maps`` has somebody there call
    `write_maps`; without it a helper is forked, which takes longer. Raises OSError.
    """
    os.setgroups(groups)  # Before the namespace: in it the group could not be named.
    ask_for_maps = ask_for_maps or _helper(uid, command_uid)
    if _libc.unshare(CLONE_NEWUSER) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"unshare(CLONE_NEWUSER): {os.strerror(number)}")
    ask_for_maps()
    prctl.set_keepcaps(True)
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    prctl.set_keepcaps(False)
    kept = (prctl.CAP_DAC_OVERRIDE, prctl.CAP_FOWNER, prctl.CAP_CHOWN, prctl.CAP_FSETID)
    # The bounding set first: dropping from it needs CAP_SETPCAP, which goes with the rest.
    prctl.capbset.limit(*kept)
    prctl.cap_inheritable.limit()
    prctl.cap_effective.limit(*kept)
    prctl.cap_permitted.limit(*kept)


def write_maps(pid: int, uid: int, command_uid: int) -> None:
    """Map the two users, and nobody else, into the namespace that a process has just made. Raises OSError."""
    for kind in ("uid_map", "gid_map"):
        Path(f"/proc/{pid}/{kind}").write_text(f"{uid} {uid} 1\n{command_uid} {command_uid} 1\n")


def _helper(uid: int, command_uid: int) -> Callable[[], None]:
    """Fork a helper that stays in this namespace; the call given back has it write the new one's maps."""
    target = os.getpid()
    gone_r, gone_w = os.pipe()
    done_r, done_w = os.pipe()
    helper = os.fork()
    if helper == 0:
        status = 1
        try:
            os.close(gone_w)
            os.close(done_r)
            if os.read(gone_r, 1):
                write_maps(target, uid, command_uid)
                os.write(done_w, b"+")
                status = 0
        finally:
            os._exit(status)
    os.close(gone_r)
    os.close(done_w)

    def finish() -> None:
        os.write(gone_w, b"+")
        os.close(gone_w)
        mapped = os.read(done_r, 1)
        os.close(done_r)
        os.waitpid(helper, 0)
        if not mapped:
            raise OSError(1, "the maps of the executor's user namespace could not be written")

    return finish
