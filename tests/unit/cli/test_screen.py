"""`homeostat top` as text: what stands where at which size."""

from __future__ import annotations

import time
from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import given, strategies as st

from homeostat.proto import wire
from homeostat.supervisor import control
from homeostat.supervisor.cli.cells import width
from homeostat.supervisor.cli.grid import Span, ansi, plain
from homeostat.supervisor.cli.picture import History, Look, Picture, picture
from homeostat.supervisor.cli.screen import arranged, screen, settled
from homeostat.supervisor.cli.view import View, pressed

S = 1_000_000_000
NOW_NS = 1_790_000_000 * S


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The clock in the corner is the reader's; here it is Greenwich's."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


AWAY: dict[str, object] = {
    **dict.fromkeys(("serving_s", "cpu_s", "memory_bytes", "threads", "open_files")),
    "state": "backoff",
    "phase": "",
    "enforced": "",
    "restarts": 3,
    "crashes": 3,
}


def worker(role: str, pid: int | None, **fields: object) -> control.WorkerView:
    """A worker that serves, but for what is said."""
    given: dict[str, object] = {
        "state": "ready",
        "phase": "idle",
        "restarts": 0,
        "serving_s": 75.0,
        "memory_bytes": 28 << 20,
        "cpu_s": 1.0,
        "threads": 3,
        "open_files": 15,
        "enforced": "landlock7+seccomp:3364766e",
        **fields,
    }
    return msgspec.convert({"role": role, "index": 0, "pid": pid, "epoch": 2, **given}, control.WorkerView)


def supervisor(*, cpu_s: float = 1.0) -> control.StatusReply:
    """A small tree, in which one worker is away."""
    return control.StatusReply(
        ready=False,
        pid=100,
        metrics="http://127.0.0.1:9464/metrics",
        client="ipc:///h/run/client.sock",
        client_tcp=None,
        server_key=None,
        version="0.1.0",
        uptime_s=4_000.0,
        last_crash="brain.0 killed by signal 9",
        last_crash_s=75.0,
        processes=(
            control.ProcessView("supervisor", 100, 26 << 20, 2.0, 2, 40),
            control.ProcessView("spare brain", 109, 26 << 20, 0.0, 3, 9),
        ),
        workers=(
            worker("gate", 102, cpu_s=cpu_s, phase="sync"),
            worker("brain", None, **AWAY),
        ),
    )


def gate(**fields: object) -> wire.StatusReply:
    """A gate with two open tasks."""
    reply = wire.StatusReply(
        ready=True,
        version="0.1.0",
        tasks={"open": 2, "done": 1_204, "failed": 0, "running": 1, "in_doubt": 1},
        workers=["brain.0.2"],
        position=12_345,
        tree_root="ab",
        mailboxes={"brain.0": 2},
        totals={"steps": 10, "effects": 20, "tokens": 0},
        journal_bytes=3 << 20,
        letters=4,
        open=[
            wire.OpenTask(
                task="told",
                agent="ops",
                status="in_doubt",
                step=7,
                tool="shell.run",
                accepted_at_ns=NOW_NS - 7_200 * S,
            ),
            wire.OpenTask(
                task="tnew", agent="default", status="running", step=1, accepted_at_ns=NOW_NS - 5 * S
            ),
        ],
    )
    return msgspec.structs.replace(reply, **fields)


def look(at_s: float = 0.0, **fields: object) -> Look:
    """Both have answered, but for what is said."""
    return Look(at_s, NOW_NS, **{"supervisor": supervisor(), "gate": gate(), **fields})  # type: ignore[arg-type]  # a Look's fields by name


def two_looks() -> Picture:
    """What a person sees after the second look, two seconds after the first."""
    history = History("home")
    history.take(look())
    after = gate(totals={"steps": 30, "effects": 20, "tokens": 500})
    return history.take(look(2.0, supervisor=supervisor(cpu_s=1.5), gate=after))


def text(seen: Picture, view: View, cells: int, lines: int) -> str:
    """A screen as text."""
    return "\n".join(plain(line) for line in screen(seen, view, cells, lines))


WIDE = """\
homeostat 0.1.0  home  not ready  up 1h06m  14:13:20
tasks  2 open  1,204 done  1 running  approvals 0  in doubt 1
per second  steps 10.0  effects 0.0  verdicts -  commits -  records -  requests -  tokens 250
journal  position 12,345  3.0 MiB  dead letters 4  last crash brain.0 killed by signal 9, 1m15s ago

WORKER       PID  EPOCH  STATE    PHASE  SERVING  RESTARTS  CRASHES  CPU%    MEMORY  FDS  THR  MAIL
supervisor   100         runs                                         0.0  26.0 MiB   40    2     -
gate.0       102      2  ready    sync     1m15s         0        0  25.0  28.0 MiB   15    3     -
brain.0        -      2  backoff               -         3        3     -         -    -    -     2
spare brain  109         parked                                       0.0  26.0 MiB    9    3     -

TASK  STATUS    STEP    AGE  TOOL       AGENT
tnew  running      1     5s  -          default
told  in_doubt     7  2h00m  shell.run  ops





q quit  p pause  h help  Tab tasks  ←→ by newest  +- every 1s"""

SMALL = """\
homeostat 0.1.0  home  not ready
up 1h06m  14:13:20
tasks  2 open  1,204 done  1 running
WORKER 1-3/4  PID  STATE      MEMORY
supervisor    100  runs     26.0 MiB
gate.0        102  ready    28.0 MiB
brain.0         -  backoff         -
TASK 1-1/2  STATUS      AGE  TOOL
tnew        running      5s  -
q quit  p pause  h help  Tab tasks  ←→ …"""


