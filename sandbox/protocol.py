"""Owns: the messages between an executor and its zygote, their bytes and their limits.
Must not know: sockets' owners, how a sandbox is made.
Invariants: one msgpack map a packet; a packet that is too long, unknown or malformed is an error, never half
    a message.
Source: DESIGN §9; unix(7) for packets and passed descriptors; execve(2) for the limits of arguments.
"""

import array
import socket
from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from ..proto.errors import MessageTooLargeError, ProtocolError
from .profile import Profile
from .report import Report

MAX_PACKET_BYTES: Final = 256 * 1024
#: argv and environment together, as execve(2) counts them: each string with its NUL and a pointer.
MAX_ARGUMENT_BYTES: Final = 192 * 1024
#: One string: MAX_ARG_STRLEN of linux/binfmts.h.
MAX_STRING_BYTES: Final = 128 * 1024 - 1
MAX_FDS: Final = 8
EGRESS_PORT: Final = 3128
"""Where a command with egress finds the courier, on its own loopback."""


class Launch(msgspec.Struct, frozen=True, tag="launch", forbid_unknown_fields=True):
    """Run one command. Descriptors in order: workspace, [stage], [stdin, stdout, stderr unless tty]."""

    id: int
    profile: Profile
    argv: list[bytes]
    env: dict[str, str] = {}
    cwd: str = ""
    tty: bool = False
    rows: int = 24
    cols: int = 80
    builtin: str | None = None
    staged: bool = False
    egress: bool = False

    def fd_count(self) -> int:
        """How many descriptors must come with it."""
        return 1 + self.staged + (0 if self.tty else 3)


class Kill(msgspec.Struct, frozen=True, tag="kill", forbid_unknown_fields=True):
    """Kill the sandbox's first process, and with it its whole tree."""

    id: int


class Freeze(msgspec.Struct, frozen=True, tag="freeze", forbid_unknown_fields=True):
    """Stop the sandbox's whole tree, or keep it from starting; Frozen follows unless it ends before."""

    id: int


class Thaw(msgspec.Struct, frozen=True, tag="thaw", forbid_unknown_fields=True):
    """Let the tree go on."""

    id: int


class Look(msgspec.Struct, frozen=True, tag="look", forbid_unknown_fields=True):
    """Does what runs on this sandbox's terminal wait for input? Looked follows, unless it ends before."""

    id: int


class Launched(msgspec.Struct, frozen=True, tag="launched", forbid_unknown_fields=True):
    """The command runs. Descriptors: pidfd of the sandbox's first process, [terminal], [listener: with
    egress, a TCP socket that listens inside, on EGRESS_PORT of its loopback]. `armed`: it was made ahead.
    """

    id: int
    pid: int
    report: Report
    armed: bool = False


class Refused(msgspec.Struct, frozen=True, tag="refused", forbid_unknown_fields=True):
    """Nothing was run, and nothing is left of the attempt."""

    id: int
    layer: str
    errno: int
    message: str
    remedy: str


class Exited(msgspec.Struct, frozen=True, tag="exited", forbid_unknown_fields=True):
    """The command ended and its whole tree is dead.

    Exactly one of `exit_code` and `signal` is set. `cpu_s` counts the whole tree, set-up included (some
    milliseconds); `max_rss_bytes` is that of its largest process and has the set-up's size as its floor.
    `oom_kills` counts processes that the kernel killed because all together passed `total_memory_bytes`.
    """

    id: int
    exit_code: int | None
    signal: int | None
    cpu_s: float
    max_rss_bytes: int
    oom_kills: int = 0


class Frozen(msgspec.Struct, frozen=True, tag="frozen", forbid_unknown_fields=True):
    """Every process of the sandbox stands still, or none has begun and none will before Thaw."""

    id: int


