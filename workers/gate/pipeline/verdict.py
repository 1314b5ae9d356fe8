"""What a stage of the pipeline can say.

Owns: the verdict and its reasons. Must not know: which stages there are.
Invariant: an exception of any kind is a denial.
Source: DESIGN §8, law 8.
"""

from __future__ import annotations

from dataclasses import dataclass

from ....proto.ids import EffectClass


class Denied(Exception):
    """A stage refuses the call."""

    def __init__(self, stage: str, rule: str, reason: str) -> None:
        super().__init__(reason)
        self.stage, self.rule, self.reason = stage, rule, reason


@dataclass(frozen=True, slots=True)
class Admitted:
    """All stages let the call pass."""

    tool: str
    runs_in: str
    klass: EffectClass
    args: bytes
    thought: str
    rule: str
    timeout_s: float
    stage: bool = False
    egress: bool = False
