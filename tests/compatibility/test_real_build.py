"""A real program of tens of thousands of lines: configured, built and tested inside, as one staged call."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.bench.sandbox import build
from tests.compatibility.workbench import Workbench


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_real_program_is_configured_built_and_tested_in_one_staged_call(
    work: Workbench, tmp_path: Path
) -> None:
    """Its own suite passes inside, and what was built is in the workspace afterwards and runs."""
    try:
        source = build.obtain(tmp_path)
    except build.UnobtainableError as error:
        pytest.skip(f"the source of {build.PACKAGE} can't be had: {error}")
    built = build.build_inside(source, work)
    counts = {
        name: int(number) for name, number in re.findall(r"^# (\w+): +(\d+)$", built.text, re.MULTILINE)
    }
    assert counts["PASS"] > 5
    assert counts["FAIL"] == counts["ERROR"] == 0
    assert work.output("seq 9999 | source/src/xz/xz | source/src/xz/xz -d | tail -1") == "9999\n"
