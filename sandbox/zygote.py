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
from typing import Final, NoReturn

from ..proto import codec, messages
from ..proto.errors import ProtectionError, ProtocolError
from . import init, kernel, namespaces, order, progress, protocol, seccomp
from .command import Builtin
from .kernel import FilterProgram
from .layers import Layer, LayerError
from .namespaces import Ids
from .order import Filters, Making
from .protocol import Freeze, Greet, Greeted, Kill, Launch, Launched, Thaw
from .tenant import Tenant, refusal

MAX_SANDBOXES: Final = 128


def main(control_fd: int, owner_fd: int | None, ids: Ids, builtins: Mapping[str, Builtin]) -> NoReturn:
    """Be the zygote: called in a fresh single-threaded fork. Ends the process; never returns.

    Every module that a built-in needs must be imported before: in a sandbox there is nothing to import from.
    """
    control = socket.socket(fileno=control_fd)
    owner = None if owner_fd is None else socket.socket(fileno=owner_fd)
    end_with(lambda: _live(control, owner, ids, builtins))


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


def _live(
    control: socket.socket, owner: socket.socket | None, ids: Ids, builtins: Mapping[str, Builtin]
) -> int:
    try:
        filters = compile_filters()
        _forget_the_past({control.fileno()} if owner is None else {control.fileno(), owner.fileno()})
        # The terminal's interrupt is for the supervisor, which then tells us.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        enter(ids)
        # The change of uid in `enter` cleared what our forker had armed.
        kernel.set_parent_death_signal(signal.SIGKILL)
    except LayerError as failure:
        # Every launch would be refused for the same reason: the supervisor should say so and stop.
        fatal = messages.Fatal(ProtectionError.code, str(failure), failure.remedy, ProtectionError.exit_code)
        control.send(codec.encode(fatal))
        return ProtectionError.exit_code
    serve(control, owner, ids, builtins, filters)
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
    kernel.close_all_but({0, 1, 2, *kept})
    os.umask(0o022)  # the supervisor's would close the sandbox's own folders to the command
    os.environ.clear()


def enter(ids: Ids) -> None:
    """Move into the zygote's own namespaces and make the template root. Raises LayerError."""
    order.perform(order.IN_ZYGOTE, ids)
    # Nobody of our uid may look into us; as root nobody has our uid.
    kernel.set_dumpable(False)


def serve(
    control: socket.socket,
    owner: socket.socket | None,
    ids: Ids,
    builtins: Mapping[str, Builtin],
    filters: Filters,
) -> None:
    """Serve until the supervisor says Stop or goes away, and every sandbox is dead. Call `enter` before."""
    gc.collect()
    gc.freeze()
    _Server(control, ids, builtins, filters).run(owner)


