"""Everyday programs in the sandbox, each by a result that only a working program gives: everyday.txt."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.compatibility.workbench import Workbench, needs

CASE = re.compile(r"^=== ([^:\n]+?)(?: : ([^\n]*))?\n(.*?)\n----\n(.*?)(?=^===|\Z)", re.MULTILINE | re.DOTALL)


class Case(NamedTuple):
    """Commands, and all that they must print."""

    name: str
    programs: str
    command: str
    expected: str


CASES = [Case(*found) for found in CASE.findall(Path(__file__).with_name("everyday.txt").read_text())]


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=case.name, marks=needs(*case.programs.split())) for case in CASES]
)
def test_program_gives_its_result_when_run_inside(work: Workbench, case: Case) -> None:
    """The whole output, errors included; newlines at its end don't count."""
    assert work.output(case.command).rstrip("\n") == case.expected.rstrip("\n")


def test_cases_are_all_read() -> None:
    """As many as the page has, so that none is lost by its form."""
    assert len(CASES) == Path(__file__).with_name("everyday.txt").read_text().count("\n=== ") > 30
