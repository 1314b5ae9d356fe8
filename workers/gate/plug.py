"""Who pulls the plug, of what: the checks of freeze and thaw, and their answers.

Owns: the words of these refusals and answers. Must not know: sockets, what standing still means.
Invariant: the same request again is answered alike and changes nothing.
Source: DESIGN §7, §13.
"""

from __future__ import annotations

from ...proto import wire
from .admission import Refusal
from .core import GateCore
from .freezes import SCOPES, Freeze

REASON_CHARS = 1_000


def freeze(core: GateCore, request: wire.Freeze, submitter: str, now_ns: int) -> wire.Frozen:
    """Put a freeze in force. Raises Refusal."""
    _check(core, request)
    found, created = core.freeze(
        request.scope, request.name, submitter, request.reason[:REASON_CHARS], now_ns
    )
    return wire.Frozen(
        rid=request.rid,
        scope=found.scope,
        name=found.name,
        created=created,
        since=found.since_ns,
        reason=found.reason,
        tasks=sum(task.status == "frozen" for task in core.tasks.values()),
        moving=core.moving(found.scope, found.name),
    )


def thaw(core: GateCore, request: wire.Thaw, submitter: str, now_ns: int) -> wire.Thawed:
    """Lift a freeze. Raises Refusal."""
    _check(core, request)
    known = core.freezes.get(request.scope, request.name)
    if known is not None and submitter not in ("local", known.by):
        raise Refusal(
            "not_yours",
            f"{known.words}, by {known.by}",
            field="name",
            expected="a freeze of one's own",
            remedy="Thaw it on the gate's own machine: homeostat thaw.",
        )
    found = core.thaw(request.scope, request.name, submitter, request.reason[:REASON_CHARS], now_ns)
    return wire.Thawed(
        rid=request.rid,
        scope=request.scope,
        name=request.name,
        changed=found is not None,
        since=found.since_ns if found is not None else 0,
        frozen=views(core),
    )


def views(core: GateCore) -> list[wire.FreezeView]:
    """What is frozen, oldest first."""
    return [_view(freeze) for freeze in core.freezes.list()]


def _view(freeze: Freeze) -> wire.FreezeView:
    return wire.FreezeView(scope=freeze.scope, name=freeze.name, since=freeze.since_ns, reason=freeze.reason)


def _check(core: GateCore, request: wire.Freeze | wire.Thaw) -> None:
    if request.scope not in SCOPES:
        raise Refusal("bad_field", f"scope {request.scope[:40]!r}", field="scope", expected=", ".join(SCOPES))
    if (request.scope == "all") == bool(request.name):
        raise Refusal(
            "bad_field",
            f"scope {request.scope!r} with the name {request.name[:80]!r}",
            field="name",
            expected="no name" if request.scope == "all" else f"the name of the {request.scope}",
        )
    if core.freezes.get(request.scope, request.name) is not None:
        return  # However the configuration has changed: what is frozen can be thawed.
    if request.scope == "agent":
        _check_agent(core, request.name)
    elif request.scope == "tool" and request.name not in core.pipeline.tools:
        known = ", ".join(core.pipeline.tools)
        raise Refusal("unknown_tool", f"there is no tool {request.name[:80]!r}", field="name", expected=known)


def _check_agent(core: GateCore, name: str) -> None:
    """One of the configuration, or one that was taken out of it and still has tasks."""
    known = dict.fromkeys(agent.name for agent in core.config.agent)
    known.update(dict.fromkeys(task.agent for task in core.tasks.values()))
    if name not in known:
        raise Refusal(
            "unknown_agent", f"there is no agent {name[:80]!r}", field="name", expected=", ".join(known)
        )
