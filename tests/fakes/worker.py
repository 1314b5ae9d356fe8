"""A worker without work: enough to be started, watched, killed and stopped by the real supervisor.

Owns: the behaviours that supervision tests ask for, by the environment variable HOMEOSTAT_FAKE.
Must not know: the gate, the link.
Invariant: without a behaviour it says Ready, notes what it hears in its log, and exits 0 when told to stop.
Source: the contract of workers/nursery.py.

HOMEOSTAT_FAKE holds ``role.index=behaviour`` words: ``crash`` exits with 3 after its Ready, ``raise`` raises
before it, ``fatal`` says Fatal,
``hang`` stays in phase run for ever, ``deaf`` ignores Stop, ``mute`` never says Ready, ``accuse`` asks for
brain.0's death, ``forsaken`` says at its first start that its companion hangs, ``orphan`` leaves a sandbox.
"""

import os
import select
import signal
import socket
import sys
import time
from typing import NoReturn

from homeostat.proto import codec
from homeostat.proto import messages as m
from homeostat.proto.errors import COMPANION_HANGS_EXIT
from homeostat.sandbox import kernel
from homeostat.workers.phase import Phase, PhaseWord

CLONE_NEWUSER, CLONE_NEWPID = 0x1000_0000, 0x2000_0000
BEHAVIOURS = dict(word.split("=") for word in os.environ.get("HOMEOSTAT_FAKE", "").split())


def note(event: str, **fields: object) -> None:
    """Write a line to the log, at once."""
    print(event, *(f"{key}={value}" for key, value in fields.items()), flush=True)


def main(start: m.WorkerStart, fds: dict[str, int]) -> NoReturn:
    """Be a worker."""
    behaviour = BEHAVIOURS.get(f"{start.role}.{start.index}", "")
    control = socket.socket(fileno=fds["control"])
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
    if behaviour == "raise":
        raise KeyError("what nobody foresaw")
    if behaviour == "forsaken" and start.epoch == 1:
        sys.exit(COMPANION_HANGS_EXIT)
    if behaviour == "orphan":
        note("orphan", pid=_leave_orphan())
    if behaviour == "fatal":
        control.send(codec.encode(m.Fatal("journal_newer", "the journal is newer", "Upgrade homeostat.", 7)))
        sys.exit(7)
    if "phase" in fds:
        PhaseWord.attach(fds["phase"]).write(Phase.RUN if behaviour == "hang" else Phase.IDLE)
    if behaviour != "mute":
        control.send(codec.encode(m.Ready()))
    if behaviour == "crash":
        sys.exit(3)
    if behaviour == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _listen(control, behaviour)


def _leave_orphan() -> int:
    """Start a sandbox that does not die with us, but with our supervisor."""
    supervisor = os.pidfd_open(os.getppid())
    pid, _ = kernel.clone_pidfd(CLONE_NEWUSER | CLONE_NEWPID)
    if pid == 0:
        kernel.close_all_but({supervisor})
        select.select([supervisor], [], [])
        os._exit(0)
    return pid


def _listen(control: socket.socket, behaviour: str) -> NoReturn:
    accused = False
    while True:
        data, fds, _, _ = socket.recv_fds(control, codec.CONTROL_LIMIT_BYTES, 4)
        if not data:
            note("hung_up")
            sys.exit(1)
        message = codec.FROM_SUPERVISOR.decode(data)
        if isinstance(message, m.Epochs):
            note(
                "epochs",
                living=",".join(
                    f"{one.role}.{one.index}.{one.epoch}.{one.secret.hex()}" for one in message.workers
                ),
            )
            brains = [one for one in message.workers if one.role == "brain"]
            if behaviour == "accuse" and brains and not accused:
                accused = True
                time.sleep(0.3)
                control.send(codec.encode(m.KillWorker("brain", 0, brains[0].epoch, "silent")))
        elif isinstance(message, m.Stop):
            note("stop", at_ns=time.monotonic_ns())
            if behaviour != "deaf":
                sys.exit(0)
        else:
            note(type(message).__name__.lower(), epoch=message.epoch, fds=len(fds))