class _Server:
    def __init__(
        self, control: socket.socket, ids: Ids, builtins: Mapping[str, Builtin], filters: Filters
    ) -> None:
        self._control = control
        self._ids = ids
        self._builtins = builtins
        self._filters = filters
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[], None]] = {}
        self._owner: socket.socket | None = None
        self._next_owner: socket.socket | None = None
        self._outbox: collections.deque[tuple[bytes, list[int]]] = collections.deque()
        self._tenants: dict[int, Tenant] = {}
        self._stopping = False

    def run(self, owner: socket.socket | None) -> None:
        """Loop until told to stop and every sandbox is dead."""
        self._control.setblocking(False)
        self._watch(self._control.fileno(), self._hear_supervisor)
        if owner is not None:
            self._adopt(owner)
        self._control.send(codec.encode(messages.Ready()))
        while not (self._stopping and not self._tenants):
            ready = [(fd, self._handlers[fd]) for fd, _ in self._epoll.poll()]
            for fd, handler in ready:
                # An earlier handler may have closed it, and another opened a new one with its number.
                if self._handlers.get(fd) is handler:
                    handler()

    def _watch(self, fd: int, handler: Callable[[], None]) -> None:
        self._handlers[fd] = handler
        self._epoll.register(fd, select.EPOLLIN)

    def _unwatch(self, fd: int) -> None:
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
        self._unwatch(self._control.fileno())
        self._drop_owner()

    def _replace_owner(self, successor: socket.socket) -> None:
        """The successor waits until nothing of its predecessor lives."""
        self._drop_owner()
        if self._next_owner is not None:
            self._next_owner.close()
        self._next_owner = successor
        self._admit_next_owner()

    def _admit_next_owner(self) -> None:
        if self._next_owner is not None and not self._tenants:
            successor, self._next_owner = self._next_owner, None
            self._adopt(successor)

    def _adopt(self, owner: socket.socket) -> None:
        protocol.prepare(owner)
        self._owner = owner
        self._watch(owner.fileno(), self._hear_owner)

    def _drop_owner(self) -> None:
        """Forget the owner and kill everything that it started."""
        if self._owner is not None:
            self._unwatch(self._owner.fileno())
            self._owner.close()
            self._owner = None
        while self._outbox:
            protocol.close(self._outbox.popleft()[1])
        for tenant in self._tenants.values():
            tenant.kill()

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
        match message:
            case None:
                self._drop_owner()
            case Launch():
                self._launch(message, fds)
            case Kill(identity):
                if identity in self._tenants:
                    self._tenants[identity].kill()
                protocol.close(fds)
            case Freeze(identity) | Thaw(identity):
                if identity in self._tenants:
                    self._tenants[identity].tell(
                        progress.Freeze() if isinstance(message, Freeze) else progress.Thaw()
                    )
                protocol.close(fds)
            case Greet():
                protocol.close(fds)
                self._send(Greeted(), [])

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
                return
            except (BrokenPipeError, ConnectionResetError):
                # Its end will be read in the next round.
                return
            protocol.close(fds)
            self._outbox.popleft()
        self._epoll.modify(self._owner.fileno(), select.EPOLLIN)

    # -- sandboxes ---------------------------------------------------------------------------------

    def _launch(self, launch: Launch, fds: list[int]) -> None:
        try:
            self._check(launch, fds)
            tenant = self._start(launch, fds)
        except LayerError as failure:
            self._send(refusal(launch.id, failure), [])
            return
        except OSError as error:
            self._send(refusal(launch.id, LayerError.of(Layer.NAMESPACES, error)), [])
            return
        finally:
            protocol.close(fds)
        self._tenants[launch.id] = tenant
        self._watch(tenant.status.fileno(), functools.partial(self._hear_sandbox, tenant))
        self._watch(tenant.pidfd, functools.partial(self._bury, tenant))

    def _check(self, launch: Launch, fds: list[int]) -> None:
        """Refuse what can't be meant, before anything is made for it."""
        wrong = [
            reason
            for bad, reason in (
                (launch.id in self._tenants, f"id {launch.id} is in use"),
                (
                    len(fds) != launch.fd_count(),
                    f"{len(fds)} descriptors came, {launch.fd_count()} are needed",
                ),
                (launch.tty and not launch.profile.tty, "the profile allows no terminal"),
                (launch.builtin is None and not launch.argv, "argv is empty"),
                (
                    launch.builtin is not None and launch.builtin not in self._builtins,
                    f"no built-in {launch.builtin}",
                ),
                (
                    any(not _is_variable(*pair) for pair in launch.env.items()),
                    "a variable has a bad name or a NUL",
                ),
                (
                    any(b"\0" in word for word in launch.argv) or "\0" in launch.cwd,
                    "NUL in an argument or in cwd",
                ),
                (
                    not (0 < launch.rows < 65536 and 0 < launch.cols < 65536),
                    "rows and cols must be 1 to 65535",
                ),
            )
            if bad
        ]
        if wrong:
            raise LayerError(Layer.REQUEST, errno.EINVAL, "; ".join(wrong))
        if len(self._tenants) >= MAX_SANDBOXES:
            raise LayerError(Layer.CAPACITY, errno.EAGAIN, f"{MAX_SANDBOXES} sandboxes are running")

    def _start(self, launch: Launch, fds: list[int]) -> Tenant:
        """Clone PID 1 of the new sandbox. The child never comes back from here."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        stage = fds[1] if launch.staged else None
        stdio = () if launch.tty else tuple(fds[-3:])
        making = Making(launch, self._ids, self._filters, theirs, fds[0], stage, stdio)
        try:
            with theirs:
                pid, pidfd = kernel.clone_pidfd(namespaces.SANDBOX_FLAGS)
                if pid == 0:
                    init.run(making, self._builtins)
        except OSError:
            ours.close()
            raise
        ours.setblocking(False)
        return Tenant(launch.id, pid, pidfd, ours)

    def _hear_sandbox(self, tenant: Tenant) -> None:
        for message, terminal in tenant.listen():
            self._send(message, [os.dup(tenant.pidfd), *terminal] if isinstance(message, Launched) else [])
        if tenant.ended_speaking:
            self._unwatch(tenant.status.fileno())

    def _bury(self, tenant: Tenant) -> None:
        """Its pidfd is readable: the whole tree is dead."""
        if tenant.status.fileno() in self._handlers:
            self._hear_sandbox(tenant)
        if tenant.status.fileno() in self._handlers:
            self._unwatch(tenant.status.fileno())
        self._unwatch(tenant.pidfd)
        del self._tenants[tenant.id]
        self._send(tenant.bury(), [])
        self._admit_next_owner()


def _is_variable(name: str, value: str) -> bool:
    return bool(name) and "=" not in name and "\0" not in name + value
