"""What the zygote of a whole tree knows of the supervisor's secrets: nothing, though it is forked."""

import os
import re
import tempfile
import time
from pathlib import Path

import pytest

from homeostat.proto.config import Config
from homeostat.proto.records import Plan, PlanStep
from tests.bench.stand import CONFIG, stand

COMMAND_UID = Config().users.base + 11
KEY = "sk-zygote-" + "q7" * 12
SETTINGS = (
    CONFIG
    + """
[[agent]]
name = "other"
provider = "chat"
model = { base_url = "http://127.0.0.1:9", model = "m", key_env = "ZYGOTE_TEST_KEY" }

[[agent]]
name = "live"
stage = "off"
"""
)
LOOK = "cat /proc/1/cmdline /proc/1/comm > seen; mv seen there"
PATIENCE_S = 60.0


def memory(pid: int) -> bytes:
    """Everything that the process has mapped and written."""
    found = []
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as file:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            place = re.match(r"([0-9a-f]+)-([0-9a-f]+) rw", line)
            if place is None:
                continue
            first, last = (int(word, 16) for word in place.groups())
            file.seek(first)
            found.append(file.read(last - first))
    return b"".join(found)


def test_zygote_holds_no_secret_of_the_supervisor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in its environment nor its arguments nor, as root can see, anywhere in its memory."""
    monkeypatch.setenv("ZYGOTE_TEST_KEY", KEY)
    with stand(Path("/var/tmp"), SETTINGS) as tree:
        tree.client.close()
        workers = tree.workers()
        assert KEY.encode() in Path(f"/proc/{tree.process.pid}/environ").read_bytes()
        look_for_key(workers["zygote"], workers["brain"])
    assert tree.process.stdout is not None
    tree.process.stdout.close()


def look_for_key(zygote: int, brain: int) -> None:
    """Only the brain has it. An ordinary user can't look into either: they are not dumpable."""
    folder = Path(f"/proc/{zygote}")
    assert KEY.encode() not in (folder / "cmdline").read_bytes()
    if os.geteuid() != 0:
        return
    assert KEY.encode() not in (folder / "environ").read_bytes()
    assert KEY.encode() in memory(brain)
    held = memory(zygote)
    assert len(held) > 1 << 20
    assert KEY.encode() not in held


def test_first_process_of_a_sandbox_is_called_init_in_a_whole_tree() -> None:
    """What a command reads of it names neither the zygote nor anything of the host."""
    with tempfile.TemporaryDirectory(prefix="hs-title-", dir="/var/tmp") as workspace:
        Path(workspace).chmod(0o755)
        if os.geteuid() == 0:
            os.chown(workspace, COMMAND_UID, -1)
        with stand(Path("/var/tmp"), SETTINGS) as tree:
            plan = Plan([PlanStep("look", "shell.run", {"command": LOOK})])
            tree.client.submit("look", agent="live", workspace=workspace, plan=plan)
            until_s = time.monotonic() + PATIENCE_S
            while not (seen := Path(workspace, "there")).exists():
                assert time.monotonic() < until_s, "it did not run"
                time.sleep(0.05)
            assert seen.read_bytes() == b"init\0init\n"
            tree.client.close()
        assert tree.process.stdout is not None
        tree.process.stdout.close()
