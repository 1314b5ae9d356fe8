from __future__ import annotations

import msgspec
import pytest

from homeostat.proto.config import Config, Sandbox
from homeostat.proto.ids import EffectClass, Key, TaskId
from homeostat.proto.messages import Execute
from homeostat.workers.executor.tools.orders import Order, ToolError, limit_s, order


def made(tool: str, klass: EffectClass = "staged", **arguments: object) -> Order:
    """The order for a call."""
    return order(execute(tool, klass, **arguments), Config())


def execute(tool: str, klass: EffectClass = "staged", **arguments: object) -> Execute:
    """A call."""
    return Execute(Key("k"), TaskId("t"), tool, msgspec.json.encode(arguments), klass, "/ws", 60.0, 1 << 20)


def test_order_of_a_shell_command_has_an_environment_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of ours is inherited."""
    monkeypatch.setenv("GIT_DIR", "/secret")
    found = made("shell.run", command="true")
    assert found.env == {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": "/tmp",
        "LANG": "C.UTF-8",
        "TERM": "dumb",
    }
    assert found.argv[1:] == (b"-c", b"true")
    assert made("shell.run", command="true", pty=True).env["TERM"] == "xterm"


@pytest.mark.parametrize(
    ("cwd", "folder"), [("", ""), ("a/b", "a/b"), ("/workspace", ""), ("/workspace/a", "a"), ("./a", "./a")]
)
def test_order_takes_a_folder_within_the_workspace(cwd: str, folder: str) -> None:
    """Relative, or under the mount point."""
    assert made("shell.run", command="true", cwd=cwd).cwd == folder


@pytest.mark.parametrize("cwd", ["..", "a/../..", "/etc", "/workspacex", "/workspace/../etc"])
def test_order_refuses_a_folder_outside_the_workspace(cwd: str) -> None:
    """It says which and why."""
    with pytest.raises(ToolError, match="leaves the workspace"):
        made("shell.run", command="true", cwd=cwd)


def test_order_of_a_read_sees_its_workspace_read_only() -> None:
    """The class decides, not the tool's good will."""
    assert made("file.read", "read", path="a").profile.workspace_read_only
    assert not made("file.write", path="a", content="").profile.workspace_read_only


def test_order_passes_long_arguments_as_input() -> None:
    """A packet has its limit; a file has not."""
    found = made("file.write", path="a", content="x" * 100_000)
    assert found.argv == (b"file.write", b"-")
    assert len(found.stdin) > 100_000


def test_order_shows_as_much_of_a_file_as_was_asked_for() -> None:
    """The excerpt does not cut what file.read was told to give."""
    assert made("file.read", "read", path="a", limit_bytes=16_000).text_limit_bytes > 16_000
    assert made("file.read", "read", path="a").text_limit_bytes >= 4_096


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("shell.run", {}),
        ("shell.run", {"command": 1}),
        ("shell.run", {"command": "x", "more": 1}),
        ("nope", {}),
    ],
)
def test_order_refuses_what_it_can_not_mean(tool: str, arguments: dict[str, object]) -> None:
    """Bad arguments and unknown tools are told, never guessed."""
    with pytest.raises(ToolError):
        order(
            Execute(Key("k"), TaskId("t"), tool, msgspec.json.encode(arguments), "staged", "/ws", 60.0, 1),
            Config(),
        )


@pytest.mark.parametrize(
    "sandbox", [Sandbox(read_only=("/opt/",)), Sandbox(read_only=("/etc/ssl",)), Sandbox(tmp_bytes=1_000)]
)
def test_order_says_it_when_the_settings_can_not_be_enforced(sandbox: Sandbox) -> None:
    """Each call is refused in words; the executor lives on."""
    with pytest.raises(ToolError, match=r"\[sandbox\] can't be enforced: .*must|cover"):
        order(execute("shell.run", command="true"), Config(sandbox=sandbox))


def test_limit_is_what_the_call_itself_asks_for() -> None:
    """Infinite without one; the gate's deadline holds anyhow."""
    assert limit_s(execute("shell.run", command="x", timeout_s=2.5)) == 2.5
    assert limit_s(execute("shell.run", command="x")) == float("inf")
    assert limit_s(execute("file.read", path="x")) == float("inf")
