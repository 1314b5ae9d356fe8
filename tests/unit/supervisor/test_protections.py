"""What must be there before a home is run: a layer that could not be tried is one that is missing."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from homeostat.proto.config import Config
from homeostat.proto.errors import ProtectionError
from homeostat.proto.settings import Sandbox
from homeostat.sandbox import layers, probe
from homeostat.sandbox.probe import Finding
from homeostat.supervisor import protections

MISSING = Finding("seccomp", False, True, "Function not implemented", 38, "Build the kernel with it.")


def raises() -> Finding:
    """A bug of ours, or a kernel's file that says what nobody expected."""
    raise ValueError("not a number")


def leaves() -> Finding:
    """Not even an Exception."""
    raise SystemExit(0)


def dies() -> Finding:
    """Killed before it could say anything."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


@pytest.mark.parametrize(
    ("trial", "said"),
    [
        (lambda: MISSING, "this kernel gives no .*: Function not implemented"),
        (raises, "could not be tried: ValueError: not a number"),
        (leaves, "could not be tried: SystemExit: 0"),
        (dies, "could not be tried: the trial ended with -9"),
    ],
)
def test_start_is_refused_when_a_layer_is_missing_or_its_trial_breaks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, trial: Callable[[], Finding], said: str
) -> None:
    """Before the workers, and for the home's folder; with words, a remedy and exit code 8."""
    monkeypatch.setattr(probe, "probe", lambda _protection, _directory: trial())
    strict = Config(sandbox=Sandbox(may_be_missing=()))
    checks: tuple[Callable[[], None], ...] = (
        lambda: protections.check_kernel(strict),
        lambda: protections.check_home(tmp_path, strict),
    )
    for check in checks:
        with pytest.raises(ProtectionError, match=said) as caught:
            check()
        assert caught.value.exit_code == ProtectionError.exit_code
        assert caught.value.remedy


def test_start_is_refused_when_the_trials_module_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is imported in the fork only."""
    monkeypatch.delattr(layers, "PROTECTIONS")
    with pytest.raises(ProtectionError, match="could not be tried: AttributeError"):
        protections.check_kernel(Config())


def test_start_goes_on_when_every_layer_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the operator allows to be missing is not even tried."""
    tried: list[str] = []

    def found(protection: layers.Protection, _: str) -> Finding:
        assert protection.name not in {"landlock", "cgroup", "overlay"}, tried
        return Finding(protection.name, True, True, "there")

    monkeypatch.setattr(probe, "probe", found)
    allowed = Sandbox(may_be_missing=("landlock", "cgroup", "overlay"))
    protections.check_kernel(Config(sandbox=allowed))
