"""``homeostat doctor``: findings, their levels, and the exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from homeostat.proto.config import Config, Quotas, Sandbox
from homeostat.sandbox import probe
from homeostat.supervisor.cli import doctor
from homeostat.supervisor.cli.homecheck import check
from tests.unit.cli.conftest import Command

MISSING = probe.Finding("landlock", False, False, "this kernel has none", None, "boot with lsm=landlock")
BROKEN = probe.Finding("user_namespaces", False, True, "Operation not permitted", 1, "allow them")


def test_doctor_agrees_with_what_the_kernel_gives(command: Command, tmp_path: Path) -> None:
    """The exit code follows the findings, every failing one has a remedy, and nothing is left behind."""
    before = sorted(tmp_path.rglob("*"))
    ran = command("doctor", "--json")
    said = json.loads(ran.out)
    levels = {finding["name"]: finding["level"] for finding in said["findings"]}
    assert said["runnable"] == ("fail" not in levels.values())
    assert ran.code == (0 if said["runnable"] else 8)
    assert {"path length", "writable", "room", "lock", "overlay", "seccomp", "landlock"} <= levels.keys()
    assert all(finding["remedy"] for finding in said["findings"] if finding["level"] == "fail")
    assert {"homeostat", "python", "kernel", "libzmq"} <= said["versions"].keys()
    assert sorted(tmp_path.rglob("*")) == before


def test_doctor_exits_8_with_the_remedy_when_a_protection_is_missing(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The errno and what to do are shown."""
    monkeypatch.setattr(probe, "probe_all", lambda _directory: [BROKEN])
    ran = command("doctor")
    assert ran.code == 8
    assert "FAIL  user_namespaces  Operation not permitted (errno 1)" in ran.out
    assert "-> allow them" in ran.out


def test_a_layer_may_be_missing_only_where_the_operator_wrote_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law 8: fail closed, say so."""
    monkeypatch.setattr(probe, "probe_all", lambda _directory: [MISSING])
    strict, lenient = Config(), Config(sandbox=Sandbox(may_be_missing=("landlock",)))
    assert [finding.level for finding in doctor.protection(tmp_path, strict)] == ["fail"]
    assert [finding.level for finding in doctor.protection(tmp_path, lenient)] == ["warn"]


def test_check_fails_where_a_home_can_not_be(tmp_path: Path) -> None:
    """Too long a path, a file in the way, too little room."""
    (tmp_path / "file").write_text("")
    greedy = Config(quotas=Quotas(min_free_bytes=1 << 62))

    def failed(home: Path, config: Config) -> set[str]:
        return {finding.name for finding in check(home, config) if finding.level == "fail"}

    assert failed(tmp_path / "home", Config()) == set()
    assert failed(tmp_path / ("x" * 100), Config()) == {"path length"}
    assert "writable" in failed(tmp_path / "file" / "home", Config())
    assert failed(tmp_path / "home", greedy) == {"room"}


@pytest.mark.unprivileged
def test_check_fails_where_a_home_is_not_ones_own() -> None:
    """An ordinary user can't use the root folder."""
    assert {"writable", "private"} <= {
        found.name for found in check(Path("/"), Config()) if found.level == "fail"
    }
