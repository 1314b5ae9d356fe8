"""What the zygote of a whole tree knows of the supervisor's secrets: nothing, though it is forked."""

import os
import re
from pathlib import Path

import pytest

from tests.bench.stand import CONFIG, stand

KEY = "sk-zygote-" + "q7" * 12
SETTINGS = (
    CONFIG
    + """
[[agent]]
name = "other"
provider = "chat"
model = { base_url = "http://127.0.0.1:9", model = "m", key_env = "ZYGOTE_TEST_KEY" }
"""
)


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
