"""What a sandbox forbids is refused at once and in the program's own words: no hang, no crash, no silence."""

from __future__ import annotations

import pytest

from tests.compatibility.workbench import Workbench, needs

REFUSED = [
    pytest.param("strace -f true", "Operation not permitted", id="strace", marks=needs("strace")),
    pytest.param(
        "gdb -q -batch -nx -ex run -ex bt true", "Operation not permitted", id="gdb", marks=needs("gdb")
    ),
    pytest.param("bwrap --bind / / true", "bwrap: ", id="bwrap", marks=needs("bwrap")),
    pytest.param("unshare -Ur true", "unshare failed: Operation not permitted", id="unshare"),
    pytest.param("mount -t tmpfs none /tmp", "must be superuser", id="mount"),
    pytest.param("su -c true", "su: ", id="su"),
    pytest.param("chown 0 .", "changing ownership of '.': Invalid argument", id="chown"),
    pytest.param("mkdir /usr/x || touch /etc/x", "Read-only file system", id="write to the system"),
    pytest.param("nice -n -5 true 2>&1 && false", "Permission denied", id="nice"),
    pytest.param("dmesg", "Operation not permitted", id="dmesg"),
    pytest.param("date -s 2001-01-01", "Operation not permitted", id="set the clock"),
    pytest.param("kill -9 1; sleep 0.1; echo alive; false", "alive", id="kill the sandbox's first process"),
    pytest.param(
        "curl -sS -m 20 http://192.0.2.1/", "Failed to connect", id="curl to an address",
        marks=needs("curl"),
    ),
    pytest.param(
        "curl -sS -m 20 http://example.org/", "Could not resolve host", id="curl to a name",
        marks=needs("curl"),
    ),
    pytest.param(
        "ssh-keyscan -T 5 192.0.2.1; echo nothing; false", "Network is unreachable", id="ssh-keyscan",
        marks=needs("ssh-keygen"),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("command", "words"), REFUSED)
def test_program_says_what_was_refused(work: Workbench, command: str, words: str) -> None:
    """It ends by itself with a failure and names the reason."""
    result = work.run(command)
    assert result.status == "error", result
    assert words in result.text
