"""Where a forked worker begins: confine, then become one's role.

Owns: which module is which role, and what the nursery imports ahead.
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
import signal
import sys
from pathlib import Path
from typing import NoReturn

import prctl

from ..proto.config import Config, from_bytes
from ..proto.errors import ConfigError, ProtectionError
from ..proto.messages import WorkerStart
from ..sandbox import zygote
from ..sandbox.namespaces import Ids
from . import confine
from .executor.tools.files import BUILTINS
from .identity import COMMAND_OFFSET, SETUP_OFFSET
from .runtime import Context, Supervised, run

SHELLS = {
    "gate": "gate.shell",
    "brain": "brain.shell",
    "executor": "executor.shell",
    "memory": "memory.shell",
}
BACKGROUND_NICE = 10
"""Memory follows behind; it must not take the processor from those who are waited for."""


def preload(config: Config) -> None:
    """Import all that the workers of this configuration need; opens nothing.

    As root a worker may be unable to import later: the interpreter may lie in a folder closed to its user.
    """
    for encoding in ("ascii", "latin-1", "utf-8", "utf-8-sig", "idna", "utf-16", "utf-32"):
        codecs.lookup(encoding)
    for name in SHELLS.values():
        importlib.import_module(f"{__package__}.{name}")
    zygote.compile_filters()
    if any(agent.provider == "chat" for agent in config.agent):
        importlib.import_module(f"{__package__}.brain.calls")
    confine.prepare()
    importlib.import_module("lmdb._envid")  # lmdb imports it at the first open, when it may be out of reach
    with contextlib.suppress(ConfigError):  # The gate will meet it again, and can say so to the supervisor.
        importlib.import_module(f"{__package__}.gate.law").pipeline_of(config)


def main(start: WorkerStart, fds: dict[str, int]) -> NoReturn:
    """Be this worker."""
    config = from_bytes(start.config)
    if start.role == "zygote":
        _zygote(fds, config)
    # Another user than ours may not pass through the folders above; the nursery changed into the home.
    home = Path(start.home) if start.uid is None else Path()
    context = Context(start.role, start.index, start.epoch, start.secret, home, start.home, config, fds)
    _confine(context, start.supervisor_pid)
    if start.role == "memory":
        os.nice(BACKGROUND_NICE)
    shell = importlib.import_module(f"{__package__}.{SHELLS[start.role]}")
    if start.role == "gate":
        shell.main(context)
        sys.exit(0)
    run(context, shell.make)


def _confine(context: Context, supervisor_pid: int) -> None:
    try:
        enforced = confine.apply(context)
    except ProtectionError as error:
        Supervised(context).fatal(error)
        sys.exit(error.exit_code)
    # A change of credentials clears PDEATHSIG (prctl(2)): arm it again, then look whether the parent lives.
    prctl.set_pdeathsig(signal.SIGKILL)
    if os.getppid() != supervisor_pid:
        sys.exit("the supervisor is gone")
    print(f"{context.role}.{context.index} epoch {context.epoch} confined: {enforced}", flush=True)


def _zygote(fds: dict[str, int], config: Config) -> NoReturn:
    """The zygote is not confined as workers are: it makes the confinement of commands."""
    base = config.users.base
    ids = Ids(base + SETUP_OFFSET, base + COMMAND_OFFSET) if os.geteuid() == 0 else Ids(os.geteuid())
    zygote.main(fds["control"], fds["owner"], ids, BUILTINS)
