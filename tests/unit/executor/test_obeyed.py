"""Names and settings that programs outside of the sandbox run or obey."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from homeostat.workers.executor.obeyed import (
    CONFIG_BYTES,
    commands_of,
    is_git_config,
    is_obeyed,
    leads_elsewhere,
)


@pytest.mark.parametrize(
    "path",
    [
        ".bashrc",
        "deep/er/.envrc",
        ".vscode/tasks.json",
        "a/.claude/settings.json",
        ".ssh/authorized_keys",
        ".husky/pre-commit",
    ],
)
def test_name_is_obeyed_wherever_it_lies(path: str) -> None:
    """A missing one that was made counts like one that was changed."""
    assert is_obeyed(path)


@pytest.mark.parametrize(
    "path", ["bashrc", "src/profile.py", ".gitignore", ".github/workflows/ci.yml", "vscode/x"]
)
def test_name_is_not_obeyed_when_it_only_looks_alike(path: str) -> None:
    """Ordinary work goes on."""
    assert not is_obeyed(path)


def test_configuration_of_a_repository_is_known_by_its_name() -> None:
    """Git takes any folder for a repository that has the right names in it."""
    for path in (
        ".git/config",
        "sub/.git/modules/x/config",
        "mirror.git/config",
        ".git/config.worktree",
        "config",
    ):
        assert is_git_config(path)
    for path in ("config.py", ".git/description", "config/x"):
        assert not is_git_config(path)


def test_way_to_another_repository_is_known() -> None:
    """Its configuration would be obeyed in place of this one's."""
    assert leads_elsewhere(".git/commondir")
    assert leads_elsewhere("a/.git/worktrees/x/commondir")
    assert not leads_elsewhere("commondir")


@pytest.mark.parametrize(
    "text",
    [
        "[core]\n\thooksPath = /tmp/x\n",
        "[core]\n\tbare = false\n\tfsmonitor = ./x\n",
        "[CORE]\nSSHCommand=x\n",
        '[filter "lfs"]\n\tclean = x\n',
        '[diff "a"] textconv = x\n',
        "[alias]\n\tst = !x\n",
        '[includeIf "gitdir:/"]\n\tpath = x\n',
        "[include]\npath=x",
        "[core]\n\thooks\\\nPath = x\n",
        '[credential "https://x"]\n\thelper = !x\n',
        "[core.x]\n\teditor = x\n",
        "[user] [core] hooksPath = x\n",
        "[core]\n\ta = [user]\n\tfsmonitor = x\n",
        "[core] # [user]\n\thooksPath = x\n",
        "[core]\n\tfsmonitor\n",
        "[core]\n\tfsmonitor # on\n",
        "\ufeff[core]\r\nhooksPath=x\r\n",
    ],
)
def test_setting_that_runs_something_is_seen(text: str) -> None:
    """In any case, with or without a subsection, on the section's own line, over a line's end."""
    assert commands_of(text.encode())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[core]\n\tbare = false\n\tfilemode = true\n",
        "[user]\n\tname = hookspath\n",
        "[core]\n; fsmonitor = x\n",
        "[user]\n\ta = [core]\n\tfsmonitor = x\n",
        "key: value\n- [alias]\n",
        '[branch "main"]\n\tremote = origin\n',
    ],
)
def test_ordinary_setting_runs_nothing(text: str) -> None:
    """Values and comments are not names."""
    assert not commands_of(text.encode())


def test_configuration_too_long_to_be_read_counts_as_harmful() -> None:
    """Fail closed."""
    assert commands_of(b"#" * (CONFIG_BYTES + 1))


def test_configuration_that_git_itself_writes_runs_nothing(tmp_path: Path) -> None:
    """`git init`, an identity, a remote, a branch."""
    env = {**os.environ, "GIT_CONFIG_NOSYSTEM": "1", "HOME": str(tmp_path)}
    for command in (
        "init -q .",
        "config user.name x",
        "remote add origin /nowhere",
        "config branch.main.merge x",
    ):
        subprocess.run(["git", *command.split()], cwd=tmp_path, check=True, env=env, timeout=30)
    assert not commands_of((tmp_path / ".git" / "config").read_bytes())


def test_setting_that_was_there_before_is_not_new() -> None:
    """Another value of it is."""
    before = b"[core]\n\teditor = vim\n[user]\n\tname = a\n"
    assert not commands_of(before + b"\temail = b\n") - commands_of(before)
    assert commands_of(before.replace(b"vim", b"/tmp/x")) - commands_of(before)
