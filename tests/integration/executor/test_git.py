"""git at work in a sandbox: what it does by itself is not taken for a hook; what would run later is."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from tests.integration.executor.bench import Bench

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
GIT = "git -c user.name=n -c user.email=e@e -c protocol.file.allow=always -c init.defaultBranch=main"
SUBMODULE = f"{GIT} init -q . && {GIT} submodule --quiet add file:///workspace/lib sub"
HOOK = "printf '#!/bin/sh\\n' > {0} && chmod +x {0}"


@pytest.fixture
def repository() -> Iterator[Bench]:
    """A workspace with a repository and one commit, made by git."""
    bench = Bench()
    assert hooks(bench, f"{GIT} init -q lib && cd lib && echo x > x && git add x && {GIT} commit -qm x") == 0
    yield bench
    bench.close()


def hooks(bench: Bench, command: str) -> int:
    """So many hooks has the command left, as the gate is told; what it did is kept."""
    key = bench.send("shell.run", "staged", command=command)
    found = bench.staged(key).diff.hooks
    ended = bench.ended(key)
    assert ended.status == "ok", ended.text
    return found


def test_git_leaves_no_hook_when_it_inits_clones_commits_and_adds_submodules(repository: Bench) -> None:
    """Only samples, and a ``.git`` file that leads to a repository beneath a ``.git``."""
    commit = f"echo y > y && git add y && {GIT} commit -qm y"
    assert hooks(repository, f"git clone -q --no-hardlinks lib clone && cd clone && {commit}") == 0
    assert hooks(repository, f"{SUBMODULE} && {GIT} commit -qm sub") == 0
    assert (repository.workspace / "sub" / ".git").read_text() == "gitdir: ../.git/modules/sub\n"
    assert hooks(repository, "git clone -q --no-hardlinks --bare lib bare.git") == 0


@pytest.mark.parametrize(
    "act",
    [
        HOOK.format("lib/.git/hooks/pre-commit"),
        f"{SUBMODULE} && " + HOOK.format(".git/modules/sub/hooks/post-checkout"),
        "git clone -q --no-hardlinks --bare lib bare.git && " + HOOK.format("bare.git/hooks/post-receive"),
        "git clone -q --no-hardlinks --separate-git-dir=elsewhere lib clone",
        "mv lib/.git elsewhere && ln -s ../elsewhere lib/.git",
    ],
)
def test_gate_is_told_of_a_hook_when_git_would_run_it_later(repository: Bench, act: str) -> None:
    """Wherever git looks for hooks, and where a ``.git`` begins to lead elsewhere."""
    assert hooks(repository, act) > 0
