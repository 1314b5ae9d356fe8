"""Owns: an interpreter of classic BPF as seccomp runs it.
Must not know: policies, libseccomp.
Invariants: only the instructions that seccomp permits; anything else is an error, not a verdict.
Source: linux/bpf_common.h, seccomp(2), kernel/seccomp.c (seccomp_check_filter).
"""

import struct

X86_64, I386, AARCH64 = 0xC000003E, 0x40000003, 0xC00000B7
ALLOW, KILL_PROCESS, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_MASK = 0xFFFFFFFF


def verdict(program: bytes, arch: int, number: int, args: tuple[int, ...] = ()) -> int:
    """What the filter returns for one system call."""
    words = [*args, *[0] * (6 - len(args))]
    data = struct.pack("<IIQ6Q", number & _MASK, arch, 0, *(word & (1 << 64) - 1 for word in words))
    instructions = list(struct.iter_unpack("<HBBI", program))
    accumulator, counter = 0, 0
    while True:
        code, yes, no, k = instructions[counter]
        counter += 1
        match code:
            case 0x20:
                assert k % 4 == 0
                accumulator = int.from_bytes(data[k : k + 4], "little")
            case 0x54:
                accumulator &= k
            case 0x05:
                counter += k
            case 0x15:
                counter += yes if accumulator == k else no
            case 0x25:
                counter += yes if accumulator > k else no
            case 0x35:
                counter += yes if accumulator >= k else no
            case 0x45:
                counter += yes if accumulator & k else no
            case 0x06:
                return int(k)
            case _:
                raise AssertionError(f"instruction {code:#x}")


def name(value: int) -> str:
    """A verdict as a policy would write it."""
    import errno

    if value == ALLOW:
        return "allow"
    if value == KILL_PROCESS:
        return "kill"
    assert value & 0xFFFF0000 == ERRNO, hex(value)
    return errno.errorcode[value & 0xFFFF]
