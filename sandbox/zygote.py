"""Owns: the process that makes sandboxes: one thread, one epoll over the owner, the supervisor and every
    sandbox.
Must not know: tasks, tools, what a command means.
Invariants: never waits for one sandbox; a new owner is served only when the former one's sandboxes are dead;
    when the
    supervisor's socket ends, so does this process, and PDEATHSIG ends the rest. Source: DESIGN §3, §9;
    epoll(7).
"""

import collections
import errno
import functools
import gc
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Final, NoReturn, assert_never

from ..proto import codec, messages
from ..proto.errors import ProtectionError, ProtocolError
from . import drill, kernel, layers, order, protocol, seccomp, title
from .command import Builtin
from .kernel import FilterProgram
from .landlord import House, Landlord
from .layers import Layer, LayerError
from .namespaces import Ids
from .order import Filters
from .placement import Placement
from .protocol import Freeze, Greet, Greeted, Kill, Launch, Look, Thaw

ARMED: Final = 2


def main(
    control_fd: int,
    owner_fd: int | None,
    ids: Ids,
    builtins: Mapping[str, Builtin],
    placement: Placement | None = None,
    *,
    armed: int = ARMED,
) -> NoReturn:
    """Be the zygote: called in a fresh single-threaded fork. Ends the process; never returns.

    Every module that a built-in needs must be imported before: in a sandbox there is nothing to import from.
    `armed`: so many sandboxes of a kind are made ahead.
    """
    control = socket.socket(fileno=control_fd)
    owner = None if owner_fd is None else socket.socket(fileno=owner_fd)
    end_with(
        lambda: _live(
            control, owner, House(ids, builtins, compile_filters(), placement or Placement(), armed)
        )
    )


def end_with(life: Callable[[], int]) -> NoReturn:
    """Run `life` and exit with its result, or with 1 after showing its exception: never unwind into the
    forker.
    """
    code = 1
    try:
        code = life()
    except BaseException:  # noqa: BLE001 (the last frame of this process: shown, and its death)
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _live(control: socket.socket, owner: socket.socket | None, house: House) -> int:
    try:
        _forget_the_past({one.fileno() for one in (control, owner) if one is not None} | house.placement.fds)
        # The terminal's interrupt is for the supervisor, which then tells us.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _need_pidfds()
        _need_room_for_requests()
        house.placement.settle()
        enter(house.ids)
        house.placement.try_out()
        # The change of uid in `enter` cleared what our forker had armed.
        kernel.set_parent_death_signal(signal.SIGKILL)
    except LayerError as failure:
        # Every launch would be refused for the same reason: the supervisor should say so and stop.
        fatal = messages.Fatal(ProtectionError.code, str(failure), failure.remedy, ProtectionError.exit_code)
        control.send(codec.encode(fatal))
        return ProtectionError.exit_code
    gc.collect()
    gc.freeze()
    _Server(control, house).run(owner)
    return 0


@functools.cache
def compile_filters() -> Filters:
    """Both programs, compiled while libseccomp and the policies can still be read; once."""
    command = seccomp.compile_policy(seccomp.POLICIES / "command.toml")
    first = seccomp.compile_policy(seccomp.POLICIES / "init.toml")
    digest, count = seccomp.digest(command), seccomp.instruction_count(command)
    return Filters(FilterProgram(command), FilterProgram(first), digest, count)


def _forget_the_past(kept: set[int]) -> None:
    """No descriptor, variable or input of whoever forked us; descriptor 2 stays for our own crash reports."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    try:
        kernel.close_all_but({0, 1, 2, *kept})
    except kernel.KernelError as error:
        raise LayerError(
            Layer.LIFELINE, error.errno or 0, str(error), layers.remedy("close_range")
        ) from error
    os.umask(0o022)  # the supervisor's would close the sandbox's own folders to the command
    os.environ.clear()
    try:
        title.forget_variables()
    except OSError as error:
        raise LayerError.of(Layer.LIFELINE, error) from error


def _need_pidfds() -> None:
    """Without them a launch would fail when its command runs already. Raises LayerError."""
    try:
        own = os.pidfd_open(os.getpid())
        try:
            signal.pidfd_send_signal(own, 0)
        finally:
            os.close(own)
    except OSError as error:
        raise LayerError(
            Layer.LIFELINE, error.errno or 0, f"pidfds: {error.strerror}", layers.remedy("pidfd")
        ) from error


def _need_room_for_requests() -> None:
    """The kernel cuts what is asked of a buffer to its limit, and says nothing. Raises LayerError."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        protocol.prepare(ours)
        room = ours.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    if room <= protocol.MAX_PACKET_BYTES:
        text = f"a packet has room for {room} bytes, and a request may have {protocol.MAX_PACKET_BYTES}"
        raise LayerError(Layer.REQUEST, errno.EMSGSIZE, text, layers.remedy("packet_size"))


def enter(ids: Ids) -> None:
    """Move into the zygote's own namespaces and make the template root. Raises LayerError."""
    order.perform(order.IN_ZYGOTE, ids)
    # Nobody of our uid may look into us; as root nobody has our uid.
    kernel.set_dumpable(False)


