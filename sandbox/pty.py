"""Owns: a pseudo-terminal of the sandbox's own devpts.
Must not know: who reads the master, streams.
Invariants: the slave is opened without a path (TIOCGPTPEER) and belongs to the command's uid; nobody's
    controlling
    terminal before `make_controlling`. Source: pts(4), ioctl_tty(2).
"""

import fcntl
import os
import struct
import termios
from typing import Final

_TIOCSPTLCK: Final = 0x40045431
_TIOCGPTPEER: Final = 0x5441


def create(rows: int, cols: int, owner: int) -> tuple[int, int]:
    """(master, slave) with the window's size set; the slave belongs to `owner`."""
    master = os.open("/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
    slave = fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    os.fchown(slave, owner, owner)
    set_size(slave, rows, cols)
    return master, slave


def set_size(fd: int, rows: int, cols: int) -> None:
    """Tell the terminal its size; its foreground group gets SIGWINCH."""
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))


def make_controlling(fd: int) -> None:
    """Make `fd` the controlling terminal of this session leader."""
    fcntl.ioctl(fd, termios.TIOCSCTTY, 0)
