"""A worker without work: enough to be started, watched, killed and stopped by the real supervisor.

Owns: the behaviours that supervision tests ask for, by the environment variable HOMEOSTAT_FAKE.
Must not know: the gate, the link.
Invariant: without a behaviour it says Ready, notes what it hears in its log, and exits 0 when told to stop.
Source: the contract of workers/nursery.py.

HOMEOSTAT_FAKE holds ``role.index=behaviour`` words: ``crash`` exits with 3 after its Ready, ``raise`` raises
before it, ``fatal`` says Fatal,
``hang`` stays in phase run for ever, ``deaf`` ignores Stop, ``mute`` never says Ready, ``accuse`` asks for
brain.0's death, ``forsaken`` says at its first start that its companion hangs, ``orphan`` leaves a sandbox,
``leak`` and ``bloat`` hold many descriptors and much memory in their first incarnation; a gate that is
``stubborn`` never calls anybody drained. ``vanish`` exits with 0 before its Ready, ``poisoned`` crashes with
a subject at hand; ``changeling`` and ``foundling`` let another process say Ready in their place, ``parent``
has a child of its own. How loops hang is in tests/fakes/hanging.py. A gate that is ``complaining`` says of
brain.0 that it leaves its mail unread, a ``thorough`` one has put aside what it is told of poison.

SIGUSR1 makes any of them exit with 0, SIGRTMIN with 3.
"""

import contextlib
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn

import prctl

from homeostat.proto import codec, messages as m
from homeostat.proto.config import Config
from homeostat.proto.errors import COMPANION_HANGS_EXIT
from homeostat.sandbox import kernel
from homeostat.workers import tracing
from homeostat.workers.phase import Phase, PhaseWord
from tests.fakes import hanging

CLONE_NEWUSER, CLONE_NEWPID = 0x1000_0000, 0x2000_0000
BLOAT_BYTES = 128 << 20
SUBJECT = "propose t-1 1"
BEHAVIOURS = dict(word.split("=") for word in os.environ.get("HOMEOSTAT_FAKE", "").split())


def note(event: str, **fields: object) -> None:
    """Write a line to the log, at once."""
    print(event, *(f"{key}={value}" for key, value in fields.items()), flush=True)


def arm(_park: m.Park, _settings: Config) -> Callable[[m.WorkerStart, dict[str, int]], NoReturn]:
    """Give up nothing, and wait."""
    return main


def main(start: m.WorkerStart, fds: dict[str, int]) -> NoReturn:
    """Be a worker."""
    behaviour = BEHAVIOURS.get(f"{start.role}.{start.index}", "")
    control = socket.socket(fileno=fds["control"])
    signal.signal(signal.SIGUSR1, lambda _number, _frame: os._exit(0))
    signal.signal(signal.SIGRTMIN, lambda _number, _frame: os._exit(3))
    note(
        "start",
        epoch=start.epoch,
        secret=start.secret.hex(),
        pid=os.getpid(),
        ppid=os.getppid(),
        uid=os.getuid(),
        key=os.environ.get("FAKE_KEY"),
        fds=",".join(sorted(fds)),
        open=",".join(sorted(os.listdir("/proc/self/fd"), key=int)),
    )
    tracing.enable(fds)  # SIGUSR2 asks for stacks, as of every worker.
    _before_ready(behaviour, control, start.epoch)
    held = _take(behaviour) if start.epoch == 1 else None
    note("holds", bytes=0 if held is None else len(held))
    word = PhaseWord.attach(fds) if "phase" in fds else None
    if word is not None:
        word.write(Phase.RUN if behaviour == "hang" else Phase.IDLE)
    if behaviour not in ("mute", "changeling", "foundling"):
        control.send(codec.encode(m.Ready()))
    _after_ready(behaviour, control, word)
    _listen(control, behaviour, word)


def _before_ready(behaviour: str, control: socket.socket, epoch: int) -> None:
    """What goes wrong, or is taken too much of, at a start."""
    if behaviour == "raise":
        raise KeyError("what nobody foresaw")
    if behaviour == "forsaken" and epoch == 1:
        sys.exit(COMPANION_HANGS_EXIT)
    if behaviour == "orphan":
        note("orphan", pid=_leave_orphan())
    if behaviour == "fatal":
        control.send(codec.encode(m.Fatal("journal_newer", "the journal is newer", "Upgrade homeostat.", 7)))
        sys.exit(7)
    if behaviour == "vanish":
        sys.exit(0)
    if behaviour in ("changeling", "foundling"):
        _let_another_say_ready(control, behaviour, epoch)


