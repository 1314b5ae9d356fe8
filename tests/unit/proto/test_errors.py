"""The tree of errors: stable codes, an exit code and a sentence each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from homeostat.proto import errors as e


def tree(root: type[e.HomeostatError]) -> Iterator[type[e.HomeostatError]]:
    """A class of proto/errors.py and all below it, in that file."""
    yield root
    for child in root.__subclasses__():
        if child.__module__ == e.__name__:
            yield from tree(child)


ALL = list(tree(e.HomeostatError))
EXITS = {
    "error": 1,
    "usage": 2,
    "config": 2,
    "plan": 2,
    "refused": 3,
    "unreachable": 4,
    "home": 7,
    "home_locked": 7,
    "journal": 7,
    "journal_newer": 7,
    "journal_damaged": 7,
    "disk_full": 7,
    "protection": 8,
    "malformed": 3,
    "too_large": 3,
    "version": 3,
    "escalation": 9,
}


def test_errors_keep_their_codes_and_exit_codes() -> None:
    """Scripts depend on them."""
    assert {one.code: one.exit_code for one in ALL} == EXITS
    assert len(ALL) == len(EXITS)


def test_errors_docstring_draws_the_whole_tree() -> None:
    """The picture at the top of the file is the tree that runs."""
    assert e.__doc__ is not None
    assert [one.__name__ for one in ALL if one.__name__ not in e.__doc__] == []


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_error_speaks_its_docstring_when_it_has_no_words_of_its_own(kind: type[e.HomeostatError]) -> None:
    """No error is mute."""
    assert kind().message == (kind.__doc__ or "").strip() != ""


def test_error_diagnostics_give_expectation_and_remedy_once() -> None:
    """What was expected is not said twice; the mend stands on its own line."""
    error = e.ConfigError("port = 7", expected="80", remedy="Mend it.")
    assert error.diagnostics() == "port = 7 (expected 80)\n  Mend it."
    assert e.ConfigError("at most 80", expected="80").diagnostics() == "at most 80"