def test_screen_shows_everything_when_there_is_room() -> None:
    """Header, tree, tasks, keys; rates and percentages are of the two seconds between the looks."""
    assert text(two_looks(), View(), 110, 20) == WIDE


def test_screen_keeps_what_matters_when_it_is_40_by_10() -> None:
    """Columns and lines give way in their order; what is hidden is said."""
    assert text(two_looks(), View(), 40, 10) == SMALL


def test_screen_is_marked_and_dimmed_when_the_supervisor_is_away() -> None:
    """The last picture stays, as one that may no longer be so; it is good again with the next answer."""
    history = History("home")
    history.take(look())
    away = history.take(Look(3.0, NOW_NS, None, None, "no supervisor answers"))
    first, *_ = shown = screen(away, View(), 116, 20)
    assert Span("unreachable, trying", "bad") in first
    assert "gate.0" in text(away, View(), 116, 20)
    table = next(line for line in shown if plain(line).startswith("gate.0"))
    assert {span.style for span in table} == {"dim"}
    back = history.take(look(4.0))
    assert "unreachable" not in text(back, View(), 116, 20)
    assert set(back.rates.values()) == {None}, "nothing is known of the time between"


def test_screen_says_so_when_there_was_never_a_supervisor() -> None:
    """Started before its home is: it waits."""
    never = History("home").take(Look(0.0, NOW_NS, None, None, "no supervisor answers"))
    assert "unreachable, trying" in text(never, View(), 80, 24)


def test_screen_says_so_when_the_gate_does_not_answer() -> None:
    """Its workers' states stay; what only the gate knows is unknown, not zero."""
    shown = text(picture("home", look(gate=None), None), View(), 80, 24)
    assert "tasks unknown the gate does not answer" in shown
    assert "gate.0" in shown
    assert "no open task" not in shown


def test_screen_shows_what_is_frozen() -> None:
    """In the first line, where nobody overlooks it."""
    frozen = [
        wire.FreezeView(scope="all", name="", since=1, reason=""),
        wire.FreezeView(scope="agent", name="ops", since=1, reason=""),
    ]
    shown = text(picture("home", look(gate=gate(frozen=frozen)), None), View(), 116, 24)
    assert "frozen: everything, agent ops" in shown.splitlines()[0]


def test_screen_writes_out_names_that_steer() -> None:
    """An agent's name comes from a configuration, a task's tool from a model."""
    evil = wire.OpenTask(
        task="t\x1b[2J", agent="\x9b2J日本", status="running", step=1, accepted_at_ns=NOW_NS, tool="a\u202eb"
    )
    seen = picture("ho\x1b]0;me\x07", look(gate=gate(open=[evil])), None)
    raw = "".join(ansi(line, colours=False) for line in screen(seen, View(), 116, 24))
    assert "\\x1b[2J" in raw
    assert "日本" in raw
    for code in ("\x1b[1m", "\x1b[2m", "\x1b[7m", "\x1b[0m"):
        raw = raw.replace(code, "")
    assert raw.isprintable()


def test_screen_has_no_colours_when_none_are_wanted() -> None:
    """Only bold, dim and reverse are left."""
    lines = screen(two_looks(), View(), 116, 24)
    assert any("\x1b[32m" in ansi(line, colours=True) for line in lines)
    assert not any("\x1b[3" in ansi(line, colours=False) for line in lines)


def test_tasks_are_sorted_as_the_view_says() -> None:
    """Newest first unless asked otherwise."""

    def order(by: str) -> list[str]:
        lines = text(two_looks(), View(tasks_sort=by), 116, 24).splitlines()
        return [line[:4] for line in lines if line[:4] in ("tnew", "told")]

    assert order("newest") == ["tnew", "told"]
    assert order("oldest") == order("step") == order("status") == ["told", "tnew"]


def test_workers_are_sorted_as_the_view_says() -> None:
    """By what is greatest; what is unknown comes last."""
    shown = text(two_looks(), View(workers_sort="cpu"), 116, 24).splitlines()
    head = next(place for place, line in enumerate(shown) if line.startswith("WORKER"))
    assert shown[head + 1].startswith("gate.0")


def test_tables_say_when_tasks_between_were_left_out() -> None:
    """The gate lists the oldest and the newest."""
    many = gate(tasks={"open": 900, "running": 900})
    assert "… and 898 between the oldest and newest" in text(
        picture("h", look(gate=many), None), View(), 80, 30
    )


def test_help_lists_the_keys() -> None:
    """In place of the tables, at any size with room for it."""
    shown = text(two_looks(), View(help=True), 60, 20)
    assert "p, space" in shown
    assert "WORKER" not in shown


def test_scrolling_ends_at_the_last_page() -> None:
    """However long a key is pressed, one press the other way moves again."""
    seen, view = two_looks(), View(table="workers")
    for _ in range(20):
        layout = arranged(seen, view, 40, 10)
        view = settled(seen, pressed(view, "down", layout.page(view)), layout)
    assert view.workers_first == 1
    assert "WORKER 2-4/4" in text(seen, view, 40, 10)


@given(
    st.integers(1, 200),
    st.integers(1, 60),
    st.booleans(),
    st.sampled_from(["workers", "tasks"]),
    st.integers(0, 9),
)
def test_screen_keeps_within_its_size_whatever_that_is(
    cells: int, lines: int, helps: bool, table: str, first: int
) -> None:
    """A line too many scrolls a terminal, a cell too many wraps."""
    view = View(
        help=helps, table="workers" if table == "workers" else "tasks", workers_first=first, tasks_first=first
    )
    shown = screen(two_looks(), view, cells, lines)
    assert len(shown) <= lines
    assert all(width(plain(line)) <= cells for line in shown)
