from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from homeostat.workers.database import results


class Rows:
    """A cursor over made-up rows that counts how many were taken."""

    def __init__(self, rows: Iterator[tuple[Any, ...]]) -> None:
        self._rows = rows
        self.taken = 0

    def fetchone(self) -> tuple[Any, ...] | None:
        """The next one."""
        self.taken += 1
        return next(self._rows, None)


def test_a_table_is_aligned_and_tells_kinds_apart() -> None:
    """NULL, a text that reads NULL, bytes, numbers, booleans, what would break the line."""
    rows = iter([(1, "ä", None, b"\x01\xff"), (-20, "NULL", 2.5, b""), (3, "a\nb\x1b[0m", True, b"x")])
    assert results.read(Rows(rows), ["n", "text", "c", "d\n"], 10, 16_000).text().splitlines() == [
        "  n | text        | c    | d\\n",
        "----+-------------+------+--------",
        "  1 | ä           | NULL | x'01ff'",
        "-20 | 'NULL'      | 2.5  | x''",
        "  3 | a\\nb\\x1b[0m | true | x'78'",
        "[3 rows]",
    ]


def test_rows_beyond_the_limit_are_not_taken() -> None:
    """One more than the limit is looked at, to say that there are more."""
    rows = Rows((n,) for n in range(10**9))
    text = results.read(rows, ["n"], 3, 16_000).text()
    assert text.endswith("[the first 3 rows; there are more: ask with LIMIT and OFFSET]\n")
    assert rows.taken == 4


@pytest.mark.parametrize(
    "row",
    [("x" * 10**6,) * 3, tuple(range(2_000)), (b"y" * 10**6, "z"), ("\n" * 5_000,) * 4, ("ü" * 1_999,) * 7],
)
def test_text_is_bounded_whatever_the_rows_are(row: tuple[Any, ...]) -> None:
    """Wide rows, long cells and what must be written out never pass the bound."""
    for count in (1, 50):
        table = results.read(Rows(iter([row] * count)), ["c"] * len(row), 10_000, 1 << 30)
        assert len(table.text()) < 16_384
        assert table.rows


def test_a_long_cell_is_cut_with_a_mark() -> None:
    """It says how much there is in all."""
    assert results.cell("x" * 3_000) == "x" * 2_000 + "…[3,000 characters in all]"
    assert results.cell(b"\0" * 3_000) == f"x'{'00' * 1_000}'…[3,000 bytes in all]"


def test_a_drained_result_is_counted_to_its_end() -> None:
    """What a statement does it may do row by row, so every row is taken."""
    rows = Rows((n,) for n in range(1_000))
    table = results.drain(rows, results.read(rows, ["n"], 10, 16_000))
    assert table.count == 1_000
    assert table.text().endswith("[10 of 1000 rows are shown; the others are not kept]\n")
