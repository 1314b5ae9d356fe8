"""How long ``true`` takes in ours and in each peer, beside the bare command.

Owns: the measuring, the same for each: a process made and waited for, programs taking turns.
Must not know: how a peer is set up.
Invariant: a run that fails is told, never counted.
Source: issue 4 "Speed".
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from homeostat.sandbox.namespaces import Ids
from homeostat.sandbox.selftest.prover import Prover
from homeostat.sandbox.selftest.zygotes import Request
from tests.bench.sandbox.foreign import COMMAND_UID, SETUP_UID, Foreign

TRUE = "/bin/true"
RUN_S = 30.0
WARM_UP = 2
BARE = Foreign("bare command", lambda _: ())
OURS = "homeostat"


@dataclass
class Started:
    """One program's times; why not, where it could not be measured."""

    name: str
    times_ms: list[float] = field(default_factory=list)
    why_not: str = ""


def measure(peers: Sequence[Foreign], folder: Path, rounds: int) -> list[Started]:
    """``true`` that often in each, taking turns, so that a loaded moment hits all alike; ours comes first."""
    ours, found = Started(OURS), [Started(peer.name) for peer in (BARE, *peers)]
    ids = Ids(SETUP_UID, COMMAND_UID) if os.geteuid() == 0 else Ids(os.geteuid())
    with Prover(ids) as prover, tempfile.TemporaryDirectory(dir=folder) as workspace:
        os.chmod(workspace, 0o777)
        for number in range(-WARM_UP, rounds):
            _own(prover, ours, counts=number >= 0)
            for peer, started in zip((BARE, *peers), found, strict=True):
                if not started.why_not:
                    _one(peer, Path(workspace), started, counts=number >= 0)
    return [ours, *found]


def _own(prover: Prover, started: Started, *, counts: bool) -> None:
    """Ours, by a zygote of the selftest: a fresh stage each, made before the clock runs."""
    stage = prover.ground.fresh_stage()
    request = Request([TRUE.encode()], str(prover.ground.workspace), stage=str(stage))
    began = time.perf_counter()
    ran = prover.zygote.run(request)
    took = 1e3 * (time.perf_counter() - began)
    if ran.code != 0:
        started.why_not = f"exit {ran.code}: {ran.refused}"
    elif counts:
        started.times_ms.append(took)


def _one(peer: Foreign, workspace: Path, started: Started, *, counts: bool) -> None:
    words = [*peer.prefix(workspace), TRUE]
    env = {"PATH": os.environ.get("PATH", os.defpath), **peer.env}
    began = time.perf_counter()
    try:
        done = subprocess.run(
            words, cwd=workspace, env=env, stdin=subprocess.DEVNULL, capture_output=True, check=False,
            timeout=RUN_S, user=peer.user, group=peer.user, extra_groups=None if peer.user is None else [],
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        started.why_not = f"could not be measured: {error}"
        return
    took = 1e3 * (time.perf_counter() - began)
    if done.returncode != 0:
        started.why_not = f"exit {done.returncode}: {done.stderr.decode(errors='replace').strip()[-120:]}"
    elif counts:
        started.times_ms.append(took)
