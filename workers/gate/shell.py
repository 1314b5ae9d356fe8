"""The gate's loop: drain, decide, send what may leave, write and sync once, send the rest.

Owns: the sockets, the journal's one writer, the clock. Must not know: what makes a call admissible
    (pipeline/).
Invariant: nothing that an effect or a client depends on leaves before the sync of the records that it rests
    on.
Source: DESIGN §4 "Group commit"; the linger is PostgreSQL's commit_delay, taken only while a brain is known
    to be quick.
"""

from __future__ import annotations

import os
import sys
import time
from hashlib import sha256
from typing import Any

import msgspec
import zmq

from ... import __version__
from ...proto import messages as m, records as r
from ...proto.codec import LINK_LIMIT_BYTES
from ...proto.config import to_bytes
from ...proto.errors import ConfigError, HomeostatError
from ...proto.subjects import subject_of, tend_subject
from ...proto.transport import Waiter, router
from ..metrics import Metrics
from ..phase import BULKY_BYTES, Phase, PhaseWord
from ..runtime import Context, Supervised
from ..slack import Rest
from .assignment import assignment
from .clients import ClientPort
from .core import GateCore
from .counting import Counting
from .effects import Round
from .feeder import Feeder
from .hearing import Hearing
from .journal.fence import Fence
from .journal.store import Store
from .law import pipeline_of
from .letters import Letters, letters_path
from .linger import Linger
from .peers import Peers
from .requests import Requests
from .state import Task, decode_head, encode_task
from .ward import Ward

AUDITED = (
    r.Accepted,
    r.Decided,
    r.Outcome,
    r.StatusChanged,
    r.CancelRequested,
    r.DoubtResolved,
    r.GateStarted,
    r.Quarantined,
    r.Frozen,
    r.Thawed,
    r.Connected,
    r.TerminalTaken,
    r.Rewound,
)
"""Records whose hash is a leaf of the audit tree: admissions, decisions, effects, endings, configuration."""
OPEN = b"open:"
"""Keys that name the open tasks, so that a start reads no other heads."""
ASIDE = b"aside:"
"""Keys that name what is put aside (quarantine.py)."""
COUNTS = b"ended_by_status"
FROZEN = b"frozen"
LAZY_MESSAGES = 4


