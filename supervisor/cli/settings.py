"""The options that every command has, before or after its name.

Owns: ``--home`` and ``--json``.
Must not know: the commands.
Invariant: the option nearest to the command wins.
Source: DESIGN §13; XDG Base Directory Specification for the default home.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from ...proto.client import Client

F = TypeVar("F", bound=Callable[..., Any])


@dataclass
class Settings:
    """What was asked for on the command line."""

    given_home: str | None = None
    as_json: bool = False

    @property
    def home(self) -> Path:
        """``--home``, else ``$HOMEOSTAT_HOME``, else the XDG state folder; absolute."""
        if self.given_home:
            return Path(self.given_home).expanduser().absolute()
        from ...proto.config import default_home  # noqa: PLC0415  --help needs no msgspec

        return default_home().expanduser().absolute()

    def client(self, timeout_s: float = 10.0) -> Client:
        """A client of this home's gate. Raises UnreachableError."""
        from ...proto.client import Client  # noqa: PLC0415  nor ZeroMQ

        return Client.for_home(self.home, timeout_s=timeout_s)


def _set_home(ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
    if value is not None:
        ctx.ensure_object(Settings).given_home = value


def _set_json(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value:
        ctx.ensure_object(Settings).as_json = True


def common(*, json: bool = True) -> Callable[[F], F]:
    """Add ``--home`` and, where something is printed, ``--json``; commands find both in their Settings."""

    def add(command: F) -> F:
        home = click.option(
            "--home",
            metavar="DIR",
            expose_value=False,
            callback=_set_home,
            help="The home folder. Default: $HOMEOSTAT_HOME, else the XDG state folder.",
        )
        flag = click.option(
            "--json", is_flag=True, expose_value=False, callback=_set_json, help="Print JSON for programs."
        )
        return home(flag(command)) if json else home(command)

    return add
