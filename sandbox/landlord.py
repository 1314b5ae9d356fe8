"""Owns: the sandboxes of one zygote: making, arming ahead, giving launches to them, burying them.
Must not know: the sockets of owner and supervisor.
Invariants: never waits for one sandbox; a sandbox serves one launch; what was armed for one owner serves no
    other; an armed one is used only for the very folder that it was armed for. Source: DESIGN §9.
"""

import errno
import functools
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from . import init, mounts, namespaces, protocol, rootfs, vetting, waiting
from .command import Builtin
from .layers import Layer, LayerError
from .namespaces import Ids
from .order import Filters, Kind, Making
from .placement import Placement
from .pool import Pool
from .protocol import Frozen, Launch, Looked, Refused
from .tenant import News, Tenant, refusal

MAX_SANDBOXES: Final = 128
_INSPECT_S: Final = 5.0


class Watches(Protocol):
    """What this needs of the loop."""

    def watch(self, fd: int, handler: Callable[[], None]) -> None:
        """Call when readable."""

    def unwatch(self, fd: int) -> None:
        """No longer."""


@dataclass(frozen=True)
class House:
    """What every sandbox of a zygote is made with; `armed`: so many of a kind are made ahead."""

    ids: Ids
    builtins: Mapping[str, Builtin]
    filters: Filters
    placement: Placement
    armed: int


Tell = Callable[[protocol.ToOwner, list[int]], None]


