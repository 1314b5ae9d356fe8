"""A configuration that is no good: told by file, line and key, before anything is touched."""

from __future__ import annotations

import typing
from pathlib import Path

import msgspec
import pytest

from homeostat.proto import bounds
from homeostat.proto.config import Agent, Journal, Quotas, Sandbox, Supervision
from homeostat.proto.records import Limits
from tests.integration.bad_input.stand import COMMAND, SETTINGS, Home, attempt


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ('[quotas]\nopen_tasks = "many"\n', 5, ("quotas.open_tasks", "int")),
        ("[quotas]\nopen_task = 7\n", 5, ("quotas.open_task", "unknown key")),
        ("[quota]\n", 4, ("quota", "unknown key")),
        ("[quotas]\n\nopen_tasks = -1\n", 6, ("quotas.open_tasks", "1 to 1000000")),
        (f"[client]\nauthorized_keys = ['{'~' * 40}']\n", 5, ("client.authorized_keys", "Z85")),
        ("[sandbox]\nmax_file_bytes = 9000000000000000000000\n", 5, ("sandbox.max_file_bytes", "1 to 1")),
        ('[[agent]]\nname = "Bad Name"\n', 5, ("agent[0].name", "lower-case letters")),
        ('[[agent]]\nname = "a"\n[[agent]]\nname = "a"\n', 7, ("agent[1].name", "unique")),
        ('[[agent]]\nname = "a"\nprovider = "oracle"\n', 6, ("agent[0].provider", "oracle")),
        ('[client]\nlisten = "everywhere"\n', 5, ("client.listen", "host:port")),
    ],
)
def test_run_refuses_a_setting_when_it_is_wrong(
    home: Home, text: str, line: int, words: tuple[str, ...]
) -> None:
    """Exit 2, with file, line, key and what was expected; no home is made."""
    home.settings = f"{SETTINGS}\n{text}"
    refusal = home.refused()
    assert refusal.code == 2
    assert f"config.toml:{line}: " in refusal.message
    for word in words:
        assert word in refusal.message
    assert not home.path.exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file"),
        (b"\xff\xfe", "UTF-8"),
        (b"[metrics\n", "line 1"),
        (b"a = " + b"[" * 50_000, "nested too deeply"),
    ],
)
def test_run_refuses_a_configuration_when_it_is_no_toml(
    root: Path, content: bytes | None, words: str
) -> None:
    """Exit 2, with the file and what is the matter with it."""
    config = root / "broken.toml"
    if content is not None:
        config.write_bytes(content)
    refusal = attempt(COMMAND, "--home", str(root / "h"), "run", "--config", str(config))
    assert refusal.code == 2
    assert str(config) in refusal.message
    assert words in refusal.message
    assert "\n  " in refusal.message, "nothing says what to do"
    assert not (root / "h").exists()


@pytest.mark.unprivileged
def test_run_refuses_a_configuration_when_it_can_not_be_read(home: Home) -> None:
    """The system's own reason, and the path."""
    line = home.line()
    (home.root / "config.toml").chmod(0)
    refusal = attempt(*line)
    assert refusal.code == 2
    assert "config.toml: can't be read: Permission denied" in refusal.message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"permit everything, please\n", "unexpected token"),
        (b"permit (principal, action, resource) when { context.nonsense == };", "unexpected token"),
        (b"\xff\xfe", "decode"),
        (None, "No such file"),
    ],
)
def test_run_refuses_a_policy_when_it_is_no_cedar(home: Home, content: bytes | None, words: str) -> None:
    """The gate's refusal ends the start: exit 2 with the file and the first mistake; nothing was served."""
    policy = home.root / "own.cedar"
    if content is not None:
        policy.write_bytes(content)
        policy.chmod(0o644)
    home.settings = f'{SETTINGS}[policy]\nfiles = ["{policy}"]\n'
    refusal = home.refused()
    assert refusal.code == 2
    assert "ready" not in refusal.out
    assert str(policy) in refusal.message
    assert words in refusal.message


@pytest.mark.parametrize("key", ["metrics", "client"])
def test_run_refuses_a_port_when_it_is_taken(home: Home, key: str) -> None:
    """Exit 2, with the key, the address and the remedy."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        home.settings = (
            f'[metrics]\nlisten = "{address if key == "metrics" else "127.0.0.1:0"}"\n'
            f'[client]\nlisten = "{address if key == "client" else ""}"\n'
        )
        refusal = home.refused()
    assert refusal.code == 2
    assert f"{key}.listen" in refusal.message
    assert address in refusal.message
    assert "address already in use" in refusal.message
    assert "free port" in refusal.message


def test_run_refuses_an_address_when_it_is_not_ours(home: Home) -> None:
    """An address of another machine is told like a port that is taken."""
    home.settings = '[metrics]\nlisten = "192.0.2.7:9464"\n'
    refusal = home.refused()
    assert refusal.code == 2
    assert "metrics.listen = '192.0.2.7:9464'" in refusal.message


OURS_IS_LESS = {
    "quotas.min_free_bytes",
    "quotas.min_free_files",
    "sandbox.max_processes",
    "sandbox.max_open_files",
    "supervision.backoff_base_s",
}
"""What this machine does not have so much of; and a crash must not be waited out."""


def test_task_is_done_when_every_number_is_the_most_that_is_allowed(home: Home) -> None:
    """No number that passes the start overflows in a worker: a deadline of years is only a long one."""
    sections: dict[str, type[msgspec.Struct]] = {
        "quotas": Quotas,
        "journal": Journal,
        "sandbox": Sandbox,
        "supervision": Supervision,
    }
    tables = [f"[{table}]\n{_most(table, section)}" for table, section in sections.items()]
    agent = (
        f'[[agent]]\nname = "default"\n{_most("agent", Agent)}[agent.limits]\n{_most("agent.limits", Limits)}'
    )
    home.settings = SETTINGS + "".join(tables) + agent
    home.start()
    assert home.ends(home.accept()) == "done"
    assert [restarts for _, restarts in home.workers().values()] == [0] * 5
    assert home.stop() == 0


def _most(table: str, section: type[msgspec.Struct]) -> str:
    """The numbers of one table, each at its upper bound."""
    kinds = {name: kind for name, kind in typing.get_type_hints(section).items() if kind in (int, float)}
    lines = [
        f"{name} = {kind(bounds.of(f'{table}.{name}').most)!r}\n"
        for name, kind in kinds.items()
        if f"{table}.{name}" not in OURS_IS_LESS
    ]
    return "".join(lines)
