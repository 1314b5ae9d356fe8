"""git, from init to rebase, on stages: each step's files count before the next begins."""

from __future__ import annotations

import pytest

from tests.compatibility.workbench import Workbench, needs

pytestmark = needs("git")

SETUP = "git init -q -b main r && cd r && git config user.name n && git config user.email e@e && "
COMMIT = SETUP + "echo 1 > a && git add a && git commit -qm one"


@pytest.fixture
def repository(work: Workbench) -> Workbench:
    """A workspace with the repository r of one commit."""
    work.output(COMMIT, "staged")
    return work


def test_git_keeps_history_when_each_step_is_a_stage(repository: Workbench) -> None:
    """Commit, branch, merge, log: staged call by staged call."""
    for step in (
        "git checkout -qb side && echo s > s && git add s && git commit -qm side",
        "git checkout -q main && echo 2 >> a && git commit -qam two",
        "git merge -q --no-edit side",
    ):
        repository.output(step, "staged", cwd="r")
    log = repository.output(
        "git log --format=%s --topo-order; git fsck --strict; git status --short", cwd="r"
    )
    assert sorted(log.splitlines()) == ["Merge branch 'side'", "one", "side", "two"]


def test_git_clones_locally_fetches_and_pushes(repository: Workbench) -> None:
    """A bare remote, alternates, and a clone without hard links: an overlay gives those other inode numbers
    where the mounter is not the machine's root, and git takes that for an attack.
    """
    text = repository.output(
        "git clone -q --no-hardlinks r c && "
        "git clone -q --bare file://$PWD/r b.git && "
        "git clone -q -s r shared && cd c && "
        "git remote add up ../b.git && "
        "echo 2 >> a && git -c user.name=n -c user.email=e@e commit -qam two && "
        "git push -q up main && git fetch -q up && "
        "git rev-list --count up/main && "
        "git -C ../shared log --format=%s",
        "staged",
    )
    assert text == "2\none\n"
    assert repository.output("git -C b.git log -1 --format=%s; git -C c fsck --strict") == "two\n"


def test_git_clones_with_hard_links_when_it_works_on_the_workspace_itself(repository: Workbench) -> None:
    """What `git clone` does by itself, of a repository that was made by an earlier stage, and within one."""
    text = repository.output(
        "git clone -q r c && stat -c %h c/.git/objects/*/* | sort -u && git -C c log --format=%s"
    )
    assert text == "2\none\n"
    another = COMMIT.replace(" r ", " s ").replace("cd r", "cd s")
    assert repository.output(f"{another} && cd .. && git clone -q s t && ls t", "staged") == "a\n"


def test_git_rebases_onto_another_branch(repository: Workbench) -> None:
    """With a conflict that is resolved in between, and without an editor."""
    text = repository.output(
        "git checkout -qb side && echo side > a && git commit -qam side && git checkout -q main && "
        "echo main > a && git commit -qam main && git checkout -q side && "
        "! git rebase -q main 2>/dev/null && "
        "echo both > a && git add a && GIT_EDITOR=true git rebase --continue >/dev/null 2>&1 && "
        "git log --format=%s && cat a",
        "staged",
        cwd="r",
    )
    assert text.splitlines()[-4:] == ["side", "main", "one", "both"]


def test_git_stashes_bisects_and_makes_a_worktree(repository: Workbench) -> None:
    """What people do less often."""
    assert (
        repository.output("echo x >> a && git stash -q && cat a && git stash pop -q && cat a", cwd="r")
        == "1\n1\nx\n"
    )
    repository.output(
        "git checkout -q a && git worktree add -q ../w -b w && echo w > ../w/w", "staged", cwd="r"
    )
    assert repository.output("git status --short; git worktree list | wc -l", cwd="w") == "?? w\n2\n"
    bisect = (
        "for i in 2 3 4 5 6; do echo $i > a; git commit -qam $i; done; "
        "git bisect start HEAD HEAD~5 >/dev/null && "
        "git bisect run sh -c 'test $(cat a) -lt 4' | grep -c 'is the first bad commit' && "
        "git show -s --format=%s bisect/bad"
    )
    assert repository.output(bisect, cwd="r") == "1\n4\n"


def test_git_packs_and_archives(repository: Workbench) -> None:
    """Its gc and its archive, whose output another program reads."""
    assert (
        repository.output(
            "git gc -q && git archive HEAD | tar tf - && ls .git/objects/pack/*.pack | wc -l", cwd="r"
        )
        == "a\n1\n"
    )


def test_git_applies_a_series_of_patches(repository: Workbench) -> None:
    """format-patch and am."""
    text = repository.output(
        "echo 2 >> a && git commit -qam two && git format-patch -q -1 && git reset -q --hard HEAD~ && "
        "git am -q 0001-two.patch && git log --format='%s %an'",
        cwd="r",
    )
    assert text == "two n\none n\n"


def test_git_says_who_are_you_when_nobody_told_it(work: Workbench) -> None:
    """Its own message, in full, and no identity of the machine's."""
    result = work.run("git init -q . && touch a && git add a && git commit -m x")
    assert result.exit_code == 128
    assert "Please tell me who you are." in result.text
    assert "git config --global user.email" in result.text
