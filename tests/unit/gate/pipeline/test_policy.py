"""Stage 3: Cedar. Default deny, forbid wins, an error denies, answers belong to one version."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import homeostat.workers.gate
from homeostat.proto.errors import ConfigError
from homeostat.proto.tools import CATALOGUE
from homeostat.workers.gate.pipeline.policy import Fact, Policies, Question
from homeostat.workers.gate.pipeline.verdict import Denied

SHIPPED = Path(homeostat.workers.gate.__file__).parent / "policies"
PERMIT = '@id("all") @reason("why not") permit (principal, action, resource);'
FORBID = '@id("no-notes") @reason("no") forbid (principal, action == Action::"task.note", resource);'


def ask(action: str = "task.note", **facts: Fact) -> Question:
    """A question with these facts."""
    return Question("default", action, "Task", "own", tuple(facts.items()))


def shipped(name: str) -> Policies:
    """A set that is installed with the gate."""
    return Policies({name: (SHIPPED / f"{name}.cedar").read_text()})


def test_policy_denies_by_default() -> None:
    """No policy, no action; and the answer says so."""
    answer = Policies({}).check(ask())
    assert (answer.allowed, answer.rule) == (False, "default-deny")


def test_policy_gives_the_id_and_reason_of_the_permit() -> None:
    """What allowed it is in the verdict."""
    answer = Policies({"a": PERMIT}).check(ask())
    assert (answer.allowed, answer.rule, answer.reason) == (True, "all", "why not")


@pytest.mark.parametrize("texts", [{"a": PERMIT, "b": FORBID}, {"a": FORBID, "b": PERMIT}])
def test_policy_forbid_wins_over_any_permit(texts: dict[str, str]) -> None:
    """Whatever the order; and only where it speaks of."""
    policies = Policies(texts)
    answer = policies.check(ask())
    assert (answer.allowed, answer.rule, answer.reason) == (False, "no-notes", "no")
    assert policies.check(ask("file.read")).allowed


@pytest.mark.parametrize(
    "scope",
    [
        'action == Action::"task.note"',
        'action in [Action::"task.note", Action::"x"]',
        'action in Action::"task.note"',
        "action",
    ],
)
def test_policy_loses_no_forbid_when_split_by_action(scope: str) -> None:
    """Every form of an action scope reaches the action that it names."""
    forbid = f'@id("f") forbid (principal, {scope}, resource);'
    assert not Policies({"a": PERMIT, "b": forbid}).check(ask()).allowed


def test_policy_denies_when_a_policy_cant_be_evaluated() -> None:
    """A forbid that fails on a missing fact must not be skipped, as Cedar would."""
    broken = '@id("b") forbid (principal, action, resource) when { context.nowhere > 3 };'
    answer = Policies({"a": PERMIT, "b": broken}).check(ask())
    assert (answer.allowed, answer.rule) == (False, "error")


@pytest.mark.parametrize("value", [1.5, None, 1 << 63, -(1 << 63) - 1, "x" * 70_000])
def test_policy_denies_facts_that_cedar_cant_hold(value: Any) -> None:
    """Floats, nulls and integers over 64 bits would give no decision."""
    with pytest.raises(Denied) as caught:
        Policies({"a": PERMIT}).check(ask(fact=value))
    assert (caught.value.stage, caught.value.rule) == ("policy", "unmappable")


def test_policy_denies_a_fact_that_cedar_would_interpret() -> None:
    """``__entity`` and ``__extn`` are escapes of Cedar's JSON."""
    with pytest.raises(Denied):
        Policies({"a": PERMIT}).check(ask(__entity="x"))


def test_policy_takes_words_of_a_model_for_text_alone() -> None:
    """A command that looks like Cedar changes nothing."""
    forbid = '@id("f") forbid (principal, action, resource) when { context.command == "rm" };'
    policies = Policies({"a": PERMIT, "b": forbid})
    assert policies.check(ask(command='x" || true || "')).allowed
    assert not policies.check(ask(command="rm")).allowed


def test_policy_version_changes_with_any_policy_and_with_nothing_else() -> None:
    """The version in a verdict says under which words it was taken; remembered answers belong to it."""
    one, same, other = Policies({"a": PERMIT}), Policies({"a": PERMIT}), Policies({"a": FORBID})
    assert one.version == same.version != other.version
    assert one.check(ask()).allowed
    assert not other.check(ask()).allowed


