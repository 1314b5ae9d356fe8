"""Numbers for people: times, sizes, rates.

Owns: units and digits.
Must not know: what is counted.
Invariant: at most eight characters below a thousand units of the largest, so that columns stay narrow.
Source: IEC 80000-13 for the binary prefixes.
"""

from __future__ import annotations

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
UNKNOWN = "-"


def age(seconds: float | None) -> str:
    """How long, in the one or two units that matter."""
    if seconds is None:
        return UNKNOWN
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3_600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86_400:
        return f"{whole // 3_600}h{whole % 3_600 // 60:02d}m"
    return f"{whole // 86_400}d{whole % 86_400 // 3_600:02d}h"


def size(count: int | None) -> str:
    """Bytes with a binary prefix."""
    if count is None:
        return UNKNOWN
    amount, unit = float(count), 0
    while amount >= 1_000 and unit < len(_UNITS) - 1:
        amount, unit = amount / 1_024, unit + 1
    return f"{count} B" if unit == 0 else f"{amount:.{1 if amount < 100 else 0}f} {_UNITS[unit]}"


def rate(per_s: float | None) -> str:
    """Something per second; small ones keep a digit."""
    if per_s is None:
        return UNKNOWN
    return f"{per_s:.1f}" if per_s < 100 else f"{per_s:,.0f}"


def count(number: int | None) -> str:
    """A count, its thousands apart."""
    return UNKNOWN if number is None else f"{number:,}"
