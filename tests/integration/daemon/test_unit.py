"""ops/systemd and ops/logrotate, judged by the programs that read them, where this machine has them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from homeostat.proto.config import Config
from homeostat.proto.errors import EscalationError, HomeError, ProtectionError, UsageError
from homeostat.supervisor import guardian
from tests.fakes.supervised import ROOT

UNIT = ROOT / "ops" / "systemd" / "homeostat.service"
EXPOSURE_LIMIT = 3.5
"""Of 10. What is left is namespaces and mounts for sandboxes, and the network for models."""
ANALYZE = shutil.which("systemd-analyze")
analyzed = pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not here")


def settings() -> dict[str, str]:
    """Every setting of the unit; the last of a name counts."""
    return dict(re.findall(r"^(\w+)=(.*)$", UNIT.read_text(), re.MULTILINE))


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run systemd-analyze."""
    return subprocess.run(
        [str(ANALYZE), "--no-pager", *arguments], capture_output=True, text=True, check=False, timeout=60
    )


@analyzed
def test_unit_is_accepted_when_verified(tmp_path: Path) -> None:
    """No unknown name, value or section; only the example's program is replaced by one that is here."""
    unit = tmp_path / UNIT.name
    program = f"ExecStart={sys.executable}"
    text, replaced = re.subn(r"^ExecStart=\S+", program, UNIT.read_text(), flags=re.MULTILINE)
    assert replaced == 1
    unit.write_text(text)
    done = analyze("verify", "--man=no", str(unit))
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@analyzed
def test_unit_s_exposure_is_low_when_scored(capsys: pytest.CaptureFixture[str]) -> None:
    """The score is printed, and what is worse than the limit fails."""
    threshold = f"--threshold={EXPOSURE_LIMIT * 10:.0f}"
    done = analyze("security", "--offline=true", threshold, str(UNIT))
    found = re.search(r"Overall exposure level for \S+: ([\d.]+) (\w+)", done.stdout)
    assert found is not None, done.stderr
    with capsys.disabled():
        print(f"\nsystemd-analyze security: exposure {found[1]} of 10 ({found[2]})")
    assert done.returncode == 0, done.stdout
    assert float(found[1]) <= EXPOSURE_LIMIT


def test_unit_leaves_sandboxes_their_namespaces_when_hardened() -> None:
    """The options that would keep a sandbox from being made are not set, however good the score would be."""
    forbidden = {
        "RestrictNamespaces", "PrivateUsers", "ProtectProc", "ProcSubset", "ProtectKernelTunables",
        "ProtectKernelLogs", "ProtectKernelModules", "ProtectHostname", "RestrictSUIDSGID",
        "MemoryDenyWriteExecute", "RootDirectory",
    }  # fmt: skip
    assert not forbidden & settings().keys()
    filtered = settings()["SystemCallFilter"]
    assert filtered.startswith("~"), "a list of what is denied"
    assert not {"@mount", "@privileged", "@resources", "@process"} & set(filtered[1:].split())


def test_unit_agrees_with_the_code_when_read() -> None:
    """What it says of signals, exit codes and times is what the supervisor does."""
    unit = settings()
    assert unit["Type"] == "notify"
    assert unit["ExecReload"] == "/bin/kill -HUP $MAINPID"
    lasting = {int(code) for code in unit["RestartPreventExitStatus"].split()}
    assert lasting == {UsageError.exit_code, HomeError.exit_code, ProtectionError.exit_code}
    assert lasting == guardian.LASTING.keys()
    assert EscalationError.exit_code not in lasting
    assert int(unit["WatchdogSec"]) > Config().supervision.hung_s
    assert int(unit["StartLimitBurst"]) == Config().guardian.intensity
    assert int(unit["StartLimitIntervalSec"]) == Config().guardian.period_s


def test_log_rotation_is_for_the_logs_of_the_unit_s_home() -> None:
    """The example rotates the same home, cuts in place, and needs nobody to be told."""
    text = (ROOT / "ops" / "logrotate" / "homeostat").read_text()
    assert f"/var/lib/{settings()['StateDirectory']}/log/*.log {{" in text
    assert "\n    copytruncate\n" in text
    assert "postrotate" not in text
    if (program := shutil.which("logrotate")) is not None:
        done = subprocess.run(
            [program, "--debug", str(ROOT / "ops" / "logrotate" / "homeostat")],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert "error:" not in done.stderr
