import mmap
from pathlib import Path

import pytest

from homeostat.workers import slack
from homeostat.workers.slack import Rest

SMAPS = """\
7f0000000000-7f0000002000 r-xp 00000000 fe:00 12 /usr/lib/libclean.so
Rss:                   8 kB
Anonymous:             0 kB
7f0000002000-7f0000003000 r--p 00002000 fe:00 12 /usr/lib/librelocated.so
Anonymous:             4 kB
7f0000003000-7f0000004000 rw-p 00003000 fe:00 12 /usr/lib/libclean.so
Anonymous:             0 kB
7f0000004000-7f0000005000 r--p 00000000 00:00 0
Anonymous:             0 kB
7f0000005000-7f0000006000 r--p 00000000 fe:00 13 /usr/lib/libconstants.so
Anonymous:             0 kB
"""


def test_only_clean_pages_of_files_are_given_back() -> None:
    """Not what was relocated, what can be written, or what belongs to no file."""
    assert list(slack._clean(SMAPS)) == [(0x7F0000000000, 0x7F0000002000), (0x7F0000005000, 0x7F0000006000)]


def test_pages_are_gone_and_come_back_when_they_were_given_back(tmp_path: Path) -> None:
    """A real mapping of a file: not resident afterwards, and whole when it is read again."""
    path = tmp_path / "constants"
    path.write_bytes(b"homeostat" * 10_000)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ) as memory:
        assert bytes(memory[:9]) == b"homeostat"
        assert _resident_kib(path) > 0
        slack.give_back()
        assert _resident_kib(path) == 0
        assert bytes(memory[-9:]) == b"homeostat"


def test_nothing_happens_when_the_mappings_can_not_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory that is kept is no reason to end."""
    monkeypatch.setattr(slack, "SMAPS", tmp_path / "none")
    slack.give_back()


def test_rest_gives_back_once_when_it_has_been_long_enough() -> None:
    """Work puts it off; afterwards nothing is due."""
    given: list[int] = []
    rest = Rest(lambda: given.append(1))
    rest.take(100.0)
    rest.worked(100.0)
    rest.worked(101.0)
    assert rest.due_s == 101.0 + slack.REST_S
    rest.take(101.0 + slack.REST_S - 0.1)
    assert given == []
    rest.take(101.0 + slack.REST_S)
    rest.take(200.0)
    assert given == [1]
    assert rest.due_s is None


def _resident_kib(path: Path) -> int:
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    found = next(line for line in lines if line.endswith(str(path)))
    assert found
    return int(next(line for line in lines if line.startswith("Rss:")).split()[1])
