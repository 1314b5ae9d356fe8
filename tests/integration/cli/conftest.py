"""A real supervisor on a home of its own, and the installed command to talk to it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from homeostat.proto.config import Config

COMMAND_UID = Config().users.base + 11
Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    """A short path (unix sockets) that workers of other uids may pass through."""
    folder = Path(tempfile.mkdtemp(prefix="hs-cli-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def home(root: Path) -> Iterator[Path]:
    """The home of a running, ready supervisor."""
    config = root / "config.toml"
    config.write_text('[metrics]\nlisten = "127.0.0.1:0"\n')
    process = subprocess.Popen(
        [*command_line(root / "home"), "run", "--config", str(config)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline().startswith("ready")
        yield root / "home"
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(60)
        process.stdout.close()
    assert code == 0


@pytest.fixture
def workspace(root: Path, request: pytest.FixtureRequest) -> Path:
    """A folder that commands may change."""
    folder = Path(tempfile.mkdtemp(prefix="w-", dir=root))
    (folder / "a.txt").write_text("one\ntwo\n")
    if os.geteuid() == 0:
        for path in (folder, folder / "a.txt"):
            os.chown(path, COMMAND_UID, COMMAND_UID)
    return folder


@pytest.fixture
def command(home: Path) -> Command:
    """Run a command line on the home; no traceback may ever be seen."""

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*command_line(home), *arguments], capture_output=True, text=True, check=False, timeout=60
        )
        assert "Traceback" not in done.stdout + done.stderr
        return done

    return call


def command_line(home: Path) -> list[str]:
    """The command on a home."""
    return [sys.executable, "-m", "homeostat.supervisor.cli.main", "--home", str(home)]
