"""Owns: which armed sandboxes there should be: what to arm next, when, what to retire. Decides; does nothing.
Must not know: processes, sockets, clocks; what a kind or a member is.
Invariants: never more than `per_kind` of a kind or `most` in all; never while launches are going on (a burst
    beyond the pool is made cold); a kind whose members die is armed again after a pause that doubles; a kind
    that nobody asks for is forgotten, its members retired. Source: DESIGN §9; ADR 0017.
"""

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Final, Generic, NamedTuple, TypeVar

MOST: Final = 8
REST_S: Final = 0.02
"""So long after a launch nothing is armed: the processor is the command's, and we listen for its end."""
IDLE_S: Final = 180.0
"""A kind that was not asked for so long is forgotten: it holds memory, and its workspace."""
FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 60.0

K = TypeVar("K", bound=Hashable)
M = TypeVar("M", bound=Hashable)


class Plan(NamedTuple, Generic[K, M]):
    """What to do now: retire these, and arm one of this kind."""

    retire: list[M]
    arm: K | None


@dataclass
class _Shelf(Generic[M]):
    used_s: float
    members: list[M] = field(default_factory=list)
    failures: int = 0
    not_before_s: float = 0.0


class Pool(Generic[K, M]):
    """The books of the armed ones. All times are of one clock that only goes forward, in seconds."""

    def __init__(self, per_kind: int, most: int = MOST) -> None:
        self._per_kind = min(per_kind, most)
        self._most = most
        self._shelves: dict[K, _Shelf[M]] = {}
        self._arming: set[M] = set()
        self._launched_s = float("-inf")

    @property
    def members(self) -> dict[M, K]:
        """All that are armed or being armed."""
        return {member: kind for kind, shelf in self._shelves.items() for member in shelf.members}

    def take(self, kind: K, now_s: float) -> M | None:
        """One of this kind for a launch, the oldest; one that is still being armed is better than none."""
        self._launched_s = now_s
        shelf = self._shelves.get(kind)
        if shelf is None or not shelf.members:
            return None
        ready = [member for member in shelf.members if member not in self._arming]
        member = (ready or shelf.members)[0]
        self._forget(shelf, member)
        return member

    def want(self, kind: K, now_s: float) -> None:
        """A launch of this kind was asked for, so others may follow."""
        if self._per_kind:
            self._shelves.setdefault(kind, _Shelf(now_s)).used_s = now_s

    def put(self, kind: K, member: M) -> None:
        """The arming that was planned has begun; this is what will be armed."""
        self._shelves[kind].members.append(member)
        self._arming.add(member)

    def armed(self, member: M) -> None:
        """It waits for its request."""
        self._arming.discard(member)
        if (shelf := self._shelf_of(member)) is not None:
            shelf.failures = 0

    def lost(self, member: M, now_s: float) -> bool:
        """It died; whether it was one of ours."""
        shelf = self._shelf_of(member)
        if shelf is None:
            return False
        self._forget(shelf, member)
        self._fail(shelf, now_s)
        return True

    def failed(self, kind: K, now_s: float) -> None:
        """The arming that was planned could not begin."""
        self._fail(self._shelves[kind], now_s)

    def drop(self, kind: K | None = None) -> list[M]:
        """Forget this kind, or all: its members are to be retired."""
        kinds = [*self._shelves] if kind is None else [kind]
        gone = [member for one in kinds for member in self._shelves.pop(one, _Shelf[M](0.0)).members]
        self._arming.difference_update(gone)
        return gone

    def plan(self, now_s: float, *, busy: bool) -> Plan[K, M]:
        """What is due. `busy`: launches are on their way."""
        retire = [
            member
            for kind, shelf in [*self._shelves.items()]
            if now_s - shelf.used_s >= IDLE_S
            for member in self.drop(kind)
        ]
        if busy or self._arming or now_s < self._launched_s + REST_S:
            return Plan(retire, None)
        kind = next((kind for kind in self._short() if self._shelves[kind].not_before_s <= now_s), None)
        if kind is not None and len(self.members) >= self._most:
            kind = self._make_room(kind, retire)
        return Plan(retire, kind)

    def wait_s(self, now_s: float) -> float | None:
        """When to ask again, if nothing happens before; None: never."""
        due = [shelf.used_s + IDLE_S for shelf in self._shelves.values()]
        if not self._arming:
            rested = self._launched_s + REST_S
            due += [max(rested, self._shelves[kind].not_before_s) for kind in self._short()]
        return max(min(due) - now_s, 0.0) if due else None

    def _short(self) -> list[K]:
        """Kinds with too few, of whom there is or can be room, the latest asked for first."""
        room = len(self.members) < self._most
        kinds = [kind for kind, shelf in self._shelves.items() if len(shelf.members) < self._per_kind]
        kinds.sort(key=lambda kind: -self._shelves[kind].used_s)
        return [kind for kind in kinds if room or self._victim(kind) is not None]

    def _victim(self, kind: K) -> K | None:
        """The kind that has been idle the longest, if longer than this one."""
        others = [other for other, shelf in self._shelves.items() if shelf.members]
        last = min(others, key=lambda other: self._shelves[other].used_s, default=None)
        if last is None or self._shelves[last].used_s >= self._shelves[kind].used_s:
            return None
        return last

    def _make_room(self, kind: K, retire: list[M]) -> K | None:
        victim = self._victim(kind)
        if victim is None:
            return None
        shelf = self._shelves[victim]
        retire.append(shelf.members[0])
        self._forget(shelf, shelf.members[0])
        return kind

    def _shelf_of(self, member: M) -> _Shelf[M] | None:
        return next((shelf for shelf in self._shelves.values() if member in shelf.members), None)

    def _forget(self, shelf: _Shelf[M], member: M) -> None:
        shelf.members.remove(member)
        self._arming.discard(member)

    def _fail(self, shelf: _Shelf[M], now_s: float) -> None:
        shelf.not_before_s = now_s + min(FIRST_PAUSE_S * 2**shelf.failures, LONGEST_PAUSE_S)
        shelf.failures = min(shelf.failures + 1, 16)
