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
        """``--home``, else ``$HOMEOSTAT_HOME``, else the XDG state folder; absolute.

        Raises UsageError for a name that is none, HomeError for one that no message could carry.
        """
        from ...proto.config import default_home  # noqa: PLC0415  --help needs no msgspec
        from ...proto.errors import HomeError, UsageError  # noqa: PLC0415  same

        if self.given_home == "":  # An unset variable of a script must not mean another home.
            raise UsageError("--home is empty", field="home", expected="a folder")
        home = default_home() if self.given_home is None else Path(self.given_home)
        try:
            home = home.expanduser().absolute()
            str(home).encode()
        except RuntimeError as error:
            raise UsageError(f"--home {home}: there is no such user", field="home") from error
        except UnicodeEncodeError as error:
            raise HomeError(f"--home {home}: its name is not UTF-8", remedy="Use another --home.") from error
        return home

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
