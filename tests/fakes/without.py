"""A kernel that lacks something: a filter that refuses some system calls, or takes them and does nothing.

Owns: the form of a refusal, loading it.
Must not know: what is run beneath it.
Invariant: everything else is allowed; what is refused stays refused for all children.
Source: seccomp(2), seccomp_rule_add(3): the return value ERRNO with number 0 is a call that says it worked.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import pyseccomp

LIE = 0
"""The call returns 0 and was never made."""


@dataclass(frozen=True)
class Refusal:
    """One call (when the argument has these bits, or another value than that), and its errno."""

    call: str
    errno: int
    argument: int | None = None
    mask: int | None = None
    value: int = 0

    def conditions(self) -> list[pyseccomp.Arg]:
        """With a mask: the bits of `value`; without: anything but `value`."""
        if self.argument is None:
            return []
        if self.mask is None:
            return [pyseccomp.Arg(self.argument, pyseccomp.NE, self.value)]
        return [pyseccomp.Arg(self.argument, pyseccomp.MASKED_EQ, self.mask, self.value)]


def load(*refusals: Refusal) -> None:
    """Bind this thread and its children. As root without no_new_privs, which is a layer of its own."""
    filtered = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    if os.geteuid() == 0:
        filtered.set_attr(pyseccomp.Attr.CTL_NNP, 0)
    for one in refusals:
        filtered.add_rule(pyseccomp.ERRNO(one.errno), one.call, *one.conditions())
    filtered.load()
