"""What a new configuration changes in a running tree, and by which means.

Owns: for every setting who has to be restarted for it, or that it needs a restart of everything.
Must not know: files, processes; how a worker is restarted (recycling.py).
Invariant: what comes into force is a whole configuration: the old one with those new values that can be taken
    over; a setting that nobody has thought of here needs a restart.
    # INVARIANT: test_every_setting_has_its_means
Source: issue "SIGHUP reloads what can be reloaded and says what can't".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from ..proto.config import Config
from ..proto.ids import Role

AT_ONCE: tuple[Role, ...] = ()
"""The supervisor itself takes it over."""
GATE: tuple[Role, ...] = ("gate",)
EXECUTORS: tuple[Role, ...] = ("executor",)
EVERYBODY: tuple[Role, ...] = ("gate", "memory", "courier", "database", "zygote", "executor", "brain")
AGENTS: tuple[Role, ...] = ("gate", "courier", "brain")
"""Who acts on what an agent is."""

MEANS: Mapping[str, tuple[Role, ...] | None] = {
    "metrics.listen": None,  # Its socket is made once, and its port may be below 1024.
    "client.listen": None,
    "client.authorized_keys": GATE,
    "users": None,  # What is in the home belongs to these users.
    "quotas.stage_bytes": EXECUTORS,
    "quotas.stage_files": EXECUTORS,
    "quotas.workspace_bytes": EXECUTORS,
    "quotas.workspace_files": EXECUTORS,
    "quotas": GATE,
    "journal": None,  # Address space is reserved once.
    "policy": GATE,
    "log.to": None,  # Where it goes is chosen once.
    "log": AT_ONCE,
    "guardian": None,  # It has read them when it started the supervisor.
    "sandbox.may_be_missing": EVERYBODY,
    "sandbox.armed": ("zygote",),
    "sandbox.total_memory_bytes": ("zygote",),
    "sandbox": EXECUTORS,
    "terminals": EXECUTORS,
    "courier": ("courier",),
    "credential": ("courier",),
    "connection": ("database",),
    "supervision.drain_s": AT_ONCE,
    "supervision.watch_s": AT_ONCE,
    "supervision.cool_down_s": AT_ONCE,
    "supervision.hard_factor": AT_ONCE,
    "supervision.soft_memory_bytes": AT_ONCE,
    "supervision.soft_open_files": AT_ONCE,
    "supervision.soft_threads": AT_ONCE,
    "supervision.soft_cpu_share": AT_ONCE,
    "supervision": None,  # Child specs are made at the start.
    "workers": None,  # Tasks are spread by these numbers.
    "agent": AGENTS,
}
"""By section or key; the longest that fits counts. None: a restart of everything."""
_RESTART_ORDER = EVERYBODY


@dataclass(frozen=True)
class Plan:
    """What a reload does."""

    config: Config
    """To be in force from now on."""
    applied: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    """Keys whose new values need a restart; the old ones stay in force."""
    roles: tuple[Role, ...] = ()
    """Who is restarted for it, in start order."""

    @property
    def hold(self) -> tuple[Role, ...]:
        """Who must get no work while the roles differ: a brain must not be asked to be an agent it has not
        heard of, by a gate that has.
        """
        return ("brain",) if {"gate", "brain"} <= {*self.roles} else ()


def plan(old: Config, new: Config, *, law_changed: bool = False) -> Plan:
    """Compare two configurations; ``law_changed``: a policy file is another than when it was last read."""
    keys = tuple(changed(old, new))
    other_tree = (old.has_courier, old.has_database) != (new.has_courier, new.has_database)
    kept = tuple(key for key in keys if means(key) is None or (key == "agent" and other_tree))
    applied = tuple(key for key in keys if key not in kept)
    roles = {role for key in applied for role in means(key) or ()} - _absent(old)
    if law_changed:
        roles.add("gate")
        applied = (*applied, *(("policy.files (their contents)",) if "policy.files" not in applied else ()))
    if "zygote" in roles:
        roles.discard("executor")  # It comes again with its zygote.
    ordered = tuple(role for role in _RESTART_ORDER if role in roles)
    return Plan(_merged(old, new, kept), applied, kept, ordered)


def _absent(config: Config) -> set[Role]:
    """Roles that a tree of this configuration has not: a reload adds none and takes none away."""
    absent: set[Role] = set() if config.has_courier else {"courier"}
    return absent if config.has_database else {*absent, "database"}


def means(key: str) -> tuple[Role, ...] | None:
    """Who has to be restarted for a changed key; None: everything."""
    parts = key.split(".")
    for length in range(len(parts), 0, -1):
        if (prefix := ".".join(parts[:length])) in MEANS:
            return MEANS[prefix]
    return None


def changed(old: Config, new: Config) -> Iterator[str]:
    """Give the keys that differ, as in docs/OPERATIONS.md; agents, which are many, as ``agent``."""
    for section in Config.__struct_fields__:
        before, after = getattr(old, section), getattr(new, section)
        if before == after:
            continue
        if not isinstance(before, msgspec.Struct):
            yield section
            continue
        for key in before.__struct_fields__:
            if getattr(before, key) != getattr(after, key):
                yield f"{section}.{key}"


def _merged(old: Config, new: Config, kept: tuple[str, ...]) -> Config:
    """The new configuration with the old values of these keys."""
    sections: dict[str, dict[str, Any]] = {}
    whole: dict[str, Any] = {}
    for key in kept:
        section, _, name = key.partition(".")
        if name:
            sections.setdefault(section, {})[name] = getattr(getattr(old, section), name)
        else:
            whole[section] = getattr(old, section)
    for section, values in sections.items():
        whole[section] = msgspec.structs.replace(getattr(new, section), **values)
    return msgspec.structs.replace(new, **whole)
