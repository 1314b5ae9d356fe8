"""Workers that get nothing new, and the calls that wait for one of them.

Owns: which incarnations are being drained, and since when a call waits.
Must not know: tasks, sockets, clocks; why anybody is drained.
Invariant: it holds for one incarnation alone: a new one gets work again, whatever was said of the former.
Source: DESIGN §7 (drain and recycle).
"""

from __future__ import annotations

Place = tuple[str, int]
"""Role and index of a worker."""


class Held:
    """In memory only: the supervisor says it again to a new gate."""

    def __init__(self) -> None:
        self._epochs: dict[Place, int] = {}
        self._told: set[Place] = set()
        self._since_ns: dict[str, int] = {}
        self.away: set[str] = set()
        """Keys of open calls at another executor than that of their workspace."""

    def begin(self, place: Place, epoch: int) -> None:
        """Give this incarnation nothing new. Said again, it is answered again."""
        self._epochs[place] = epoch
        self._told.discard(place)

    def end(self, place: Place, epoch: int) -> bool:
        """Give it work again; false if it is not this incarnation that was held."""
        if self._epochs.get(place) != epoch:
            return False
        self._forget(place)
        return True

    def came(self, place: Place, epoch: int) -> None:
        """A worker said hello: of a new incarnation nobody has said anything."""
        if self._epochs.get(place, epoch) != epoch:
            self._forget(place)

    def _forget(self, place: Place) -> None:
        del self._epochs[place]
        self._told.discard(place)

    def holds(self, role: str, index: int) -> bool:
        """Whether this worker gets nothing new."""
        return bool(self._epochs) and (role, index) in self._epochs

    @property
    def executors(self) -> bool:
        """Whether any executor gets nothing new."""
        return any(role == "executor" for role, _ in self._epochs)

    def unanswered(self) -> list[tuple[Place, int]]:
        """Who is held, with its epoch, and has not been called drained yet."""
        return [(place, epoch) for place, epoch in self._epochs.items() if place not in self._told]

    def told(self, place: Place) -> None:
        """It was called drained."""
        self._told.add(place)

    # -- calls -----------------------------------------------------------------------------------------
    def hold(self, key: str, now_ns: int) -> None:
        """This call waits until its worker takes work again."""
        self._since_ns.setdefault(key, now_ns)

    def waits(self, key: str) -> bool:
        """Whether this call was not handed out yet."""
        return bool(self._since_ns) and key in self._since_ns

    def release(self, key: str, now_ns: int) -> int:
        """Wait no longer; give for how many nanoseconds it did."""
        since = self._since_ns.pop(key, now_ns)
        return max(0, now_ns - since)