class Gate:
    """The gate's process."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.supervised = Supervised(context.control)
        first_words = self.supervised.hear()  # What is poison must be known before anything is resumed.
        self.phase = PhaseWord.attach(context.fds)
        self.counting = Counting(Metrics(context.home, context.role, context.index))
        self.letters = Letters(letters_path(context.home))
        self.letters.counted = self.counting.letter
        self.store = Store.open(context.home / "journal", map_size=context.config.journal.map_bytes)
        self._fence = Fence(context.epoch)
        pipeline = pipeline_of(context.config)
        self.core = GateCore(context.config, pipeline, f"{context.home_name}/workspaces")
        self.core.observed, self.core.at_hand = self.counting.observed, self.phase.subject
        self.ward = Ward(self.core, self.letters)
        self._load(pipeline.policies.version)
        self.zmq = context.zmq
        places = self.core.places()
        self.peers = Peers(router_of_workers(self.zmq, context), context.epoch, self.letters, places)
        self.peers.aside = self.core.aside
        self.clients = ClientPort(
            self.zmq,
            context.fds["client"],
            context.fds.get("client_tcp"),
            context.home / "keys",
            context.config.client.authorized_keys,
            self.letters,
        )
        self.requests = Requests(self.core, self.store, self.peers, str(context.home), self.letters)
        self.requests.counted = self.counting.request
        self.requests.totals = self.counting.totals
        self.requests.long = lambda: self.phase.at(Phase.WORK)
        self.feeder = Feeder(self.store, self.core, self.peers, self.requests)
        self.linger = Linger()
        self.hearing = Hearing(self.core, self.requests, self.feeder.followers, self.linger, self.ward)
        self.rest = Rest()
        self._lazy = 0
        """Messages that were posted and not yet sent, since nobody waits for them."""
        self._stop_at_s: float | None = None
        self.poller = zmq.Poller()
        self.waiter = Waiter(self.poller)
        for sock in (self.peers.socket, *self.clients.sockets):
            self.poller.register(sock, zmq.POLLIN)
        self.poller.register(self.supervised.socket.fileno(), zmq.POLLIN)
        self._take_control(first_words, time.monotonic())

    def _load(self, policy_version: str) -> None:
        """Take over the state on disk, and record that this gate began."""
        core, store = self.core, self.store
        core.next_task_no = store.next_task_no
        core.system_seq = store.next_seq(0) or 0
        if (counts := store.get_meta(COUNTS)) is not None:
            core.counts = msgspec.msgpack.decode(counts, type=dict[str, int])
        core.restore_freezes(store.get_meta(FROZEN))
        for key, value in store.items("keys", ASIDE):
            if not key.startswith(ASIDE):
                break
            core.restore_aside(value)
        for key, _ in store.items("keys", OPEN):
            if not key.startswith(OPEN):
                break
            head = decode_head(store.head(int.from_bytes(key[len(OPEN) :], "big")) or b"")
            if isinstance(head, Task):
                core.restore(head)
        if (orphaned := core.orphaned()) is not None:
            wanted = core.config.workers.executors
            raise ConfigError(
                f"workers.executors = {wanted}, but calls are open at executor {orphaned}",
                field="workers.executors",
                expected=f"at least {orphaned + 1}",
                remedy="Only its ledger knows what became of them: start with it until they have ended.",
            )
        config = r.GateStarted(
            time.time_ns(), self.context.epoch, __version__, policy_version, _digest(self.context)
        )
        core.record_system(config)

    # -- the loop --------------------------------------------------------------------------------------
    def run(self) -> None:
        """Serve until stopped."""
        if self.ward.owes:
            self._commit()  # What is poison is put aside for good before anybody is served.
        # That we began is written with the first round: nothing is answered or done before its sync.
        self.requests.ready = True
        self.supervised.say(m.Ready(self.context.enforced))
        while True:
            if self._stop_at_s is not None and (not self.core.owes or time.monotonic() >= self._stop_at_s):
                break
            if self._lazy and self.core.round.empty() and not self.core.owes:
                self._send_all()
            timeout = self._timeout_ms()
            self.counting.write(idle=timeout != 0)
            self.phase.subject("")
            if timeout != 0:
                self.phase.write(Phase.IDLE)
            events = self.waiter.poll(timeout)
            self.phase.write(Phase.RUN)
            self._read(dict(events))
            self._push()
            if self.linger.worth_it() and self._nobody_waits():
                self._read(dict(self.poller.poll(1)))
                self._push()
            self._commit()
        self._commit()

    def _nobody_waits(self) -> bool:
        """Neither an effect nor a client waits for the sync: only words that an outcome may be forgotten."""
        if self.core.owes or self.requests.owes:
            return False
        return all(isinstance(message, m.Forget) for _, _, message in self.core.round.after)

    def _timeout_ms(self) -> int | None:
        if self.core.owes or not self.core.round.empty():
            return 0
        now_s = time.monotonic()
        dues = [
            due
            for due in (
                self.peers.due(),
                self.requests.next_due(),
                self.requests.hands_on.asking.due_s(),
                self.feeder.due(),
                self.clients.late.due(now_s),
                self.rest.due_s,
            )
            if due is not None
        ]
        if (deadline := self.core.next_deadline_ns()) is not None:
            dues.append(now_s + (deadline - time.time_ns()) / 1e9)
        if self._stop_at_s is not None:
            dues.append(self._stop_at_s)
        if not dues:
            return None
        return max(0, min(60_000, int((min(dues) - now_s) * 1000) + 1))

    def _read(self, ready: dict[Any, int]) -> None:
        now_s, now_ns = time.monotonic(), time.time_ns()
        if self.supervised.socket.fileno() in ready:
            self._take_control(self.supervised.hear(), now_s)
        for peer, message in self.peers.receive(now_s):
            subject = subject_of(message)
            self.phase.subject(subject)
            if not self.ward.turns_away(peer, message, subject):
                self.hearing.take(peer, message, now_ns)
        self.rest.take(now_s)
        self.clients.late.retry()
        for sender, data in self.clients.receive():
            with self.phase.at(Phase.WORK if len(data) > BULKY_BYTES else Phase.RUN):
                self.requests.take(sender, data.bytes, now_ns, now_s)
        self.phase.subject("")  # Timers say for themselves whose they are.
        self.core.on_time(now_ns)
        self.requests.hands_on.asking.expire(now_s)

    def _take_control(self, messages: list[Any], now_s: float) -> None:
        for message in messages:
            if isinstance(message, m.Epochs):
                self.peers.allow(message)
            elif isinstance(message, m.Drain):
                self.core.on_drain(message, time.time_ns())
            elif isinstance(message, m.Poison):
                self.ward.take(message, time.time_ns())
            elif isinstance(message, m.Stop):
                self._stop_at_s = now_s + message.deadline_s

    # -- leaving ---------------------------------------------------------------------------------------
    def _push(self) -> None:
        """Send what needn't wait for the disk. Observes that no brain waits for go in batches."""
        core_round = self.core.round
        now, core_round.now = core_round.now, []
        urgent, core_round.urgent = core_round.urgent, False
        for role, index, message in now:
            if not isinstance(message, m.Observe):
                urgent = True
            elif urgent:
                self.linger.asked(message.task)
            self.peers.post(role, index, message)
        self._lazy += len(now)
        if now and (urgent or self._lazy >= LAZY_MESSAGES):
            self._send_all()

    def _send_all(self) -> None:
        self._lazy = 0
        self.peers.flush(time.monotonic())

    def _commit(self) -> None:
        """Write and sync the round; then send what waited for it, and carry out the gate's own calls."""
        self.phase.subject("")  # From here on it is no single message's doing.
        done = self.core.take_round()
        if not done.empty():
            self.phase.write(Phase.SYNC)
            self._write(done)
            self.phase.write(Phase.RUN)
        now_s = time.monotonic()
        for quarantined in self.ward.confirmed():
            self.supervised.say(quarantined)
        for item in done.assign:
            if self.core.tasks.get(item.task.no) is item.task:
                self.phase.subject(tend_subject(item.task.id))
                with self.phase.at(Phase.WORK):  # All that is recorded of it is read.
                    for message in assignment(self.store, self.core, item.task):
                        self.peers.post("brain", item.brain, message)
        for role, index, message in done.after:
            if not self.peers.post(role, index, message) and isinstance(message, m.Execute):
                self.core.unsent(message)
        self.peers.acknowledge(now_s)
        self._complain(done)
        self.requests.flush()
        if self.core.owes:
            self.core.committed(time.time_ns())
            self._push()
        if not self._lazy or done.after or done.assign:
            self._send_all()
        for drained in self.core.take_drained():
            self.supervised.say(drained)
        with self.phase.at(Phase.WORK):  # Up to some megabytes for each who reads the journal.
            self.feeder.feed(now_s)

    def _complain(self, done: Round) -> None:
        """Tell the supervisor of workers that don't do what they should."""
        for kill in done.kills:
            self._kill(kill)
        for peer in self.peers.take_stuck():
            self.supervised.say(m.KillWorker(peer.role, peer.index, peer.epoch, "its mailbox is full"))
        for peer in self.peers.take_silent():
            self.supervised.say(m.Unanswered(peer.role, peer.index, peer.epoch))

    def _write(self, done: Round) -> None:
        began = time.perf_counter()
        with self.store.begin() as batch:
            batch.fence = self._fence
            for number, task_id in done.new_tasks:
                if batch.new_task(task_id) != number:
                    raise AssertionError("the journal counts tasks otherwise than the core")
                batch.put_key(OPEN + number.to_bytes(8, "big"), b"")
            for item in done.records:
                batch.append(
                    item.task_no,
                    item.seq,
                    r.encode_record(item.record),
                    audit=isinstance(item.record, AUDITED),
                )
            for number, task in done.heads.items():
                batch.put_head(number, encode_task(task))
            for number, summary in done.ended.items():
                batch.put_head(number, summary)
                batch.delete_key(OPEN + number.to_bytes(8, "big"))
            if done.frozen is not None:
                batch.put_meta(FROZEN, done.frozen)
            if done.ended:
                batch.put_meta(COUNTS, msgspec.msgpack.encode(self.core.counts))
            for name, aside in done.aside.items():
                batch.delete_key(ASIDE + name) if aside is None else batch.put_key(ASIDE + name, aside)
            for key, number in done.submissions:
                batch.put_key(key, number.to_bytes(8, "big"))
            batch.commit()
        self.counting.committed(time.perf_counter() - began, len(done.records))
        self.rest.worked(time.monotonic())

    def _kill(self, kill: m.KillWorker) -> None:
        epoch = self.peers.epoch_of(kill.role, kill.index)
        if epoch is not None:
            self.supervised.say(m.KillWorker(kill.role, kill.index, epoch, kill.reason))


def router_of_workers(context: zmq.Context[Any], worker: Context) -> zmq.Socket[bytes]:
    """The socket to which workers connect. An identity is its first owner's: another has shown no secret."""
    return router(context, worker.fds["gate"], LINK_LIMIT_BYTES, handover=False)


def _digest(context: Context) -> str:
    return sha256(to_bytes(context.config)).hexdigest()


def main(context: Context) -> None:
    """Run the gate's process until it is stopped."""
    try:
        gate = Gate(context)
        gate.run()
    except HomeostatError as error:
        Supervised(context.control).fatal(error)
        sys.exit(error.exit_code)
    gate.store.close()
    os._exit(0)
