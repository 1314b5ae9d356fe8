"""Feeding those who read the journal: followers in batches, watchers as soon as there is news.

Owns: when each was fed last. Must not know: what they do with it.
Invariant: what is fed is on disk.
Source: DESIGN §5 ``Follow(position)``, §13 (watching is a cursor).
"""

from __future__ import annotations

from typing import Any

from ...proto import messages as m
from .core import GateCore
from .followers import BATCH_BYTES, BATCH_RECORDS, Followers
from .journal.store import Store
from .peers import Peers
from .requests import Requests
from .state import decode_head

FOLLOW_EVERY_S = 0.05
WATCH_EVERY_S = 0.02


class Feeder:
    """Between the journal and its readers."""

    def __init__(self, store: Store, core: GateCore, peers: Peers, requests: Requests) -> None:
        self.followers = Followers()
        self._store, self._core, self._peers, self._requests = store, core, peers, requests
        self._followed_s = self._watched_s = 0.0
        self._fed_position = 0

    def due(self) -> float | None:
        """When somebody is to be fed."""
        last = self._store.last_position
        dues = []
        if self.followers.hungry(last):
            dues.append(self._followed_s + FOLLOW_EVERY_S)
        if self._requests.watching and self._fed_position < last:
            dues.append(self._watched_s + WATCH_EVERY_S)
        return min(dues) if dues else None

    def feed(self, now_s: float) -> None:
        """Give all who are due what is new."""
        last = self._store.last_position
        wait_over = (due := self._requests.next_due()) is not None and due <= now_s
        if self._requests.watching and (
            wait_over or (self._fed_position < last and now_s - self._watched_s >= WATCH_EVERY_S)
        ):
            self._watched_s, self._fed_position = now_s, last
            self._requests.feed_watches(now_s)
        if now_s - self._followed_s >= FOLLOW_EVERY_S:
            self._feed_followers(last, now_s)

    def _feed_followers(self, last: int, now_s: float) -> None:
        for follower in self.followers.hungry(last):
            self._followed_s = now_s
            found = self._store.scan(follower.sent + 1, BATCH_RECORDS, BATCH_BYTES)
            records = tuple(
                m.JournalRecord(one.position, self._task_id(one.task_no), one.seq, one.payload)
                for one in found
            )
            follower.sent = found[-1].position
            self._peers.post(follower.role, follower.index, m.Records(records))
        self._peers.flush(now_s)

    def _task_id(self, number: int) -> Any:
        if number == 0:
            return ""
        task = self._core.tasks.get(number)
        if task is not None:
            return task.id
        head = self._store.head(number)
        return decode_head(head).id if head is not None else ""