class Landlord:
    """Lets sandboxes. Everything is keyed by the owner's ids; what is armed has none yet."""

    def __init__(self, loop: Watches, tell: Tell, house: House) -> None:
        self._loop = loop
        self._tell = tell
        self._house = house
        self._pool: Pool[Kind, Tenant] = Pool(house.armed)
        self._tenants: dict[int, Tenant] = {}
        self._living: set[Tenant] = set()
        self._due: list[Tenant] = []
        self._inspect_s = 0.0
        self._blind = False
        self.rusty = False
        """Whether one was armed since somebody set this to False (drill.py)."""

    @property
    def empty(self) -> bool:
        """Whether nothing lives."""
        return not self._living

    # -- what the owner wants ----------------------------------------------------------------------

    def launch(self, launch: Launch, fds: list[int], *, held: bool = False) -> None:
        """Find or make a sandbox for it; it begins with `begin`, so that a Freeze can still come before.

        `held`: the Freeze came while it was another's, and nothing begins before Thaw.
        """
        try:
            self._check(launch, fds)
            tenant = self._let(launch, fds)
        except LayerError as failure:
            self._refuse(refusal(launch.id, failure), fds)
        except OSError as error:
            self._refuse(refusal(launch.id, LayerError.of(Layer.NAMESPACES, error)), fds)
        else:
            tenant.engage(launch, fds)
            tenant.held = tenant.frozen = held
            self._tenants[launch.id] = tenant
            self._due.append(tenant)

    def _refuse(self, refused: Refused, fds: list[int]) -> None:
        protocol.close(fds)
        self._tell(refused, [])

    def begin(self) -> None:
        """Let begin what was launched."""
        while self._due:
            self._due.pop().begin()

    def kill(self, identity: int) -> None:
        """End it; what has ended is left alone."""
        if identity in self._tenants:
            self._tenants[identity].kill()

    def freeze(self, identity: int) -> None:
        """Have it stand still, or not begin."""
        if identity in self._tenants:
            self._report(self._tenants[identity].freeze())

    def thaw(self, identity: int) -> None:
        """Let it go on, or begin."""
        if identity in self._tenants:
            self._tenants[identity].thaw()
            self._due.append(self._tenants[identity])

    def drop(self) -> None:
        """Kill all, and retire what is armed: the next owner gets none of it."""
        self._due.clear()
        for tenant in [*self._pool.drop(), *self._tenants.values()]:
            tenant.kill()

    def _check(self, launch: Launch, fds: Sequence[int]) -> None:
        wrong = vetting.faults(launch, len(fds), self._house.builtins)
        if launch.id in self._tenants:
            wrong.append(f"id {launch.id} is in use")
        if wrong:
            raise LayerError(Layer.REQUEST, errno.EINVAL, "; ".join(wrong))
        if len(self._tenants) >= MAX_SANDBOXES:
            raise LayerError(Layer.CAPACITY, errno.EAGAIN, f"{MAX_SANDBOXES} sandboxes are running")

    # -- finding and making ------------------------------------------------------------------------

    def _let(self, launch: Launch, fds: Sequence[int]) -> Tenant:
        """One that was armed for this folder, or for any, or a new one."""
        place = None if launch.staged else mounts.place_of(fds[0], f"{rootfs.OLD_ROOT}/proc")
        kind = Kind(launch.profile, launch.tty, launch.egress, place)
        now_s = time.monotonic()
        tenant = self._pool.take(kind, now_s)
        if tenant is None and place is not None:
            tenant = self._pool.take(kind._replace(place=None), now_s)
        if tenant is None:
            tenant = self._make(kind, () if place is None else (fds[0],))
        else:
            tenant.was_armed = True
        self._pool.want(kind, now_s)
        return tenant

    def _make(self, kind: Kind, passed: tuple[int, ...] = (), *, ahead: bool = False) -> Tenant:
        """Clone PID 1 of a new sandbox. The child never comes back from here."""
        status, status_there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        request, request_there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        house, group = self._house, None
        try:
            with status_there, request_there:
                group = house.placement.take(kind.profile.limits)
                making = Making(kind, house.ids, house.filters, status_there, request_there, passed,
                                workspace=kind.place, ahead=ahead, group=group)  # fmt: skip
                pid, pidfd = house.placement.clone(namespaces.SANDBOX_FLAGS, group)
                if pid == 0:
                    init.run(making, house.builtins)
        except (OSError, LayerError):
            status.close()
            request.close()
            house.placement.leave(group)
            raise
        house.placement.cloned(group)
        tenant = Tenant(kind, pid, pidfd, status, request, house.placement, group)
        self._move_in(tenant)
        return tenant

    def _move_in(self, tenant: Tenant) -> None:
        self._living.add(tenant)
        protocol.prepare(tenant.status)
        protocol.prepare(tenant.request)
        self._loop.watch(tenant.status.fileno(), functools.partial(self._hear, tenant, tenant.hear_first))
        self._loop.watch(tenant.request.fileno(), functools.partial(self._hear, tenant, tenant.hear_command))
        self._loop.watch(tenant.pidfd, functools.partial(self._bury, tenant))

    # -- what sandboxes say ------------------------------------------------------------------------

    def _hear(self, tenant: Tenant, listen: Callable[[], list[News]]) -> None:
        self._report(listen())
        for sock in tenant.silent:
            if sock.fileno() >= 0:
                self._loop.unwatch(sock.fileno())  # before it is closed: our children hold copies of it
                sock.close()
        if tenant.over:
            self._tenants.pop(tenant.id, None)
        elif tenant.id:
            tenant.begin()
        elif tenant.ready:
            self._pool.armed(tenant)
            self.rusty = True

    def hear_all(self, tenant: Tenant) -> None:
        """Take in all that it has said."""
        self._hear(tenant, tenant.hear_first)
        self._hear(tenant, tenant.hear_command)

    def show(self, tenant: Tenant) -> None:
        """Have one that is being armed."""
        self._pool.want(tenant.kind, time.monotonic())
        self._pool.put(tenant.kind, tenant)
        self._move_in(tenant)

    def _report(self, news: list[News]) -> None:
        for message, fds in news:
            self._tell(message, fds)

    def _bury(self, tenant: Tenant) -> None:
        """Its pidfd is readable: the whole tree is dead."""
        self.hear_all(tenant)
        for sock in (tenant.status, tenant.request):
            if sock.fileno() >= 0:
                self._loop.unwatch(sock.fileno())
        self._loop.unwatch(tenant.pidfd)
        self._living.remove(tenant)
        self._tenants.pop(tenant.id, None)
        again = tenant.release() if tenant.unheard else None
        end, reason = tenant.bury()
        if end is not None:
            self._tell(end, [])
        tenant.leave()
        if self._pool.lost(tenant, time.monotonic()):
            print(f"zygote: an armed sandbox died: {reason}", file=sys.stderr, flush=True)
        if again is not None:
            self._launch_again(tenant, *again)

    def _launch_again(self, former: Tenant, launch: Launch, fds: list[int]) -> None:
        """What was to stand still in one that died unheard stands still in another, and that is said once."""
        self.launch(launch, fds, held=former.frozen)
        if former.owes_frozen and launch.id in self._tenants:
            self._tell(Frozen(launch.id), [])
        self.begin()

    # -- arming ------------------------------------------------------------------------------------

    def tend(self) -> float | None:
        """Retire and arm what is due; gives after how many seconds there may be something again."""
        now_s = time.monotonic()
        plan = self._pool.plan(now_s, busy=any(not one.launched for one in self._tenants.values()))
        for tenant in plan.retire + self._inspect(now_s):
            tenant.kill()
        if plan.arm is not None:
            try:
                self._pool.put(plan.arm, self._make(plan.arm, ahead=True))
            except (LayerError, OSError) as error:
                print(f"zygote: no sandbox can be armed: {error}", file=sys.stderr, flush=True)
                self._pool.failed(plan.arm, now_s)
        wait_s = self._pool.wait_s(now_s)
        if wait_s is None or not any(kind.place for kind in self._pool.members.values()):
            return wait_s
        return min(wait_s, max(self._inspect_s - now_s, 0.0))

    def _inspect(self, now_s: float) -> list[Tenant]:
        """Those whose workspace has gone or was replaced: they would keep it alive."""
        if now_s < self._inspect_s:
            return []
        self._inspect_s = now_s + _INSPECT_S
        places = {kind: kind.place for kind in self._pool.members.values() if kind.place is not None}
        gone = [kind for kind, place in places.items() if not mounts.is_there(place)]
        return [tenant for kind in gone for tenant in self._pool.drop(kind)]

    # -- looking -----------------------------------------------------------------------------------

    def look(self, identity: int) -> None:
        """Say what the command on the terminal is at; that we may not look is said in the log once."""
        tenant = self._tenants.get(identity)
        if tenant is None or not tenant.launched:
            return
        if tenant.observer is None:
            tenant.observer = waiting.Observer(f"{rootfs.OLD_ROOT}/proc", tenant.pid)
        state: Literal["waiting", "maybe", "busy", "unseen"] = "unseen"
        try:
            state = tenant.observer.look()
        except waiting.BlindError as error:
            if not self._blind:
                print(f"zygote: can't see who waits for input: {error}", file=sys.stderr, flush=True)
            self._blind = True
        self._tell(Looked(identity, state), [])
