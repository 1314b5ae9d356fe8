"""Stage 3: Cedar policies, default deny, forbid wins.

Owns: the policies in force, their version, and how a call becomes a Cedar request.
Must not know: tasks, messages, files on disk (texts are given).
Invariant: a request that Cedar can't decide is denied. Equal requests under one version have equal answers,
    so they
    are remembered (54-80 us become 1).
Source: docs.cedarpolicy.com; DESIGN §8 "Policy": one pre-parsed PolicySet per action.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import cedarpy

from ....proto.errors import ConfigError
from .verdict import Denied

_REMEMBERED = 4_096
_STRING_LIMIT = 64 << 10
Fact = str | bool | int


@dataclass(frozen=True, slots=True)
class Question:
    """Who wants to do what with which facts; hashable, so that an answer can be remembered."""

    agent: str
    action: str
    resource_type: str
    resource: str
    facts: tuple[tuple[str, Fact], ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """Allowed by ``rule``, or not, and why."""

    allowed: bool
    rule: str
    reason: str


class Policies:
    """A set of policies, split by action and parsed once."""

    def __init__(self, texts: Mapping[str, str], actions: Collection[str] = ()) -> None:
        """Take policy texts by name, and the ``actions`` that there are (empty: any).

        Raises ConfigError naming the text that can't be used.
        """
        self._static: dict[str, dict[str, Any]] = {}
        for name, text in texts.items():
            parsed = _parsed(name, text)
            _check_actions(name, parsed.values(), actions)
            self._static |= parsed
        self._names = {key: _name(key, policy) for key, policy in self._static.items()}
        self.version = sha256(json.dumps(self._static, sort_keys=True).encode()).hexdigest()[:16]
        self._sets: dict[str, cedarpy.PolicySet] = {}
        self._entities = cedarpy.Entities.from_json_str("[]")
        self._answers: dict[Question, Answer] = {}

    def check(self, question: Question) -> Answer:
        """Give the answer; the rule is Cedar's deciding policy. Raises Denied if there is none to give."""
        answer = self._answers.get(question)
        if answer is None:
            answer = self._ask(question)
            if len(self._answers) >= _REMEMBERED:
                self._answers.clear()
            self._answers[question] = answer
        return answer

    def _ask(self, question: Question) -> Answer:
        policies = self._sets.get(question.action)
        if policies is None:
            policies = self._sets[question.action] = self._for_action(question.action)
        request = {
            "principal": {"type": "Agent", "id": question.agent},
            "action": {"type": "Action", "id": question.action},
            "resource": {"type": question.resource_type, "id": question.resource},
            "context": {key: _mapped(key, value) for key, value in question.facts},
        }
        result = cedarpy.is_authorized(request, policies, self._entities)
        rules = [self._names[key] for key in result.diagnostics.reasons]
        if result.diagnostics.errors:
            return Answer(
                False, "error", f"a policy could not be evaluated: {result.diagnostics.errors[0]}"[:500]
            )
        if result.decision == cedarpy.Decision.Allow and rules:
            return Answer(True, rules[0][0], rules[0][1])
        if rules:
            return Answer(False, rules[0][0], rules[0][1] or f"forbidden by {rules[0][0]}")
        return Answer(False, "default-deny", f"no policy permits {question.action} here")

    def _for_action(self, action: str) -> cedarpy.PolicySet:
        mine = {key: policy for key, policy in self._static.items() if _speaks_of(policy["action"], action)}
        return cedarpy.PolicySet.from_json_str(
            json.dumps({"templates": {}, "staticPolicies": mine, "templateLinks": []})
        )


def _parsed(name: str, text: str) -> dict[str, dict[str, Any]]:
    try:
        parsed = json.loads(cedarpy.policies_to_json_str(text))
        policies: dict[str, dict[str, Any]] = parsed["staticPolicies"]
        if parsed.get("templates"):
            raise ValueError("templates are not supported")
        cedarpy.PolicySet.from_str(text)
    except ValueError as error:
        raise ConfigError(
            f"policy {name}: {error}",
            field="policy.files",
            remedy="The policy must be valid Cedar; docs/OPERATIONS.md shows examples.",
        ) from error
    for policy in policies.values():
        if "approval" in (policy.get("annotations") or {}):
            raise ConfigError(
                f"policy {name}: @approval is not supported by this version",
                field="policy.files",
                remedy="Remove the annotation; without a person to ask, such a permit would be a denial.",
            )
    return {f"{name}/{key}": policy for key, policy in policies.items()}


def _check_actions(name: str, policies: Iterable[dict[str, Any]], actions: Collection[str]) -> None:
    """A rule about an action that isn't there would forbid nothing, in silence."""
    for policy in policies:
        scope = policy["action"]
        entities = scope.get("entities") or ([scope["entity"]] if "entity" in scope else [])
        for entity in entities:
            if actions and entity.get("id") not in actions:
                raise ConfigError(
                    f"policy {name}: there is no action {entity.get('id')!r}",
                    field="policy.files",
                    expected="one of " + ", ".join(sorted(actions)),
                )


def _name(key: str, policy: dict[str, Any]) -> tuple[str, str]:
    annotations = policy.get("annotations") or {}
    return annotations.get("id") or key, annotations.get("reason") or ""


def _speaks_of(scope: dict[str, Any], action: str) -> bool:
    """Whether a policy can apply to an action; what is not understood applies, so that a forbid is never
    lost.
    """
    if scope["op"] == "==" and "entity" in scope:
        return bool(scope["entity"].get("id") == action)
    if scope["op"] == "in" and "entities" in scope:
        return any(entity.get("id") == action for entity in scope["entities"])
    return True


def _mapped(key: str, value: Fact) -> Fact:
    """Cedar has longs, strings and booleans; ``__entity`` and ``__extn`` would be interpreted."""
    if key.startswith("__") or isinstance(value, float) or value is None:
        raise Denied("policy", "unmappable", f"the fact {key!r} can't be put to a policy")
    if isinstance(value, int) and not isinstance(value, bool) and not -(1 << 63) <= value < 1 << 63:
        raise Denied("policy", "unmappable", f"the fact {key!r} does not fit in 64 bits")
    if isinstance(value, str) and len(value) > _STRING_LIMIT:
        raise Denied("policy", "unmappable", f"the fact {key!r} is longer than {_STRING_LIMIT} characters")
    return value
