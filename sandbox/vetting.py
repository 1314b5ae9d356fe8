"""Owns: which launches can't be meant.
Must not know: how a launch is carried out, what runs already.
Invariants: judged by the request alone, before anything is made for it.
Source: protocol.py; execve(2), ioctl_tty(2) for what has no meaning there.
"""

from collections.abc import Collection

from .protocol import Launch


def faults(launch: Launch, fd_count: int, builtins: Collection[str]) -> list[str]:
    """Everything that is wrong with it; `fd_count` descriptors came with it, and these built-ins exist."""
    return [
        reason
        for bad, reason in (
            (launch.id < 1, "id must be at least 1"),
            (fd_count != launch.fd_count(), f"{fd_count} descriptors came, {launch.fd_count()} are needed"),
            (launch.tty and not launch.profile.tty, "the profile allows no terminal"),
            (launch.egress and launch.profile.network != "courier", "the profile allows no way out"),
            (launch.builtin is None and not launch.argv, "argv is empty"),
            (launch.builtin not in (None, *builtins), f"no built-in {launch.builtin}"),
            (not all(map(_is_variable, launch.env.items())), "a variable has a bad name or a NUL"),
            (
                any(b"\0" in word for word in launch.argv) or "\0" in launch.cwd,
                "NUL in an argument or in cwd",
            ),
            (
                not (0 < launch.rows < 65536 and 0 < launch.cols < 65536),
                "rows and cols must be 1 to 65535",
            ),
        )
        if bad
    ]


def _is_variable(pair: tuple[str, str]) -> bool:
    name, value = pair
    return bool(name) and "=" not in name and "\0" not in name + value
