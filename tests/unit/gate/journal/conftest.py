"""Fixtures of the journal's tests: a folder and an open store, closed at the end."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from homeostat.workers.gate.journal.store import Store


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a journal will be."""
    return tmp_path / "journal"


@pytest.fixture
def store(folder: Path) -> Iterator[Store]:
    """A new journal, open."""
    with Store.open(folder, journal_id=b"0123456789abcdef") as store:
        yield store
