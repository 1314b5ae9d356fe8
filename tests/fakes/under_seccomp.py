"""A program beneath a seccomp profile in Docker's format, as a container runtime would load it.

Owns: the part of the format that ops/docker/seccomp.json uses; anything else in it is an error.
Must not know: what is run.
Invariant: the filter is loaded before the program is executed.
Source: Docker's documentation of seccomp profiles; seccomp_rule_add(3).

    under_seccomp.py PROFILE PROGRAM [ARGUMENT …]
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyseccomp

OPERATORS = {"SCMP_CMP_EQ": pyseccomp.EQ, "SCMP_CMP_NE": pyseccomp.NE}
MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


def rules(profile: dict[str, Any]) -> Iterator[tuple[str, int, list[Any]]]:
    """Name, action and arguments of every rule that holds on this machine."""
    for group in profile["syscalls"]:
        unknown = group.keys() - {"comment", "names", "action", "errnoRet", "args", "includes"}
        if unknown:
            raise ValueError(f"{group['names'][0]}: {unknown} is not understood here")
        if MACHINES.get(platform.machine()) not in group.get("includes", {}).get("arches", MACHINES.values()):
            continue
        refused = group["action"] == "SCMP_ACT_ERRNO"
        action = pyseccomp.ERRNO(group["errnoRet"]) if refused else pyseccomp.ALLOW
        conditions = [
            pyseccomp.Arg(one["index"], OPERATORS[one["op"]], one["value"]) for one in group.get("args", [])
        ]
        yield from ((name, action, conditions) for name in group["names"])


def load(path: Path) -> None:
    """Load a profile into this process, for good."""
    profile = json.loads(path.read_text())
    filtered = pyseccomp.SyscallFilter(pyseccomp.ERRNO(profile["defaultErrnoRet"]))
    for name, action, conditions in rules(profile):
        filtered.add_rule(action, name, *conditions)
    filtered.load()


if __name__ == "__main__":
    load(Path(sys.argv[1]))
    os.execv(sys.argv[2], sys.argv[2:])
