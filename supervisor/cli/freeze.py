"""``homeostat freeze|thaw``: the plug.

Owns: the words in which freezes are told, and waiting until what was frozen stands still.
Must not know: how anything is brought to stand still.
Invariant: a freeze is in force and on disk before anything is printed; a second one, and a thaw of what is
    not frozen are answers, not errors.
Source: DESIGN §7; docs/PROTOCOL.md "JSON of the command line".
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click
import msgspec

from ...proto import wire
from ...proto.errors import HomeostatError, UsageError
from .settings import Settings, common
from .text import brief, say, say_json

if TYPE_CHECKING:
    from ...proto.client import Client

_LOOK_AGAIN_S = 0.05
_LONGEST_S = 1_000_000

Family = Callable[[Callable[..., None]], Callable[..., None]]


def _scoped(why: str) -> Family:
    """The options that freeze and thaw share."""

    def add(function: Callable[..., None]) -> Callable[..., None]:
        for option in (
            click.option("--reason", default="", help=why),
            click.option("--tool", metavar="NAME", help="Only calls of this tool."),
            click.option("--agent", metavar="NAME", help="Only tasks of this agent."),
        ):
            function = option(function)
        return function

    return add


@click.command()
@_scoped("Why, for the record and for whoever finds a task frozen.")
@click.option(
    "--timeout", "timeout_s", type=float, default=30.0, show_default=True,
    help="Seconds to wait until all of it stands still; it is frozen whatever they bring.",
)  # fmt: skip
@common()
@click.pass_obj
def freeze(settings: Settings, agent: str | None, tool: str | None, reason: str, timeout_s: float) -> None:
    """Let everything (or one agent, or one tool) stand still until it is thawed, over any restart.

    Nothing new is admitted or begun, running commands are stopped, no deadline comes nearer; nothing is
    lost, and no model hears of it. A merge that was admitted before goes to its end. Tasks can be submitted
    and cancelled.
    """
    if not 0 <= timeout_s <= _LONGEST_S:  # NaN too
        raise UsageError(f"--timeout {timeout_s}", field="timeout", expected=f"0 to {_LONGEST_S} seconds")
    scope, name = _scope(agent, tool)
    with settings.client() as client:
        first = client.freeze(scope, name, reason)
        last = _until_still(client, first, timeout_s)
    if settings.as_json:
        say_json({**_plain(last), "created": first.created})
    else:
        _print_frozen(first, last)
    if last.moving:
        raise HomeostatError(
            f"frozen, but {last.moving} calls have not come to a stop after {timeout_s:g} s",
            remedy="A merge, or an executor that restarts, may take longer: the same command waits on.",
        )


@click.command()
@_scoped("Why, for the record.")
@common()
@click.pass_obj
def thaw(settings: Settings, agent: str | None, tool: str | None, reason: str) -> None:
    """Let what the same `freeze` stopped go on. Each freeze is lifted by its own thaw."""
    scope, name = _scope(agent, tool)
    with settings.client() as client:
        answer = client.thaw(scope, name, reason)
    if settings.as_json:
        say_json(_plain(answer))
        return
    what = what_words(answer.scope, answer.name)
    if answer.changed:
        say(f"thawed: {what}, frozen since {_when(answer.since)}")
    else:
        say(f"{what} was not frozen; nothing to do")
    for view in answer.frozen:
        say(f"  still frozen: {frozen_words(view)}")


def what_words(scope: str, name: str) -> str:
    """What a freeze is of."""
    return f"{scope} {brief(name, 80)}" if name else "everything"


def frozen_words(view: wire.FreezeView) -> str:
    """One freeze in a line."""
    why = f": {brief(view.reason)}" if view.reason else ""
    return f"{what_words(view.scope, view.name)} since {_when(view.since)}{why}"


def _scope(agent: str | None, tool: str | None) -> tuple[str, str]:
    if agent is not None and tool is not None:
        raise UsageError("--agent and --tool together", field="tool", expected="one of them, or neither")
    for scope, name in (("agent", agent), ("tool", tool)):
        if name is not None:
            if not name:  # An unset variable of a script must not mean everything.
                raise UsageError(f"--{scope} is empty", field=scope, expected=f"the name of the {scope}")
            return scope, name
    return "all", ""


def _until_still(client: Client, answer: wire.Frozen, timeout_s: float) -> wire.Frozen:
    """Ask again, which changes nothing, until no call is moving."""
    until = time.monotonic() + timeout_s
    while answer.moving and time.monotonic() < until:
        time.sleep(_LOOK_AGAIN_S)
        answer = client.freeze(answer.scope, answer.name)
    return answer


def _print_frozen(first: wire.Frozen, last: wire.Frozen) -> None:
    what = what_words(first.scope, first.name)
    since = "" if first.created else f" already, since {_when(first.since)}"
    why = f": {brief(first.reason)}" if first.reason and not first.created else ""
    tasks = "1 task stands" if last.tasks == 1 else f"{last.tasks} tasks stand"
    say(f"frozen{since}: {what}{why}; {tasks} still")
    option = f" --{first.scope} {first.name}" if first.name else ""
    say(f"  let it go on with: homeostat thaw{option}")


def _plain(answer: wire.Frozen | wire.Thawed) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(answer)
    return {name: value for name, value in plain.items() if name not in ("type", "v", "rid")}


def _when(at_ns: int) -> str:
    return datetime.fromtimestamp(at_ns / 1e9).astimezone().strftime("%Y-%m-%d %H:%M:%S")
