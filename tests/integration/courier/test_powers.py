"""What a courier can do once it has given up its powers, by the kernel's own word."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from homeostat.proto.config import Config, Credential, to_bytes

PROGRAM = """
import os, sys, json, socket, ssl, errno
from pathlib import Path
from homeostat.proto.config import from_bytes
from homeostat.workers import confine, identity
import homeostat.workers.courier.shell
home, settings, token = Path(sys.argv[1]), from_bytes(bytes.fromhex(sys.argv[2])), sys.argv[3]
confine.prepare()
if os.geteuid() == 0:
    identity.become(settings.users.base + 5, settings.users.base + 5, [settings.users.base])
os.chdir(home)
print(confine.apply("courier", Path(), settings), file=sys.stderr)

def tried(act):
    try:
        act()
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))
    return "done"

def bound(kind):
    with socket.socket(socket.AF_INET, kind) as one:
        one.bind(("127.0.0.1", 0))

def listening():
    with socket.socket() as one:
        one.listen()

def connected():
    with socket.socket() as one:
        one.connect(("127.0.0.1", int(sys.argv[4])))

def resolved():
    assert socket.getaddrinfo(b"localhost", None)

print(json.dumps({
    "exec": tried(lambda: os.execv("/bin/true", ["true"])),
    "journal": tried(lambda: open("journal/data", "rb")),
    "write": tried(lambda: open("run/made", "wb")),
    "write /tmp": tried(lambda: open("/tmp/made-by-courier", "wb")),
    "read /etc/passwd's folder": tried(lambda: os.listdir("/etc")),
    "workspace": tried(lambda: open("workspaces/file", "rb")),
    "packet": tried(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)),
    "vsock": tried(lambda: socket.socket(40, socket.SOCK_STREAM)),
    "bind": tried(lambda: bound(socket.SOCK_STREAM)),
    "listen": tried(listening),
    "ptrace": tried(lambda: open(f"/proc/{os.getppid()}/mem", "rb")),
    "credential": tried(lambda: open(token, "rb").read()),
    "hosts": tried(lambda: open("/etc/hosts", "rb").read()),
    "certificates": tried(ssl.create_default_context),
    "resolve": tried(resolved),
    "connect": tried(connected),
}))
"""


@pytest.fixture
def home() -> Iterator[Path]:
    """A home with things that are not the courier's."""
    with tempfile.TemporaryDirectory(prefix="hs-powers-") as name:
        path = Path(name)
        path.chmod(0o755)
        for folder in ("journal", "workspaces", "run/metrics", "secrets"):
            (path / folder).mkdir(parents=True)
        for file in ("journal/data", "workspaces/file", "secrets/token"):
            (path / file).write_text("content")
        yield path


def test_courier_can_dial_and_nothing_else(home: Path) -> None:
    """No program, no listening, nothing written; to read only what names, TLS and credentials need."""
    token = str(home / "secrets" / "token")
    config = Config(credential=(Credential("token", value_file=token),))
    with socket.create_server(("127.0.0.1", 0)) as server:
        arguments = [str(home), to_bytes(config).hex(), token, str(server.getsockname()[1])]
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    bind = found.pop("bind")
    assert found == {
        "exec": "EPERM",
        "journal": "EACCES",
        "write": "EACCES",
        "write /tmp": "EACCES",
        "read /etc/passwd's folder": "EACCES",
        "workspace": "EACCES",
        "packet": "EPERM",
        "vsock": "EPERM",
        "listen": "EPERM",
        "ptrace": "EACCES",
        "credential": "done",
        "hosts": "done",
        "certificates": "done",
        "resolve": "done",
        "connect": "done",
    }
    version = int(done.stderr.partition("landlock")[2].partition("+")[0])
    assert bind == ("EACCES" if version >= 4 else "done")
    assert not os.path.exists("/tmp/made-by-courier")
