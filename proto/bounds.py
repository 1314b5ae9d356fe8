"""Least and most of every number in the settings, and which texts can be keys.

Owns: the bounds. A number's unit is the end of its name, so a new key has bounds without being listed here.
Must not know: files, lines, who uses a setting.
Invariant: within its bounds no number overflows where it is used: 64 bits of nanoseconds or bytes, the
    milliseconds of a socket's timeout (31 bits), a uid.
Source: setrlimit(2), proc_sys_fs(5), credentials(7); ZeroMQ RFC 32 (Z85).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .confinement import LEAST_TMP_BYTES

TEN_YEARS_S = 3_650 * 86_400
WEEK_S = 7 * 86_400
"""A socket's timeout is milliseconds in 31 bits: not quite 25 days."""
EXBIBYTE = 1 << 60
_Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
_KEY_CHARACTERS = 40
_POSITIVE = 1e-9


@dataclass(frozen=True)
class Bounds:
    """Both ends belong to it."""

    least: float
    most: float

    def __contains__(self, value: float) -> bool:
        return self.least <= value <= self.most  # Not a number is in no bounds.

    def __str__(self) -> str:
        least = "above 0" if self.least == _POSITIVE else f"{self.least}"
        return f"{least}, at most {self.most}" if self.least == _POSITIVE else f"{least} to {self.most}"


_OF_KEY = {
    "users.base": Bounds(1, 2**32 - 64),
    "quotas.open_tasks": Bounds(1, 1_000_000),
    "quotas.plan_steps": Bounds(1, 10_000_000),
    "quotas.min_free_bytes": Bounds(0, EXBIBYTE),
    "quotas.min_free_files": Bounds(0, 10**12),
    "journal.map_bytes": Bounds(1 << 20, 1 << 44),
    "sandbox.max_processes": Bounds(1, 1 << 22),  # PID_MAX_LIMIT, proc_sys_kernel(5)
    "sandbox.max_open_files": Bounds(1, 1 << 20),  # fs.nr_open: more is EPERM, for root too
    "sandbox.armed": Bounds(0, 8),  # of all kinds together no more are made
    "sandbox.tmp_bytes": Bounds(LEAST_TMP_BYTES, EXBIBYTE),
    "terminals.per_task": Bounds(0, 1_000),
    "terminals.most": Bounds(0, 1_000),
    "courier.connections": Bounds(1, 10_000),
    "courier.connections_per_call": Bounds(1, 10_000),
    "courier.redirects": Bounds(0, 50),
    "courier.max_response_bytes": Bounds(1, 1 << 30),
    "connection.rows": Bounds(1, 10_000),
    "agent.egress.ports": Bounds(1, 65_535),
    "supervision.backoff_base_s": Bounds(0, TEN_YEARS_S),
    "supervision.watch_s": Bounds(0.1, TEN_YEARS_S),
    "supervision.hard_factor": Bounds(0, 1_000),
    "supervision.soft_memory_bytes": Bounds(0, EXBIBYTE),
    "supervision.soft_open_files": Bounds(0, 10**12),
    "supervision.soft_threads": Bounds(0, 10**12),
    "supervision.soft_cpu_share": Bounds(0, 1_000),
    "log.max_bytes": Bounds(1 << 16, 1 << 30),
    "log.keep": Bounds(1, 1_000),
    "guardian.backoff_base_s": Bounds(0, TEN_YEARS_S),
    "workers.brains": Bounds(1, 64),
    "workers.executors": Bounds(1, 64),
    "agent.model.timeout_s": Bounds(_POSITIVE, WEEK_S),
    "agent.model.temperature": Bounds(0, 1_000),
}
_OF_UNIT = {"s": Bounds(_POSITIVE, TEN_YEARS_S), "bytes": Bounds(1, EXBIBYTE)}
_COUNT = Bounds(1, 10**12)


def of(key: str) -> Bounds:
    """Give the bounds of a dotted key such as ``agent[1].limits.call_timeout_s``."""
    plain = re.sub(r"\[\d+\]", "", key)
    return _OF_KEY.get(plain) or _OF_UNIT.get(plain.rpartition("_")[2], _COUNT)


def is_key(text: str) -> bool:
    """Whether a text is 32 bytes in Z85: five characters are four bytes, and not every five fit."""
    if len(text) != _KEY_CHARACTERS or not set(text) <= set(_Z85):
        return False
    return all(_word(text[at : at + 5]) < 2**32 for at in range(0, len(text), 5))


def _word(five: str) -> int:
    number = 0
    for character in five:
        number = number * 85 + _Z85.index(character)
    return number
