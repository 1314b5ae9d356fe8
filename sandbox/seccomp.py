"""Owns: seccomp policies: their form, their compilation to a BPF program, loading.
Must not know: which process loads which policy.
Invariants: the same policy and libseccomp give the same bytes; foreign architectures and x32 are killed;
    numbers above
    the newest that the policy knows are ENOSYS, so that libraries fall back. Source: seccomp(2), libseccomp.
"""

import errno
import hashlib
import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import pyseccomp

from ..proto.errors import HomeostatError
from .kernel import FilterProgram, KernelError, invoke

POLICIES: Final = Path(__file__).parent / "policies"

_X32_BIT: Final = 0x40000000
_AUDIT_ARCH_X86_64: Final = 0xC000003E
_ACTIONS: Final = {"allow": 0x7FFF0000, "kill": 0x80000000}
_RET_ERRNO: Final = 0x00050000
_BITS: Final = 32
_LOW: Final = 0xFFFFFFFF

# Classic BPF: linux/bpf_common.h. Offsets into struct seccomp_data: the number at 0, the architecture at 4.
_LOAD_WORD, _JUMP_EQUAL, _JUMP_GREATER, _JUMP_GREATER_EQUAL, _RETURN = 0x20, 0x15, 0x25, 0x35, 0x06


class SeccompPolicyError(HomeostatError):
    """A seccomp policy can't be compiled."""

    code = "seccomp_policy"