def test_policy_remembers_answers_without_bound_to_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal questions are asked once; the memory is emptied when full, and stays right."""
    from homeostat.workers.gate.pipeline import policy

    monkeypatch.setattr(policy, "_REMEMBERED", 3)
    forbid = '@id("f") forbid (principal, action, resource) when { context.n == 2 };'
    policies = Policies({"a": PERMIT, "b": forbid})
    for _ in range(2):
        assert [policies.check(ask(n=number)).allowed for number in range(6)] == [
            True, True, False, True, True, True,
        ]  # fmt: skip
        assert len(policies._answers) <= 3


@pytest.mark.parametrize(
    "text",
    [
        "permit (principal, action",
        "permit (principal == ?principal, action, resource);",
        '@approval("person") permit (principal, action, resource);',
    ],
)
def test_policy_names_the_text_that_cant_be_used(text: str) -> None:
    """Broken Cedar, templates, and an approval that nobody could give."""
    with pytest.raises(ConfigError, match="mine"):
        Policies({"mine": text})


def test_policy_is_refused_when_it_speaks_of_an_action_that_is_not_there() -> None:
    """It would forbid nothing, in silence."""
    text = 'forbid (principal, action in [Action::"file.write", Action::"file.nope"], resource);'
    with pytest.raises(ConfigError, match=r"file\.nope"):
        Policies({"mine": text}, CATALOGUE.keys())
    assert Policies({"mine": text.replace("nope", "edit")}, CATALOGUE.keys()).version


@pytest.mark.parametrize("name", ["default", "locked"])
def test_shipped_policies_deny_what_nobody_named(name: str) -> None:
    """A tool that doesn't exist yet is not permitted in advance."""
    assert not shipped(name).check(ask("rocket.launch", **{"class": "once"}, unstaged=False)).allowed


def question(tool: str, klass: str, **facts: Fact) -> Question:
    """A call of a catalogue's tool as the pipeline would put it."""
    places = {"gate": "Task", "memory": "Memory", "courier": "Host", "database": "Database"}
    where = places.get(CATALOGUE[tool].runs_in, "Workspace")
    common: dict[str, Fact] = {"class": klass, "submitter": "local", "unstaged": False, "phase": "call"}
    return Question("default", tool, where, "own", tuple({**common, **facts}.items()))


@pytest.mark.parametrize("tool", sorted(CATALOGUE))
def test_default_policy_permits_every_built_in_tool_in_its_class(tool: str) -> None:
    """Out of the box an agent can work."""
    assert shipped("default").check(question(tool, CATALOGUE[tool].klass)).allowed


def test_default_policy_denies_unstaged_writes_unless_the_operator_said_so() -> None:
    """Class once without the operator's switch is nobody's permit."""
    default = shipped("default")
    assert not default.check(question("shell.run", "once")).allowed
    assert default.check(question("shell.run", "once", unstaged=True)).allowed


@pytest.mark.parametrize(("deleted", "allowed"), [(1_000, True), (1_001, False)])
def test_default_policy_forbids_mass_deletion_at_commit(deleted: int, allowed: bool) -> None:
    """A thousand paths, and one more."""
    answer = shipped("default").check(question("shell.run", "staged", phase="commit", deleted=deleted))
    assert answer.allowed is allowed
    assert answer.rule == ("own-workspace" if allowed else "mass-deletion")


def test_default_policy_forbids_version_control_hooks() -> None:
    """They would run later, outside of the sandbox."""
    asked = question("shell.run", "staged", phase="commit", deleted=0, touches_hooks=True)
    assert shipped("default").check(asked).rule == "version-control-hooks"


def test_default_policy_forbids_what_others_obey() -> None:
    """Unless the operator allows it for this agent, when the fact is false."""
    default = shipped("default")
    asked = question("shell.run", "staged", phase="commit", deleted=0, touches_protected=True)
    assert default.check(asked).rule == "protected-files"
    asked = question("shell.run", "staged", phase="commit", deleted=0, touches_protected=False)
    assert default.check(asked).allowed


@pytest.mark.parametrize("tool", sorted(CATALOGUE))
def test_locked_policy_permits_reading_and_notes_alone(tool: str) -> None:
    """The look-only set."""
    allowed = shipped("locked").check(question(tool, CATALOGUE[tool].klass)).allowed
    assert allowed is (CATALOGUE[tool].klass == "read" or tool == "task.note")
