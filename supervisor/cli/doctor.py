"""``homeostat doctor``: would it run here, how well protected, and what to mend.

Owns: putting the findings on the kernel and on the home beside each other.
Must not know: how a feature is tried (sandbox/probe.py), what a home is checked for (homecheck.py).
Invariant: whatever is not as it should be comes with what to do about it.
Source: DESIGN §9 "Honesty".
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import platform
import shutil
from pathlib import Path

import click
import zmq

from ...proto.config import Config, load
from ...proto.errors import ProtectionError
from ...sandbox import probe
from .homecheck import Finding, check, existing
from .settings import Settings, common
from .text import printable, say, say_json

_PACKAGES = ("homeostat", "pyzmq", "lmdb", "msgspec", "pyseccomp", "cedarpy", "jsonschema-rs", "psutil")
_TOOLS = ("bash", "git", "python3", "gcc", "make", "node", "rg")
_SIGNS = {"ok": "ok  ", "warn": "WARN", "fail": "FAIL"}


@click.command()
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path, readable=False),
    help="The settings to check against.",
)
@common()
@click.pass_obj
def doctor(settings: Settings, config_path: Path | None) -> int:
    """Check this kernel and the home; exit 0 if homeostat would run, 8 if not."""
    config = load(config_path)
    findings = check(settings.home, config) + protection(settings.home, config)
    findings += [*ways_out(config), tools(config)]
    runnable = all(finding.level != "fail" for finding in findings)
    if settings.as_json:
        say_json(
            {
                "runnable": runnable,
                "versions": versions(),
                "findings": [dataclasses.asdict(finding) for finding in findings],
            }
        )
    else:
        _print(findings, runnable)
    return 0 if runnable else ProtectionError.exit_code


def protection(home: Path, config: Config) -> list[Finding]:
    """What this kernel can give. A layer may only be missing where the operator wrote that it may."""
    return [
        Finding(found.feature, _level(found, config), _detail(found), found.remedy)
        for found in probe.probe_all(str(existing(home)))
    ]


def _level(found: probe.Finding, config: Config) -> str:
    if found.available:
        return "ok"
    return "warn" if not found.required and found.feature in config.sandbox.may_be_missing else "fail"


def _detail(found: probe.Finding) -> str:
    text = found.detail if found.errno is None else f"{found.detail} (errno {found.errno})"
    return f"{text}; without it: {found.costs}" if found.costs and not found.available else text


def ways_out(config: Config) -> list[Finding]:
    """What the courier and the database process need, where agents have them; nothing here stops a start."""
    found = []
    if config.has_courier:
        there = Path("/etc/resolv.conf").exists()
        text = "names can be resolved" if there else "no /etc/resolv.conf: only addresses can be reached"
        remedy = "" if there else "Write a name server into /etc/resolv.conf."
        found.append(Finding("courier", "ok" if there else "warn", text, remedy))
    if config.has_database:
        kinds = {one.url.partition(":")[0].partition("+")[0] for one in config.connection}
        wanted = {"sqlalchemy", *(["psycopg"] if "postgresql" in kinds else [])}
        lacking = sorted(name for name in wanted if importlib.util.find_spec(name) is None)
        text = f"no module {', '.join(lacking)}" if lacking else f"drivers for {', '.join(sorted(kinds))}"
        remedy = f"pip install {' '.join(lacking)}" if lacking else ""
        found.append(Finding("database", "warn" if lacking else "ok", text, remedy))
    return found


def tools(config: Config) -> Finding:
    """Programs that commands will look for; any may be missing, and then only they fail."""
    seen = {name: shutil.which(name, path=config.sandbox.path) for name in _TOOLS}
    missing = [name for name, path in seen.items() if path is None]
    detail = ", ".join(name for name, path in seen.items() if path)
    detail += f"; not there (optional): {', '.join(missing)}" if missing else ""
    if seen["bash"] is None:
        return Finding("tools", "warn", detail, "Install bash: shell.run runs command lines with it.")
    return Finding("tools", "ok", detail)


def versions() -> dict[str, str]:
    """What a report of a fault should name."""
    return {
        "python": platform.python_version(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "libzmq": zmq.zmq_version(),
        **{name: importlib.metadata.version(name) for name in _PACKAGES},
    }


def _print(findings: list[Finding], runnable: bool) -> None:
    say(", ".join(f"{name} {version}" for name, version in versions().items()))
    for finding in findings:
        say(f"  {_SIGNS[finding.level]}  {finding.name:<16} {printable(finding.detail)}")
        if finding.level != "ok" and finding.remedy:
            say(f"        -> {finding.remedy}")
    say("homeostat would run here" if runnable else "homeostat would NOT run here: mend what is marked FAIL")
