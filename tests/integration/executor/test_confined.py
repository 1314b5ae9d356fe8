from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from homeostat.proto import messages as m
from homeostat.proto.config import Config
from homeostat.proto.ids import EffectClass, Key, TaskId
from tests.fakes.zygote import ZygoteProcess
from tests.integration.executor.bench import remove

OWN_FOLDERS = ("ledger", "artifacts", "stages", "workspaces")
OTHERS_FOLDERS = ("journal", "keys", "memory", "run/metrics")


class Confined:
    """A home as the supervisor makes it, and executors with no more than their powers."""

    def __init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="homeostat-test-", dir="/var/tmp"))
        self.home.chmod(0o711)
        uid = Config().users.base + 3 if os.geteuid() == 0 else os.geteuid()
        for name in (*OWN_FOLDERS, *OTHERS_FOLDERS):
            (self.home / name).mkdir(parents=True, mode=0o711 if name in {"stages", "workspaces"} else 0o700)
            if name in OWN_FOLDERS:
                os.chown(self.home / name, uid, uid)
        self.workspace = self.home / "workspaces" / "t1"
        self.zygote = ZygoteProcess()
        self._keys = 0

    def run(self, tool: str, klass: EffectClass, **arguments: object) -> list[str]:
        """One call in a life of its own; what was said of it."""
        self._keys += 1
        args, key = msgspec.json.encode(arguments), Key(f"{self._keys:032x}")
        execute = m.Execute(key, TaskId("t1"), tool, args, klass, str(self.workspace), 30.0, 1 << 20)
        owner = self.zygote.new_owner()
        words = [str(self.home), str(owner.fileno()), msgspec.msgpack.encode(execute).hex()]
        done = subprocess.run(
            [sys.executable, "-m", "tests.integration.executor.confined", *words],
            pass_fds=[owner.fileno()], capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    def close(self) -> None:
        """End and remove all."""
        self.zygote.close()
        remove(self.home)


@pytest.fixture
def confined() -> Iterator[Confined]:
    """A home as the supervisor makes it."""
    made = Confined()
    yield made
    made.close()


def test_executor_does_all_its_work_with_no_more_than_its_powers(confined: Confined) -> None:
    """Under its own uid, Landlock and seccomp: run, stage, merge, read, keep an artifact, discard."""
    said = confined.run(
        "shell.run", "staged", command="mkdir d; echo one > d/f; echo hidden > .x; chmod 600 d/f"
    )
    assert said[-1] == "ended ok "
    assert (confined.workspace / "d" / "f").read_text() == "one\n"
    assert (
        confined.run("shell.run", "staged", command="echo two >> d/f; rm .x; cat d/f")[-1]
        == "ended ok one|two|"
    )
    assert confined.run("file.read", "read", path="d/f") == ["ended ok one|two|"]
    assert confined.run("shell.run", "once", command="echo three > d/f", pty=True)[-1] == "ended ok "
    assert confined.run("file.edit", "staged", path="d/f", old="three", new="four")[-1].startswith(
        "ended ok edited"
    )
    assert (confined.workspace / "d" / "f").read_text() == "four\n"
    confined.run("shell.run", "staged", command="seq 100000")
    assert sum(path.stat().st_size for path in (confined.home / "artifacts").glob("*/*")) == 588_895
    assert confined.run("file.list", "read", recursive=True) == ["ended ok d/|d/f (5 bytes)|"]
