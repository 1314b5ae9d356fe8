"""Secrets of the environment: each goes to the one role that uses it."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path

import msgspec
import pytest

from homeostat.proto.config import Agent, Config, Connection, Credential, Model
from homeostat.supervisor import secrets
from homeostat.supervisor.secrets import Secrets, secret_troubles

CONFIG = Config(
    agent=(Agent("one", model=Model("http://x", "m", key_env="MODEL_KEY")),),
    credential=(Credential("token", value_env="TOKEN"), Credential("file", value_file="/x")),
    connection=(Connection("db", "postgresql://x", password_env="PASSWORD"),),
)
ENVIRONMENT = {"MODEL_KEY": "a-key", "TOKEN": "a-token", "PASSWORD": "a-password", "PATH": "/bin", "": "odd"}


def test_secrets_are_kept_from_everybody_but_their_role() -> None:
    """The nursery gets what is public; a role what it uses and no other secret."""
    secrets = Secrets.taken(CONFIG, ENVIRONMENT)
    assert secrets.public == {"PATH": "/bin", "": "odd"}
    assert secrets.of("brain") == {"MODEL_KEY": "a-key"}
    assert secrets.of("courier") == {"TOKEN": "a-token"}
    assert secrets.of("database") == {"PASSWORD": "a-password"}
    for role in ("gate", "executor", "memory", "zygote"):
        assert secrets.of(role) == {}
    assert sorted(secrets.kept.values()) == ["a-key", "a-password", "a-token"]


def test_secrets_of_a_role_are_all_that_its_descriptor_holds() -> None:
    """In memory, not in a file."""
    fd = Secrets.taken(CONFIG, ENVIRONMENT).to_fd("courier")
    try:
        assert msgspec.msgpack.decode(os.pread(fd, 4_096, 0)) == {"TOKEN": "a-token"}
        assert os.readlink(f"/proc/self/fd/{fd}").startswith("/memfd:")
    finally:
        os.close(fd)


def test_troubles_name_secrets_that_would_not_be_found(tmp_path: Path) -> None:
    """An unset variable, a missing file; never one that is there."""
    (tmp_path / "there").write_text("a-secret")
    tmp_path.chmod(0o755)
    config = Config(
        credential=(
            Credential("unset", value_env="NO_SUCH"),
            Credential("set", value_env="TOKEN"),
            Credential("missing", value_file=str(tmp_path / "nothing")),
        ),
        connection=(Connection("db", "postgresql://x", password_env="NO_PASSWORD"), Connection("open", "x")),
    )
    found = dict(secret_troubles(config, ENVIRONMENT))
    assert [*found] == ["credential 'unset'", "credential 'missing'", "connection 'db'"]
    assert found["credential 'unset'"] == "environment variable NO_SUCH is empty or missing"


@pytest.mark.root
def test_troubles_name_a_file_that_the_courier_may_not_read() -> None:
    """As root it is tried as the courier's user."""
    with tempfile.TemporaryDirectory(prefix="hs-secret-") as name:
        Path(name).chmod(0o755)
        path = Path(name) / "token"
        path.write_text("made-up-token")
        path.chmod(0o600)
        config = Config(credential=(Credential("token", value_file=str(path)),))
        ((_, reason),) = secret_troubles(config)
        assert "permission denied" in reason
        assert "the courier's" in reason
        os.chown(path, config.users.base + 5, -1)
        assert [*secret_troubles(config)] == []


@pytest.mark.root
def test_troubles_tell_a_file_whose_trial_breaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be tried is not there; by an exception or a signal, and with nothing of the key."""
    path = tmp_path / "token"
    path.write_text("made-up-token")
    config = Config(credential=(Credential("token", value_file=str(path)),))

    def raises(_: str) -> str:
        raise RuntimeError(path.read_text())

    def dies(_: str) -> str:
        os.kill(os.getpid(), signal.SIGKILL)
        return ""

    for broken, code in ((raises, 1), (dies, -9)):
        monkeypatch.setattr(secrets, "_read", broken)
        ((_, reason),) = secret_troubles(config)
        assert f"it could not be tried (the trial ended with {code})" in reason
        assert "the courier's" in reason
        assert "made-up-token" not in reason
