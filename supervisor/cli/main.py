"""The command ``homeostat``: finds the subcommand, and turns every failure into one message and an exit code.

Owns: the list of subcommands, the options before them, exit codes.
Must not know: what any subcommand does; each is imported when it is called, so that ``status`` starts fast.
Invariant: no traceback reaches a person; what nobody foresaw is written to a log and exits 70 (EX_SOFTWARE).
Source: issue-level contract in docs/PROTOCOL.md "Exit codes"; click's "Lazily Loading Subcommands".
"""

from __future__ import annotations

import importlib
import io
import sys
from typing import Any, NoReturn

import click

from ...proto.errors import HomeostatError, UsageError
from .failure import EX_SOFTWARE, INTERRUPTED, PIPE_CLOSED, report, report_crash
from .settings import Settings, common
from .text import ReaderGoneError

COMMANDS = {
    "run": "run",
    "start": "start",
    "stop": "stop",
    "restart": "restart",
    "reload": "reload",
    "status": "status",
    "top": "top",
    "submit": "submit",
    "watch": "watch",
    "tasks": "tasks",
    "show": "tasks",
    "attach": "attach",
    "diff": "diff",
    "rewind": "rewind",
    "cancel": "tasks",
    "resolve": "tasks",
    "freeze": "freeze",
    "thaw": "freeze",
    "trace": "trace",
    "letters": "letters",
    "crashes": "crashes",
    "doctor": "doctor",
    "selftest": "selftest",
}


class Commands(click.Group):
    """A group whose commands are imported when they are wanted."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        """In the order in which a newcomer needs them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  same
        """Import the family that the command belongs to."""
        family = COMMANDS.get(cmd_name)
        if family is None:
            return None
        command: click.Command = getattr(importlib.import_module(f".{family}", __package__), cmd_name)
        return command


def _version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version  # noqa: PLC0415  takes as long as all the rest

        click.echo(f"homeostat {version('homeostat')}")
        ctx.exit()


@click.command("homeostat", cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_version, help="Print the version."
)
@common()
@click.pass_context
def homeostat(ctx: click.Context) -> None:
    """Keep LLM agents alive on this machine, and let them do only what was admitted."""
    ctx.ensure_object(Settings)


def run(arguments: list[str] | None = None) -> int:
    """Carry out a command line; give its exit code."""
    settings = Settings()
    try:
        code: Any = homeostat.main(arguments, prog_name="homeostat", standalone_mode=False, obj=settings)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except HomeostatError as error:
        report(error)
        return error.exit_code
    except UnicodeEncodeError as error:
        if error.encoding != "utf-8":
            report_crash(error, settings)
            return EX_SOFTWARE
        # A request is text; bytes of a command line that are none come to us as lone surrogates.
        report(UsageError(f"{error.object[:80]!r} is not UTF-8", expected="arguments that are text"))
        return UsageError.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except ReaderGoneError:
        return PIPE_CLOSED
    except Exception as error:  # noqa: BLE001  the last resort: it ends in a log file and a message
        report_crash(error, settings)
        return EX_SOFTWARE
    return code if isinstance(code, int) else 0


def main() -> NoReturn:
    """Entry point of the installed command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # An old locale must not turn an answer into an error.
            stream.reconfigure(errors="backslashreplace")
    sys.exit(run())


if __name__ == "__main__":
    main()
