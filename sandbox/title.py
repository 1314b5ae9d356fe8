"""Owns: the name and arguments under which a process is seen in /proc, as everybody in its pid namespace can.
Must not know: which process takes which name.
Invariants: of the arguments and variables that the program was started with nothing can be read any more.
Source: proc_pid_cmdline(5), proc_pid_stat(5) (arg_start to env_end); get_mm_cmdline of fs/proc/base.c: where
    the last byte of the arguments is not NUL, what is shown ends at the first one.
"""

import ctypes
import functools
from typing import Final, NamedTuple

from . import kernel

_FIRST_FIELD: Final = 3
"""The number of the field that follows the name, which alone may have spaces."""
_ARGUMENTS: Final = 48
_VARIABLES: Final = 50
_CUT: Final = b"\xff"


class _Region(NamedTuple):
    """Where the kernel finds them: addresses in our own memory, which forks have at the same place."""

    start: int
    size: int


@functools.cache
def regions() -> tuple[_Region, _Region]:
    """Of arguments and variables. Asked once: a fork need not open /proc. Raises OSError."""
    with open("/proc/self/stat", encoding="utf-8", errors="surrogateescape") as file:
        fields = file.read().rpartition(")")[2].split()

    def region(number: int) -> _Region:
        start, end = (int(word) for word in fields[number - _FIRST_FIELD : number - _FIRST_FIELD + 2])
        return _Region(start, end - start if start else 0)

    return region(_ARGUMENTS), region(_VARIABLES)


def forget_variables() -> None:
    """Wipe what the program was started with: what looks like a variable later is not one of these."""
    _, variables = regions()
    ctypes.memset(variables.start, 0, variables.size)


def take(name: bytes) -> None:
    """Be called so, and nothing else; cut to the room that the arguments had. Raises OSError."""
    arguments, _ = regions()
    if arguments.size > 1:
        shown = name[: arguments.size - 2].ljust(arguments.size - 1, b"\0") + _CUT
        ctypes.memmove(arguments.start, shown, arguments.size)
    kernel.set_name(name)