def _after_ready(behaviour: str, control: socket.socket, word: PhaseWord | None) -> None:
    """What goes wrong while it serves."""
    if behaviour == "crash":
        sys.exit(3)
    if behaviour == "parent":
        note("child", pid=_have_child())
    if word is not None and behaviour == "poisoned":
        word.write(Phase.RUN)
        word.subject(SUBJECT)
        sys.exit(3)
    if word is not None and behaviour in hanging.BEHAVIOURS:
        hanging.BEHAVIOURS[behaviour](word, control)
    if behaviour == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _let_another_say_ready(control: socket.socket, behaviour: str, epoch: int) -> None:
    """A process that is not the worker says it: while that lives, or when it is dead and has a successor."""
    if behaviour == "foundling" and epoch > 1:
        return
    if os.fork() != 0:
        if behaviour == "foundling":
            sys.exit(3)
        return
    if behaviour == "foundling":
        signal.alarm(60)
        time.sleep(0.5)
    with contextlib.suppress(OSError):
        control.send(codec.encode(m.Ready()))
    note("said", epoch=epoch)
    os._exit(0)


def _have_child() -> int:
    """A process below a worker, as a sandbox is; it ends with the worker or on its own."""
    pid = os.fork()
    if pid == 0:
        prctl.set_pdeathsig(signal.SIGKILL)
        signal.alarm(60)
        signal.pause()
        os._exit(0)
    return pid


def _take(behaviour: str) -> bytearray | None:
    """Take too much of something."""
    if behaviour == "leak":
        for _ in range(80):
            os.open("/dev/null", os.O_RDONLY)
    return bytearray(b"x") * BLOAT_BYTES if behaviour == "bloat" else None


def _leave_orphan() -> int:
    """Start a sandbox that does not die with us, but with our supervisor."""
    supervisor = os.pidfd_open(os.getppid())
    pid, _ = kernel.clone_pidfd(CLONE_NEWUSER | CLONE_NEWPID)
    if pid == 0:
        kernel.close_all_but({supervisor})
        select.select([supervisor], [], [])
        os._exit(0)
    return pid


def _listen(control: socket.socket, behaviour: str, word: PhaseWord | None) -> NoReturn:
    while True:
        if word is not None and behaviour != "hang":
            word.write(Phase.IDLE)
        data, fds, _, _ = socket.recv_fds(control, codec.CONTROL_LIMIT_BYTES, 4)
        if word is not None and behaviour != "hang":
            word.write(Phase.WORK)
        if not data:
            note("hung_up")
            sys.exit(1)
        _take_in(codec.FROM_SUPERVISOR.decode(data), len(fds), control, behaviour)


def _take_in(message: Any, fds: int, control: socket.socket, behaviour: str) -> None:
    """Note it and do what it asks for."""
    if isinstance(message, m.Epochs):
        note(
            "epochs",
            living=",".join(
                f"{one.role}.{one.index}.{one.epoch}.{one.secret.hex()}" for one in message.workers
            ),
        )
        _complain(control, behaviour, message)
    elif isinstance(message, m.Stop):
        note("stop", at_ns=time.monotonic_ns())
        if behaviour != "deaf":
            sys.exit(0)
    elif isinstance(message, m.Drain):
        worker = f"{message.role}.{message.index}"
        note("drain", worker=worker, epoch=message.epoch, on=message.on)
        if message.on and behaviour != "stubborn":
            control.send(codec.encode(m.Drained(message.role, message.index, message.epoch)))
    elif isinstance(message, m.Poison):
        note("poison", subject=repr(message.subject), worker=message.worker, crashes=message.crashes)
        if behaviour == "thorough":
            control.send(codec.encode(m.Quarantined(message.subject)))
    else:
        note(type(message).__name__.lower(), epoch=getattr(message, "epoch", None), fds=fds)


def _complain(control: socket.socket, behaviour: str, told: m.Epochs) -> None:
    """Say of the first brain that it is silent: the first one ever, or of each one."""
    brains = [one for one in told.workers if one.role == "brain"]
    if behaviour == "accuse" and brains and brains[0].epoch == 1:
        time.sleep(0.3)
        control.send(codec.encode(m.KillWorker("brain", 0, 1, "silent")))
    if behaviour == "complaining" and brains:
        time.sleep(0.3)
        control.send(codec.encode(m.Unanswered("brain", 0, brains[0].epoch)))
