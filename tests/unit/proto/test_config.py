"""Configuration: typed, with defaults, and errors that name file, line and key."""

from __future__ import annotations

import types
import typing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from homeostat.proto import config as c
from homeostat.proto.errors import ConfigError
from homeostat.proto.records import Limits


def error_of(text: str) -> ConfigError:
    """The error that this text gives."""
    with pytest.raises(ConfigError) as caught:
        c.parse(text, "home.toml")
    return caught.value


def test_config_has_defaults_when_empty() -> None:
    """An empty file and no file are the same."""
    assert c.parse("") == c.load(None) == c.Config()
    assert c.Config().agent_named("default") == c.Agent(name="default")
    assert c.Config().agent_named("nobody") is None


def test_config_reads_a_file_with_every_section(tmp_path: Path) -> None:
    """What is written is what is read."""
    path = tmp_path / "home.toml"
    path.write_text(
        'metrics.listen = "127.0.0.1:0"\n[workers]\nbrains = 2\n'
        '[[agent]]\nname = "coder"\nprovider = "chat"\ntools = ["shell.run"]\n'
        '[agent.model]\nbase_url = "http://127.0.0.1:1/v1"\nmodel = "m"\n'
        "[agent.limits]\nmax_steps = 5\n[sandbox]\nread_only = ['/opt/x']\n"
    )
    config = c.load(path)
    agent = config.agent_named("coder")
    assert agent is not None
    assert agent.model is not None
    assert (agent.tools, agent.model.model, agent.limits.max_steps) == (("shell.run",), "m", 5)
    assert (config.workers.brains, config.metrics.listen) == (2, "127.0.0.1:0")
    assert config.sandbox.read_only == ("/opt/x",)


def test_config_survives_the_way_to_a_worker() -> None:
    """to_bytes and from_bytes are each other's inverse."""
    config = c.parse('[[agent]]\nname = "a"\n[client]\nlisten = "127.0.0.1:0"\n')
    assert c.from_bytes(c.to_bytes(config)) == config
    assert c.as_dict(config)["agent"][0]["name"] == "a"


def _wrong_value(annotation: Any) -> str:
    """A TOML value that can't be of this type."""
    kinds = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    return "7" if str in kinds or typing.get_origin(annotation) is typing.Literal else '"seven"'


SECTIONS = {
    name: hint
    for name, hint in typing.get_type_hints(c.Config).items()
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct)
}
KEYS = [
    (section, key, annotation)
    for section, struct in SECTIONS.items()
    for key, annotation in typing.get_type_hints(struct).items()
]


@pytest.mark.parametrize(("section", "key", "annotation"), KEYS, ids=lambda value: str(value)[:20])
def test_config_names_file_line_and_key_when_a_type_is_wrong(section: str, key: str, annotation: Any) -> None:
    """Every key of every section."""
    wrong = "true" if annotation in (int, float) else _wrong_value(annotation)
    error = error_of(f"# a comment\n\n[{section}]\n{key} = {wrong}\n")
    assert error.message.startswith(f"home.toml:4: {section}.{key}: ")
    assert error.field == f"{section}.{key}"


@pytest.mark.parametrize("key", sorted(typing.get_type_hints(Limits)))
def test_config_names_the_line_when_an_agents_limit_is_wrong(key: str) -> None:
    """Tables within the second of an array of tables are found too."""
    text = f'[[agent]]\nname = "a"\n[agent.limits]\n{key} = 1\n'
    text += f'[[agent]]\nname = "b"\n[agent.limits]\n{key} = "x"\n'
    assert error_of(text).message.startswith(f"home.toml:8: agent[1].limits.{key}: ")


@pytest.mark.parametrize(
    ("text", "line", "key"),
    [
        ("nonsense = 1\n", 1, "nonsense"),
        ("[workers]\nbrains = 1\nbrian = 2\n", 3, "workers.brian"),
        ("[worker]\nbrains = 1\n", 1, "worker"),
        ('[[agent]]\nname = "a"\ncolour = "red"\n', 3, "agent[0].colour"),
        ("\nworkers.brian = 2\n", 2, "workers.brian"),
        ("workers = { brian = 2 }\n", 1, "workers.brian"),
    ],
)
def test_config_names_file_line_and_key_when_a_key_is_unknown(text: str, line: int, key: str) -> None:
    """A misspelt key is never ignored."""
    error = error_of(text)
    assert error.message == f"home.toml:{line}: {key}: unknown key"
    assert error.field == key
    assert error.exit_code == 2