class _Server:
    def __init__(
        self,
        control: socket.socket,
        house: House,
    ) -> None:
        self._control = control
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[], None]] = {}
        self._owner: socket.socket | None = None
        self._next_owner: socket.socket | None = None
        self._outbox: collections.deque[tuple[bytes, list[int]]] = collections.deque()
        self._house = house
        self._landlord = Landlord(self, self._send, house)
        self._stopping = False
        self._clogged = False

    def run(self, owner: socket.socket | None) -> None:
        """Loop until told to stop and every sandbox is dead."""
        self._control.setblocking(False)
        self.watch(self._control.fileno(), self._hear_supervisor)
        if owner is not None:
            self._adopt(owner)
        self._control.send(codec.encode(messages.Ready()))
        while not (self._stopping and self._landlord.empty):
            wait_s = self._landlord.tend()
            if self._landlord.rusty:
                drill.rehearse(self._house)
                self._landlord.rusty = False
            ready = [(fd, self._handlers[fd]) for fd, _ in self._epoll.poll(wait_s)]
            for fd, handler in ready:
                # An earlier handler may have closed it, and another opened a new one with its number.
                if self._handlers.get(fd) is handler:
                    handler()
            self._admit_next_owner()

    def watch(self, fd: int, handler: Callable[[], None]) -> None:
        """Call when readable."""
        self._handlers[fd] = handler
        self._epoll.register(fd, select.EPOLLIN)

    def unwatch(self, fd: int) -> None:
        """No longer; before `fd` is closed."""
        del self._handlers[fd]
        self._epoll.unregister(fd)

    # -- the supervisor ----------------------------------------------------------------------------

    def _hear_supervisor(self) -> None:
        try:
            packet, fds = protocol.receive(self._control)
        except BlockingIOError:
            return
        if not packet:
            self._stop()
            return
        match codec.FROM_SUPERVISOR.decode(packet):
            case messages.Owner():
                self._replace_owner(socket.socket(fileno=fds.pop(0)))
            case messages.Stop():
                self._stop()
            case _:
                pass  # Epochs and GateEpoch concern workers that talk to the gate.
        protocol.close(fds)

    def _stop(self) -> None:
        self._stopping = True
        self.unwatch(self._control.fileno())
        self._drop_owner()

    def _replace_owner(self, successor: socket.socket) -> None:
        """The successor waits until nothing of its predecessor lives."""
        self._drop_owner()
        if self._next_owner is not None:
            self._next_owner.close()
        self._next_owner = successor

    def _admit_next_owner(self) -> None:
        if self._next_owner is not None and self._landlord.empty:
            successor, self._next_owner = self._next_owner, None
            self._adopt(successor)

    def _adopt(self, owner: socket.socket) -> None:
        protocol.prepare(owner)
        self._owner = owner
        self._clogged = False
        self.watch(owner.fileno(), self._hear_owner)

    def _drop_owner(self) -> None:
        """Forget the owner and kill everything that it started."""
        if self._owner is not None:
            self.unwatch(self._owner.fileno())
            self._owner.close()
            self._owner = None
        while self._outbox:
            protocol.close(self._outbox.popleft()[1])
        self._landlord.drop()

    # -- the owner ---------------------------------------------------------------------------------

    def _hear_owner(self) -> None:
        """One packet a round, so that a flood of requests does not starve the ends of sandboxes."""
        self._flush()
        if self._owner is None:
            return
        try:
            packet, fds = protocol.receive(self._owner)
            message = protocol.decode_request(packet) if packet else None
        except BlockingIOError:
            return
        except (ProtocolError, ConnectionResetError) as error:
            # An owner that speaks another language can't be served half: it is dropped, and restarted with us
            # told.
            print(f"zygote: owner dropped: {error}", file=sys.stderr, flush=True)
            self._drop_owner()
            return
        if not isinstance(message, Freeze):
            self._landlord.begin()
        if isinstance(message, Launch):
            self._landlord.launch(message, fds)
            if self._more_from_owner():
                return  # It may be its Freeze.
        else:
            protocol.close(fds)
            self._obey(message)
        self._landlord.begin()

    def _obey(self, message: Kill | Freeze | Thaw | Look | Greet | None) -> None:
        match message:
            case None:
                self._drop_owner()
            case Kill(identity):
                self._landlord.kill(identity)
            case Freeze(identity):
                self._landlord.freeze(identity)
            case Thaw(identity):
                self._landlord.thaw(identity)
            case Look(identity):
                self._landlord.look(identity)
            case Greet():
                self._send(Greeted(), [])
            case _:
                assert_never(message)

    def _more_from_owner(self) -> bool:
        if self._owner is None:
            return False
        try:
            return bool(self._owner.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except (BlockingIOError, ConnectionResetError):
            return False

    def _send(self, message: protocol.ToOwner, fds: list[int]) -> None:
        """Queue and try at once; the descriptors are closed when they are sent."""
        if self._owner is None:
            protocol.close(fds)
            return
        self._outbox.append((protocol.encode(message), fds))
        self._flush()

    def _flush(self) -> None:
        if self._owner is None:
            return
        while self._outbox:
            packet, fds = self._outbox[0]
            try:
                protocol.send(self._owner, packet, fds)
            except BlockingIOError:
                self._epoll.modify(self._owner.fileno(), select.EPOLLIN | select.EPOLLOUT)
                self._clogged = True
                return
            except (BrokenPipeError, ConnectionResetError):
                # Its end will be read in the next round.
                return
            protocol.close(fds)
            self._outbox.popleft()
        if self._clogged:
            self._epoll.modify(self._owner.fileno(), select.EPOLLIN)
            self._clogged = False
