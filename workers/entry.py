"""Where a parked worker gives up its powers, and where it begins once it has its start.

Owns: which module is which role, what the nursery imports ahead, what a parked worker makes ahead.
Must not know: forks, pids, who restarts whom.
Invariant: confinement comes before the first thread: Landlock and seccomp bind only the calling thread and
    those it starts later, and a ZeroMQ context starts threads.
Source: DESIGN §3.
"""

from __future__ import annotations

import codecs
import contextlib
import importlib
import os
import socket
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import zmq

from ..proto.config import Config, from_bytes
from ..proto.errors import ConfigError, ProtectionError
from ..proto.messages import Park, WorkerStart
from ..sandbox import zygote
from ..sandbox.namespaces import Ids
from ..sandbox.placement import Placement
from . import confine, tracing
from .executor.tools.files import BUILTINS
from .identity import COMMAND_OFFSET, SETUP_OFFSET
from .parking import Begin
from .runtime import Context, Supervised, run

SHELLS = {
    "gate": "gate.shell",
    "brain": "brain.shell",
    "executor": "executor.shell",
    "memory": "memory.shell",
    "courier": "courier.shell",
    "database": "database.shell",
}
BACKGROUND_NICE = 10
"""Memory follows behind; it must not take the processor from those who are waited for."""


@dataclass(frozen=True)
class Warm:
    """What a parked worker has made ahead."""

    home: Path
    enforced: str
    zmq: zmq.Context[Any]


def zeromq() -> zmq.Context[Any]:
    """Make a ZeroMQ context whose threads run already: they start with its first socket."""
    context: zmq.Context[Any] = zmq.Context(io_threads=1)
    context.socket(zmq.PAIR).close()
    return context


def preload(config: Config) -> None:
    """Import all that the workers of this configuration need; opens nothing.

    As root a worker may be unable to import later: the interpreter may lie in a folder closed to its user.
    """
    for encoding in ("ascii", "latin-1", "utf-8", "utf-8-sig", "idna", "utf-16", "utf-32"):
        codecs.lookup(encoding)
    for role, name in SHELLS.items():
        if _is_wanted(role, config):
            importlib.import_module(f"{__package__}.{name}")
    zygote.compile_filters()
    if any(agent.provider == "chat" for agent in config.agent):
        importlib.import_module(f"{__package__}.brain.calls")
    confine.prepare()
    importlib.import_module("lmdb._envid")  # lmdb imports it at the first open, when it may be out of reach
    with contextlib.suppress(ConfigError):  # The gate will meet it again, and can say so to the supervisor.
        importlib.import_module(f"{__package__}.gate.law").pipeline_of(config)


def _is_wanted(role: str, config: Config) -> bool:
    """Whether this configuration has such a worker at all: its libraries take memory."""
    return {"courier": config.has_courier, "database": config.has_database}.get(role, True)


def arm(park: Park, config: Config) -> Begin:
    """Give up the role's powers, make what needs no state; give what becomes this worker."""
    if park.role == "zygote":
        # It is not confined as workers are: it makes the confinement of commands.
        return lambda _start, fds: _zygote(fds, config)
    # Another user than ours may not pass through the folders above; the nursery changed into the home.
    home = Path(park.home) if park.uid is None else Path()
    try:
        enforced = confine.apply(park.role, home, config)
    except ProtectionError as error:
        return partial(_unprotected, error)
    if park.role == "memory":
        os.nice(BACKGROUND_NICE)
    warm = Warm(home, enforced, zeromq())
    return lambda start, fds: _begin(warm, start, fds)


def _begin(warm: Warm, start: WorkerStart, fds: dict[str, int]) -> NoReturn:
    """Be this worker."""
    tracing.enable(fds)
    context = Context(
        start.role,
        start.index,
        start.epoch,
        start.secret,
        warm.home,
        start.home,
        from_bytes(start.config),
        fds,
        warm.enforced,
        warm.zmq,
    )
    print(f"{start.role}.{start.index} epoch {start.epoch} confined: {warm.enforced}", flush=True)
    shell = importlib.import_module(f"{__package__}.{SHELLS[start.role]}")
    if start.role == "gate":
        shell.main(context)
        sys.exit(0)
    run(context, shell.make)


def _unprotected(error: ProtectionError, _start: WorkerStart, fds: dict[str, int]) -> NoReturn:
    """What the kernel does not give is told by a worker that is wanted: the supervisor stops with it."""
    Supervised(socket.socket(fileno=fds["control"])).fatal(error)
    sys.exit(error.exit_code)


def _zygote(fds: dict[str, int], config: Config) -> NoReturn:
    base = config.users.base
    ids = Ids(base + SETUP_OFFSET, base + COMMAND_OFFSET) if os.geteuid() == 0 else Ids(os.geteuid())
    lent = {name: fd for name, fd in fds.items() if name.startswith("cgroup")}
    placement = Placement(lent, config.sandbox.may_be_missing)
    zygote.main(fds["control"], fds["owner"], ids, BUILTINS, placement, armed=config.sandbox.armed)