class Looked(msgspec.Struct, frozen=True, tag="looked", forbid_unknown_fields=True):
    """What the terminal's foreground is at: ``waiting`` for input for certain, ``maybe``, or ``busy``;
    ``unseen`` where the kernel does not let the zygote look.
    """

    id: int
    state: Literal["waiting", "maybe", "busy", "unseen"]


class Greet(msgspec.Struct, frozen=True, tag="greet", forbid_unknown_fields=True):
    """Tell me when you serve me."""


class Greeted(msgspec.Struct, frozen=True, tag="greeted", forbid_unknown_fields=True):
    """This owner is served: of what a former one started, nothing lives any more."""

    id: int = 0


ToZygote = Launch | Kill | Freeze | Thaw | Look | Greet
ToOwner = Launched | Refused | Exited | Frozen | Looked | Greeted

_encoder = msgspec.msgpack.Encoder()
_requests: msgspec.msgpack.Decoder[ToZygote] = msgspec.msgpack.Decoder(ToZygote)
_replies: msgspec.msgpack.Decoder[ToOwner] = msgspec.msgpack.Decoder(ToOwner)


def encode(message: ToZygote | ToOwner) -> bytes:
    """The packet. Raises MessageTooLargeError, ProtocolError."""
    try:
        if isinstance(message, Launch):
            _check_arguments(message)
        packet = _encoder.encode(message)
    except UnicodeEncodeError as error:
        raise ProtocolError(f"a text that is no Unicode: {error}") from error
    if len(packet) > MAX_PACKET_BYTES:
        raise MessageTooLargeError(f"message of {len(packet)} bytes; a packet holds {MAX_PACKET_BYTES}")
    return packet


def _check_arguments(launch: Launch) -> None:
    strings = [*launch.argv, *(f"{name}={value}".encode() for name, value in launch.env.items())]
    longest = max(map(len, strings), default=0)
    if longest > MAX_STRING_BYTES:
        raise MessageTooLargeError(
            f"an argument of {longest} bytes; the kernel takes {MAX_STRING_BYTES}: pass it as a file"
        )
    total = sum(len(string) + 9 for string in strings)
    if total > MAX_ARGUMENT_BYTES:
        raise MessageTooLargeError(
            f"arguments and environment of {total} bytes; {MAX_ARGUMENT_BYTES} allowed: pass a file"
        )


def decode_request(packet: bytes) -> ToZygote:
    """What an executor may say. Raises ProtocolError."""
    try:
        return _requests.decode(packet)
    except msgspec.MsgspecError as error:
        raise ProtocolError(f"malformed request: {error}") from error


def decode_reply(packet: bytes) -> ToOwner:
    """What a zygote may say. Raises ProtocolError."""
    try:
        return _replies.decode(packet)
    except msgspec.MsgspecError as error:
        raise ProtocolError(f"malformed reply: {error}") from error


def prepare(sock: socket.socket) -> None:
    """Make `sock` carry packets of MAX_PACKET_BYTES without blocking."""
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MAX_PACKET_BYTES)


def receive(sock: socket.socket) -> tuple[bytes, list[int]]:
    """One packet and its descriptors; empty bytes at the end. Raises BlockingIOError, ProtocolError.

    A cut packet is refused with its descriptors closed: they would leak into whatever is launched next.
    """
    space = socket.CMSG_SPACE(MAX_FDS * array.array("i").itemsize)
    packet, ancillary, flags, _ = sock.recvmsg(MAX_PACKET_BYTES + 1, space, socket.MSG_CMSG_CLOEXEC)
    fds = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        close(fds)
        raise ProtocolError("a packet was cut: too long, or with too many descriptors")
    return packet, list(fds)


def send(sock: socket.socket, packet: bytes, fds: Sequence[int]) -> None:
    """One packet with descriptors, without blocking. Raises BlockingIOError."""
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    sock.sendmsg([packet], ancillary, socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)


def close(fds: Sequence[int]) -> None:
    """Close descriptors that arrived and are not wanted."""
    for fd in fds:
        socket.close(fd)