@pytest.mark.parametrize(
    ("text", "line", "key"),
    [
        ("[workers]\nbrains = 0\n", 2, "workers.brains"),
        ("[workers]\nexecutors = 65\n", 2, "workers.executors"),
        ("[client]\nauthorized_keys = ['short']\n", 2, "client.authorized_keys"),
        ("[sandbox]\nread_only = ['usr']\n", 2, "sandbox.read_only"),
        ("[sandbox]\nread_only = ['/usr/../etc']\n", 2, "sandbox.read_only"),
        ("[sandbox]\nread_only = ['/opt/']\n", 2, "sandbox.read_only"),
        ("[sandbox]\nread_only = ['/opt', '/etc/ssl']\n", 2, "sandbox.read_only"),
        ("[sandbox]\nread_only = ['/']\n", 2, "sandbox.read_only"),
        ("[sandbox]\ntmp_bytes = 1000\n", 2, "sandbox.tmp_bytes"),
        (f"[client]\nauthorized_keys = ['{'~' * 40}']\n", 2, "client.authorized_keys"),
        (f"[client]\nauthorized_keys = ['{'é' * 40}']\n", 2, "client.authorized_keys"),
        (f"[client]\nauthorized_keys = ['{'#' * 40}']\n", 2, "client.authorized_keys"),
        ("[quotas]\nopen_tasks = 1000000000000000000000000\n", 2, "quotas.open_tasks"),
        ("[sandbox]\nmax_file_bytes = 9000000000000000000000\n", 2, "sandbox.max_file_bytes"),
        ("[journal]\nmap_bytes = 1\n", 2, "journal.map_bytes"),
        ('[[agent]]\nname = "a"\nin_doubt_s = 1e11\n', 3, "agent[0].in_doubt_s"),
        ('[[agent]]\nname = "a"\n[agent.limits]\nmax_wall_s = 1e11\n', 4, "agent[0].limits.max_wall_s"),
        (f'[client]\nlisten = "localhost:{"9" * 5000}"\n', 2, "client.listen"),
        ('[[agent]]\nname = "a"\n[[agent]]\nname = "a"\n', 4, "agent[1].name"),
        ('[[agent]]\nname = "Not Good"\n', 2, "agent[0].name"),
        ('[[agent]]\nname = "a"\nprovider = "chat"\n', 1, "agent[0].model"),
        ('[metrics]\nlisten = "nowhere"\n', 2, "metrics.listen"),
        ('[client]\nlisten = "localhost:99999"\n', 2, "client.listen"),
    ],
)
def test_config_names_file_line_and_key_when_a_value_is_impossible(text: str, line: int, key: str) -> None:
    """What types can't say is said in the same form."""
    error = error_of(text)
    assert error.message.startswith(f"home.toml:{line}: {key}")
    assert error.field == key


@pytest.mark.parametrize("seconds", ["nan", "inf", "-1.0", "0.0"])
def test_config_refuses_times_that_never_come(seconds: str) -> None:
    """A deadline must be a positive, finite number: a timer with nan never fires."""
    for key in ("max_wall_s", "call_timeout_s"):
        text = f'[[agent]]\nname = "a"\n[agent.limits]\n{key} = {seconds}\n'
        assert error_of(text).field == "agent[0].limits." + key
    assert error_of(f'[[agent]]\nname = "a"\nin_doubt_s = {seconds}\n').field == "agent[0].in_doubt_s"


def test_config_says_what_it_read_when_a_number_has_more_digits_than_python_takes() -> None:
    """No traceback for a line of nines."""
    assert "4300" in error_of("[quotas]\nopen_tasks = " + "9" * 5_000).message


def test_config_says_where_when_it_is_not_toml() -> None:
    """The TOML parser's own words, with the file."""
    message = error_of("[workers\n").message
    assert message.startswith("home.toml: not TOML: ")
    assert "line 1" in message


def test_config_says_why_when_the_file_cant_be_read(tmp_path: Path) -> None:
    """A missing file, a folder, and bytes that are not text."""
    (tmp_path / "latin").write_bytes(b"a = '\xe9'")
    for name, why in (("none", "No such file"), ("", "directory"), ("latin", "not UTF-8")):
        with pytest.raises(ConfigError, match=why):
            c.load(tmp_path / name)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("127.0.0.1:0", ("127.0.0.1", 0)),
        ("[::1]:80", ("::1", 80)),
        ("localhost:65535", ("localhost", 65_535)),
    ],
)
def test_host_port_splits_an_address(value: str, expected: tuple[str, int]) -> None:
    """IPv6 in brackets too."""
    assert c.host_port(value, "k") == expected


@pytest.mark.parametrize("value", ["", "localhost", ":80", "h:", "h:x", "h:-1", "h:65536", "h:٣"])
def test_host_port_names_its_key_when_it_is_no_address(value: str) -> None:
    """The key and an example."""
    with pytest.raises(ConfigError) as caught:
        c.host_port(value, "metrics.listen")
    assert caught.value.field == "metrics.listen"
    assert "127.0.0.1" in caught.value.expected


def test_default_home_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """HOMEOSTAT_HOME, then XDG, then the user's own state folder."""
    monkeypatch.setenv("HOMEOSTAT_HOME", "/h")
    monkeypatch.setenv("XDG_STATE_HOME", "/x")
    monkeypatch.setenv("HOME", "/u")
    assert c.default_home() == Path("/h")
    monkeypatch.delenv("HOMEOSTAT_HOME")
    assert c.default_home() == Path("/x/homeostat")
    monkeypatch.delenv("XDG_STATE_HOME")
    assert c.default_home() == Path("/u/.local/state/homeostat")


def test_config_is_refused_when_an_agent_names_a_tool_that_is_none() -> None:
    """With line, key and the list of tools: such an agent could only be refused at its first call."""
    error = error_of('[[agent]]\nname = "a"\ntools = ["shell.run", "shel.run"]\n')
    assert error.message == "home.toml:3: agent[0].tools: there is no tool 'shel.run'"
    assert "shell.run, file.read" in error.expected