class Condition(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A test of one argument: equal in 64 bits or under a mask, or (low 32 bits) one or none of several."""

    arg: int
    equals: int | None = None
    mask: int | None = None
    one_of: tuple[int, ...] | None = None
    not_in: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        tests = [test for test in (self.equals, self.one_of, self.not_in) if test is not None]
        if len(tests) != 1 or (self.mask is not None and self.equals is None):
            raise ValueError("a condition has one of equals (and perhaps mask), one_of, not_in")

    def alternatives(self) -> list[pyseccomp.Arg]:
        """Comparisons of which exactly one holds when the condition does."""
        if self.one_of is not None:
            return [pyseccomp.Arg(self.arg, pyseccomp.MASKED_EQ, _LOW, value) for value in self.one_of]
        if self.not_in is not None:
            return [
                pyseccomp.Arg(self.arg, pyseccomp.MASKED_EQ, mask, value)
                for mask, value in complement(self.not_in)
            ]
        if self.mask is not None:
            return [pyseccomp.Arg(self.arg, pyseccomp.MASKED_EQ, self.mask, self.equals)]
        return [pyseccomp.Arg(self.arg, pyseccomp.EQ, self.equals)]


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What happens to some calls (when all conditions hold), and why."""

    action: str
    reason: str
    calls: tuple[str, ...]
    when: tuple[Condition, ...] = ()


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole filter. `newest` is the highest number that was judged; `numbers` names those libseccomp may
    not know.
    """

    name: str
    default: str
    newest: int
    rule: tuple[Rule, ...]
    numbers: dict[str, int] = {}


def complement(values: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """(mask, value) pairs of 32 bits that together match exactly the numbers not in `values`.

    seccomp can't say "neither of these" in one rule; but the numbers beside a set split into blocks with a
    common
    prefix, as addresses beside a host split into networks: at most 32 blocks a value, each one a masked
    comparison.
    """
    pending = [(0, 0, [value & _LOW for value in values])]
    while pending:
        length, prefix, inside = pending.pop()
        if not inside:
            yield (_LOW << (_BITS - length)) & _LOW, prefix
        elif length < _BITS:
            bit = 1 << (_BITS - length - 1)
            pending.append((length + 1, prefix, [value for value in inside if not value & bit]))
            pending.append((length + 1, prefix | bit, [value for value in inside if value & bit]))


def read_policy(source: str | os.PathLike[str] | Mapping[str, Any]) -> Policy:
    """A policy from a TOML file, or from a mapping of the same form. Raises SeccompPolicyError, OSError."""
    try:
        if isinstance(source, Mapping):
            return msgspec.convert(source, Policy)
        return msgspec.toml.decode(Path(source).read_bytes(), type=Policy)
    except msgspec.MsgspecError as error:
        raise SeccompPolicyError(f"seccomp policy {source}: {error}") from error


def compile_policy(source: str | os.PathLike[str] | Mapping[str, Any]) -> bytes:
    """The BPF program of a policy, for `load`. Some 10 ms: do it once. Raises SeccompPolicyError, OSError."""
    policy = read_policy(source)
    compiled = pyseccomp.SyscallFilter(_action(policy.default))
    compiled.set_attr(pyseccomp.Attr.ACT_BADARCH, _ACTIONS["kill"])
    if pyseccomp.get_api() >= 4:
        compiled.set_attr(pyseccomp.Attr.CTL_OPTIMIZE, 2)  # a binary tree over the numbers
    for rule in policy.rule:
        for call in rule.calls:
            _add(compiled, policy, rule, call)
    return _prologue(policy.newest) + _export(compiled)


def _add(compiled: pyseccomp.SyscallFilter, policy: Policy, rule: Rule, call: str) -> None:
    number = _number(policy, call)
    if number is None or _action(rule.action) == _action(policy.default):
        return
    sets: list[list[pyseccomp.Arg]] = [[]]
    for condition in rule.when:
        sets = [[*chosen, other] for chosen in sets for other in condition.alternatives()]
    try:
        for comparisons in sets:
            compiled.add_rule_exactly(_action(rule.action), number, *comparisons)
    except OSError as error:
        raise SeccompPolicyError(f"seccomp policy {policy.name}: {call}: {error}") from error


def _number(policy: Policy, call: str) -> int | None:
    """The call's number here; None when this architecture doesn't have it. A name that nobody knows is an
    error.
    """
    if call in policy.numbers:
        return policy.numbers[call]
    number: int = pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, call)
    if number == -1:
        raise SeccompPolicyError(f"seccomp policy {policy.name}: unknown system call {call}")
    return number if number >= 0 else None


def _action(name: str) -> int:
    """The return value of a filter. Source: SECCOMP_RET_* of linux/seccomp.h."""
    if name in _ACTIONS:
        return _ACTIONS[name]
    code = getattr(errno, name, None)
    if not isinstance(code, int):
        raise SeccompPolicyError(f"unknown action {name!r}: allow, kill or the name of an errno")
    return _RET_ERRNO | code


def _prologue(newest: int) -> bytes:
    """Before libseccomp's program: what it can't say in every version, namely whole ranges of numbers."""
    architecture = pyseccomp.system_arch()
    x32 = _X32_BIT if architecture == _AUDIT_ARCH_X86_64 else _LOW
    instructions = (
        (_LOAD_WORD, 0, 0, 4),
        (_JUMP_EQUAL, 0, 4, architecture),
        (_LOAD_WORD, 0, 0, 0),
        (_JUMP_EQUAL, 3, 0, _LOW),  # -1, "no call": plain ENOSYS, as the kernel itself says
        (_JUMP_GREATER_EQUAL, 1, 0, x32),
        (_JUMP_GREATER, 1, 2, newest),
        (_RETURN, 0, 0, _ACTIONS["kill"]),
        (_RETURN, 0, 0, _RET_ERRNO | errno.ENOSYS),
    )
    return b"".join(struct.pack("HBBI", *instruction) for instruction in instructions)


def _export(compiled: pyseccomp.SyscallFilter) -> bytes:
    with open(os.memfd_create("seccomp"), "w+b") as file:
        compiled.export_bpf(file)
        file.seek(0)
        return file.read()


def digest(program: bytes) -> str:
    """SHA-256 of a program, as hex digits."""
    return hashlib.sha256(program).hexdigest()


def instruction_count(program: bytes) -> int:
    """How many BPF instructions a program has (the kernel takes 4,096)."""
    return len(program) // 8


def prove() -> None:
    """See that a filter answers for the kernel: the two calls that every policy here refuses with ENOSYS.

    Without a filter they fail otherwise (EINVAL, EFAULT, EPERM). Raises KernelError.
    """
    for call in ("clone3", "io_uring_setup"):
        try:
            invoke(call, None, 0)
        except KernelError as error:
            if error.errno == errno.ENOSYS:
                continue
        raise KernelError("seccomp", errno.ENOTSUP, f"it took the filter and lets {call} pass")


def load(program: bytes) -> None:
    """Bind the calling thread and its later children to `program`. Needs no_new_privs. Raises KernelError."""
    FilterProgram(program).load()
