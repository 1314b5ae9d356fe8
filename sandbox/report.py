"""Owns: what was really enforced on one sandbox.
Must not know: what was asked (profile.py) or how it was done.
Invariants: only values that were seen to hold when they were written down; a missing layer is a value, not a
    gap.
Source: DESIGN, law 8: fail closed, say so.
"""

from typing import Literal

import msgspec


class Report(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The achieved protection, carried in every outcome.

    `uid_inside` is what the command sees, `uid_outside` what the host sees. `landlock_abi` 0 means that this
    kernel
    gives none. `workspace` says how it was attached. `degraded` lists optional layers that are missing.
    """

    namespaces: tuple[str, ...]
    uid_inside: int
    uid_outside: int
    further_user_namespaces: int
    root: Literal["read-only"]
    workspace: Literal["overlay", "bind", "bind-read-only"]
    no_new_privs: bool
    capabilities: tuple[str, ...]
    rlimits: dict[str, int]
    landlock_abi: int
    seccomp_sha256: str
    seccomp_instructions: int
    network: Literal["none", "courier"]
    cgroup: Literal["none", "v1", "v2"]
    degraded: tuple[str, ...]
