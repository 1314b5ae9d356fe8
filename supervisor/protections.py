"""What must be there before a home is run: the layers of confinement that its operator does not do without.

Owns: refusing a start for a missing layer; the control group of the home.
Must not know: how a layer is tried (sandbox/probe.py), how a sandbox is made.
Invariant: no worker is started where a required layer is missing; what is missing by permission is logged.
Source: DESIGN, law 8; sandbox/layers.py has the table.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from ..proto.config import Config
from ..proto.errors import ProtectionError
from ..sandbox.delegation import HomeGroup
from .identities import Identities
from .log import Log

_LATER = frozenset({"cgroup", "overlay"})
"""Tried where they are used: the group of this home is made, and stages need its folder."""

_BROKEN = 1
_TRY_EACH = "`homeostat doctor` tries each layer by itself and shows which one breaks."


def check_kernel(config: Config) -> None:
    """Refuse a kernel without what all confinement rests on. Raises ProtectionError.

    Workers would find it out too, but in any order and after the home was made. Tried in a fork, whose
    modules (2 MB) this process then need not keep; a trial that breaks counts as a layer that is missing.
    """
    _refuse(_LATER | {*config.sandbox.may_be_missing}, "", only_these=False)


def check_home(home: Path, config: Config) -> None:
    """Refuse a home whose file system takes no stages, where the operator insists. Raises ProtectionError."""
    if "overlay" not in config.sandbox.may_be_missing:
        _refuse(frozenset({"overlay"}), str(home / "run"), only_these=True)


def control_group(home: Path, config: Config, identities: Identities, log: Log) -> HomeGroup:
    """Make the home's control group; the caller's to close. Raises ProtectionError."""
    group = HomeGroup(home, identities.setup_uid)
    if group.version == "none" and "cgroup" not in config.sandbox.may_be_missing:
        from ..sandbox.layers import CONTROL_GROUPS  # noqa: PLC0415  only now is its module wanted

        raise ProtectionError(f"there are no control groups here: {group.reason}", remedy=CONTROL_GROUPS)
    if group.version == "none":
        log("warning", "no_control_groups", reason=group.reason)
    return group


def _refuse(names: frozenset[str], directory: str, *, only_these: bool) -> None:
    """Try all layers but these, or only these. Raises ProtectionError for the first that is missing."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        code = _BROKEN
        try:
            if missing := _first_missing(names, directory, only_these=only_these):
                os.write(write, msgspec.json.encode(missing))
            code = 0
        except BaseException as error:  # noqa: BLE001  the last frame of a fork: told, and its end
            os.write(write, msgspec.json.encode(_broken(f"{type(error).__name__}: {error}")))
        finally:
            os._exit(code)
    os.close(write)
    with open(read, "rb") as pipe:
        told = pipe.read()
    _, status = os.waitpid(child, 0)
    if told:
        message, remedy = msgspec.json.decode(told, type=tuple[str, str])
        raise ProtectionError(message, remedy=remedy)
    if status != 0:
        message, remedy = _broken(f"the trial ended with {os.waitstatus_to_exitcode(status)}")
        raise ProtectionError(message, remedy=remedy)


def _first_missing(names: frozenset[str], directory: str, *, only_these: bool) -> tuple[str, str] | None:
    """What to say of the first layer that is missing, and the remedy."""
    from ..sandbox import layers, probe  # noqa: PLC0415  see check_kernel

    for one in layers.PROTECTIONS:
        if (one.name in names) is only_these:
            found = probe.probe(one, directory)
            if not found.available:
                return f"this kernel gives no {one.name.replace('_', ' ')}: {found.detail}", found.remedy
    return None


def _broken(reason: str) -> tuple[str, str]:
    """What could not be tried counts as missing."""
    return f"what this kernel gives could not be tried: {reason}", _TRY_EACH
