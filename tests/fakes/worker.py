"""A worker without work: enough to be started, watched, killed and stopped by the real supervisor.

Owns: the behaviours that supervision tests ask for, by the environment variable HOMEOSTAT_FAKE.
Must not know: the gate, the link.
Invariant: without a behaviour it says Ready, notes what it hears in its log, and exits 0 when told to stop.
Source: the contract of workers/nursery.py.

HOMEOSTAT_FAKE holds ``role.index=behaviour`` words: ``crash`` exits with 3 at once, ``fatal`` says Fatal,
``hang`` stays in phase run for ever, ``deaf`` ignores Stop, ``mute`` never says Ready, ``accuse`` asks for
brain.0's death.
"""

import os
import signal
import socket
import sys
import time
from typing import NoReturn

from homeostat.proto import codec
from homeostat.proto import messages as m
from homeostat.workers.phase import Phase, PhaseWord

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
    if behaviour == "crash":
        sys.exit(3)
    if behaviour == "fatal":
        control.send(codec.encode(m.Fatal("journal_newer", "the journal is newer", "Upgrade homeostat.", 7)))
        sys.exit(7)
    if "phase" in fds:
        PhaseWord.attach(fds["phase"]).write(Phase.RUN if behaviour == "hang" else Phase.IDLE)
    if behaviour != "mute":
        control.send(codec.encode(m.Ready()))
    if behaviour == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _listen(control, behaviour)


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
