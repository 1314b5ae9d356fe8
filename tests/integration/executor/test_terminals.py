"""Live terminals of a real executor: real editors, interpreters and prompts on real pseudo-terminals."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from homeostat.proto import messages as m
from homeostat.proto.config import Config
from homeostat.proto.ids import Key, TaskId
from homeostat.proto.settings import Terminals
from tests.integration.executor.bench import TASK, Bench
from tests.integration.executor.terminal_bench import ask, open_terminal, run, send, shows

OTHER = TaskId("t2")


@pytest.fixture
def bench(bench: Bench) -> Iterator[Bench]:
    """The shared executor; the terminals that a test leaves end with their task."""
    bench.own_workspace()
    yield bench
    end_task(bench)


def end_task(bench: Bench) -> None:
    """As the gate says it, until nothing of it is left."""
    bench.worker.on_message(m.EndTask(TASK))
    bench.wait(lambda: not bench.worker._desk._held and bench.worker._jobs.idle())


@pytest.mark.skipif(not shutil.which("vim"), reason="no vim here")
def test_vim_edits_a_file_that_counts_when_it_is_closed_with_keep(bench: Bench) -> None:
    """Insert, escape, write, quit; until the close nothing of it is in the workspace."""
    bench.file("note.txt", "old line\n")
    name = open_terminal(bench, "vim -u NONE note.txt", wait_s=10)
    assert "old line" in shows(bench, name, "old line")
    assert "waits for input" in send(bench, name, "Onew line", "Escape").text
    ended = send(bench, name, ":wq\n", wait_s=10)
    assert "exited with code 0" in shows(bench, name, "exited"), ended
    assert (bench.workspace / "note.txt").read_text() == "old line\n"
    key = ask(bench, "close", terminal=name)
    staged = bench.staged(key)
    assert [(change.kind, change.path) for change in staged.diff.changes] == [("changed", "note.txt")]
    assert bench.ended(key).status == "ok"
    assert (bench.workspace / "note.txt").read_text() == "new line\nold line\n"


def test_close_without_keep_throws_away(bench: Bench) -> None:
    """What was written is gone, and so is the stage."""
    name = open_terminal(bench)
    send(bench, name, "echo x > gone; echo do''ne\n")
    shows(bench, name, "done")
    ended = run(bench, "close", terminal=name, keep=False)
    assert ended.status == "ok"
    assert ended.diff is None
    assert not (bench.workspace / "gone").exists()
    bench.wait(bench.worker._jobs.idle)
    assert ask_for_nothing(bench, name).startswith(f"[there is no terminal {name}")


def ask_for_nothing(bench: Bench, name: str) -> str:
    """What is said of a terminal that isn't there."""
    ended = run(bench, "screen", terminal=name)
    assert ended.status == "error"
    return ended.text


def test_python_is_used_line_by_line(bench: Bench) -> None:
    """Each answer is there when the call ends; the state line says that it waits."""
    name = open_terminal(bench, "python3 -q", wait_s=20)
    assert ">>>" in shows(bench, name, ">>>")
    ended = send(bench, name, "6 * 7\n", wait_s=20)
    assert "\n42\n>>>" in ended.text
    assert ended.text.endswith("· waits for input]")


def test_prompt_is_answered(bench: Bench) -> None:
    """A question, its answer, and the end of the program."""
    name = open_terminal(bench, "read -p 'Sure? ' x; echo you said $x; exit 3", wait_s=20)
    assert "Sure? " in shows(bench, name, "Sure?")
    send(bench, name, "yes\n")
    text = shows(bench, name, "exited with code 3")
    assert "you said yes" in text
    ended = send(bench, name, "more\n")
    assert ended.status == "error"
    assert "has exited with code 3" in ended.text


def test_interrupt_ends_what_runs_and_not_the_shell(bench: Bench) -> None:
    """C-c reaches the foreground; the prompt is back."""
    name = open_terminal(bench)
    ended = send(bench, name, "sleep 1000\n", wait_s=0.5)
    assert ended.text.endswith("· runs]")
    assert send(bench, name, "", "C-c", wait_s=20).text.endswith("· waits for input]")
    assert "$ ^C" in shows(bench, name, "^C") or "^C" in shows(bench, name, "^C")


def test_size_is_seen_and_changed(bench: Bench) -> None:
    """The program has the size that was asked for, and hears of the new one."""
    name = open_terminal(bench, rows=30, cols=100)
    send(bench, name, "stty size\n")
    assert "30 100" in shows(bench, name, "30 100")
    assert "· 10x50 ·" in send(bench, name, "", rows=10, cols=50).text
    send(bench, name, "stty size\n")
    assert "10 50" in shows(bench, name, "10 50")


def test_screen_is_text_and_keeps_what_scrolled_off(bench: Bench) -> None:
    """Colours and tricks don't reach the model; history is given when it is asked for."""
    name = open_terminal(bench)
    send(bench, name, 'clear; for i in $(seq 100); do echo -e "\\e[31mline $i\\e[0m\\e]52;c;aGk=\\a"; done\n')
    shows(bench, name, "line 100")
    ended = run(bench, "screen", terminal=name, history=30)
    assert "\x1b" not in ended.text
    assert "aGk" not in ended.text.split("line 50", 1)[-1]
    assert "lines that have scrolled off]" in ended.text
    assert "line 60\n" in ended.text


def test_flood_neither_starves_nor_is_lost(bench: Bench) -> None:
    """A program that prints without end is held up, interrupted, and its last lines are right."""
    name = open_terminal(bench)
    ended = send(bench, name, "yes flooding\n", wait_s=0.3)
    assert "flooding" in ended.text
    send(bench, name, "", "C-c", wait_s=20)
    shows(bench, name, "waits for input")
    send(bench, name, "clear; seq 20000; echo at the e''nd\n", wait_s=20)
    text = shows(bench, name, "at the end")
    assert "20000\nat the end" in text


def test_terminals_do_not_hold_up_commands(bench: Bench) -> None:
    """While one lives, a staged command of the same workspace runs; both of their changes count."""
    name = open_terminal(bench)
    send(bench, name, "echo one > by_terminal; echo do''ne\n")
    shows(bench, name, "done")
    assert bench.shell("echo two > by_command").status == "ok"
    assert run(bench, "close", terminal=name).status == "ok"
    assert (bench.workspace / "by_terminal").read_text() == "one\n"
    assert (bench.workspace / "by_command").read_text() == "two\n"


def test_close_reports_what_was_changed_from_outside(bench: Bench) -> None:
    """Both wrote the same file: a conflict, and nothing of the terminal's is merged."""
    bench.file("shared", "base\n")
    name = open_terminal(bench)
    send(bench, name, "echo mine > shared; echo do''ne\n")
    shows(bench, name, "done")
    assert bench.shell("echo theirs > shared").status == "ok"
    ended = run(bench, "close", terminal=name)
    assert ended.status == "error"
    assert "shared" in ended.text
    assert (bench.workspace / "shared").read_text() == "theirs\n"


def test_close_of_a_refused_diff_changes_nothing(bench: Bench) -> None:
    """The second decision is on what the terminal did."""
    name = open_terminal(bench)
    send(bench, name, "echo x > refused; echo do''ne\n")
    shows(bench, name, "done")
    key = ask(bench, "close", terminal=name)
    bench.staged(key)
    bench.worker.on_message(m.Discard(key, "policy forbids it"))
    bench.wait(lambda: len(bench.answers(key)) == 2)
    assert bench.ended(key).status == "refused"
    assert not (bench.workspace / "refused").exists()


def test_terminal_without_stage_writes_at_once(bench: Bench) -> None:
    """Where the agent has staging off, a close just ends it."""
    name = open_terminal(bench, stage=False)
    send(bench, name, "echo x > direct; echo do''ne\n")
    shows(bench, name, "done")
    assert (bench.workspace / "direct").read_text() == "x\n"
    key = ask(bench, "close", terminal=name, stage=False)
    assert bench.ended(key).status == "ok"
    assert [type(answer) for answer in bench.answers(key)] == [m.Ended]


def test_send_again_under_the_same_key_types_once(bench: Bench) -> None:
    """A new gate asks again for what it doesn't know the end of."""
    name = open_terminal(bench)
    key = ask(bench, "send", terminal=name, text="echo x >> typed; wc -l typed\n")
    ask(bench, "send", key=key, resumed=True, terminal=name, text="echo x >> typed; wc -l typed\n")
    first = bench.ended(key)
    bench.loop.posted.clear()
    ask(bench, "send", key=key, resumed=True, terminal=name, text="echo x >> typed; wc -l typed\n")
    assert bench.ended(key) == first
    assert "1 typed" in shows(bench, name, "typed\n")


def test_look_at_a_terminal_that_is_being_closed_ends(bench: Bench) -> None:
    """It sees what was shown last, and waits for nothing that never comes."""
    for keep in (False, True):
        name = open_terminal(bench)
        closing = ask(bench, "close", terminal=name, keep=keep)
        looking = ask(bench, "screen", terminal=name)
        assert bench.ended(closing).status == "ok"
        assert bench.ended(looking).status == "ok"
        assert not bench.worker._desk._waits


def test_terminals_are_of_their_task_alone(bench: Bench) -> None:
    """Another task has no terminal of this name, and no limit of it."""
    name = open_terminal(bench)
    ended = run(bench, "send", task=OTHER, terminal=name, text="x")
    assert ended.status == "error"
    assert "this task has no live terminal" in ended.text


def test_too_many_terminals_are_refused_with_the_reason(bench: Bench) -> None:
    """The fifth names the four."""
    names = [open_terminal(bench) for _ in range(4)]
    ended = run(bench, "open")
    assert ended.status == "refused"
    assert all(name in ended.text for name in names)
    assert run(bench, "close", terminal=names[0], keep=False).status == "ok"
    assert run(bench, "open").status == "ok"


@pytest.mark.parametrize(
    ("act", "arguments", "words"),
    [
        ("send", {"terminal": "t1", "keys": ["Return"]}, "'Return' is no key"),
        ("send", {"terminal": "nope", "text": "x"}, "there is no terminal nope"),
        ("open", {"command": "true", "cwd": "../out"}, "leaves the workspace"),
        ("open", {"command": "true", "cwd": "missing"}, "no such folder"),
        ("open", {"rows": "many"}, "bad arguments"),
    ],
)
def test_call_that_cannot_be_meant_is_an_error_in_words(
    bench: Bench, act: str, arguments: dict[str, object], words: str
) -> None:
    """Nothing is typed, nothing is left."""
    ended = run(bench, act, **arguments)
    assert ended.status in {"error", "refused"}
    assert words in ended.text
    bench.wait(bench.worker._jobs.idle)
    assert not bench.worker._desk._held


def test_end_of_the_task_ends_its_terminals(bench: Bench) -> None:
    """The program dies, the stage goes, and so does what the ledger remembered."""
    word = f"76543.{os.getpid()}"
    open_terminal(bench, f"sleep {word}", wait_s=0.2)
    assert is_running(word)
    end_task(bench)
    assert not is_running(word)
    bench.wait(lambda: not list((bench.home / "stages" / "0").glob("[0-9a-f]*")))
    assert not [key for key, entry in bench.worker._ledger.entries() if entry.state == "live"]


def is_running(word: str) -> bool:
    """Whether any process of the machine has this in its command line."""
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and word.encode() in (entry / "cmdline").read_bytes():
                return True
        except OSError:
            continue
    return False


def test_cancelled_open_leaves_nothing(bench: Bench) -> None:
    """Cut off while it waits for rest, the terminal is gone with it."""
    key = ask(bench, "open", command="sleep 1000", wait_s=60)
    bench.wait(lambda: any(held.live._fd >= 0 for held in bench.worker._desk._held.values()))
    bench.worker.on_message(m.Abort(key, "cancelled"))
    assert bench.ended(key).status == "cancelled"
    bench.wait(lambda: not bench.worker._desk._held and bench.worker._jobs.idle())


def test_cancelled_send_leaves_the_terminal(bench: Bench) -> None:
    """Only the waiting ends."""
    name = open_terminal(bench)
    key = ask(bench, "send", terminal=name, text="sleep 1000\n", wait_s=60)
    bench.worker.on_message(m.Abort(key, "cancelled"))
    ended = bench.ended(key)
    assert ended.status == "cancelled"
    assert "what was typed was typed" in ended.text
    assert send(bench, name, "", "C-c", wait_s=20).status == "ok"


def test_held_terminal_is_neither_typed_at_nor_shown(bench: Bench) -> None:
    """Calls wait until it is let go; meanwhile its program does nothing."""
    name = open_terminal(bench, "i=0; while :; do i=$((i+1)); echo $i > count; sleep 0.01; done", stage=False,
                         wait_s=0.2)  # fmt: skip
    count = bench.workspace / "count"
    bench.wait(count.exists)
    bench.worker.on_message(m.HoldTask(TASK, on=True))
    bench.wait(lambda: all(held.still for held in bench.worker._desk._held.values()))
    before = count.read_text()
    key = ask(bench, "screen", terminal=name)
    until = time.monotonic() + 0.5
    bench.wait(lambda: time.monotonic() > until)
    assert (bench.answers(key), count.read_text()) == ([], before)
    bench.worker.on_message(m.HoldTask(TASK, on=False))
    assert bench.ended(key).status == "ok"
    bench.wait(lambda: count.read_text() not in {"", before})


def test_frozen_send_goes_on_when_it_is_let_go(bench: Bench) -> None:
    """The gate's freeze of the call is answered, and its wait does not run out meanwhile."""
    name = open_terminal(bench)
    arguments: dict[str, object] = {"terminal": name, "text": "sleep 0.4; echo a''fter\n", "wait_s": 20}
    key = ask(bench, "send", **arguments)  # type: ignore[arg-type]
    halt(bench, key, arguments, on=True)
    bench.wait(lambda: m.Halted(key) in bench.answers(key))
    halt(bench, key, arguments, on=False)
    bench.wait(lambda: isinstance(bench.answers(key)[-1], m.Ended))
    assert "after" in bench.answers(key)[-1].text  # type: ignore[union-attr]


def halt(bench: Bench, key: Key, arguments: dict[str, object], *, on: bool) -> None:
    """As the gate says that a call is frozen or thawed."""
    bench.worker.on_message(
        m.Execute(
            key,
            TASK,
            "terminal.send",
            msgspec.json.encode(arguments),
            "once",
            str(bench.workspace),
            60.0,
            1 << 20,
            True,
            on,
            True,
        )
    )


# -- lives ------------------------------------------------------------------------------------------------
@pytest.fixture
def limited() -> Iterator[Bench]:
    """An executor whose terminals live short."""
    bench = Bench(Config(terminals=Terminals(per_task=2, most=1, life_s=600.0, idle_s=0.7)))
    bench.own_workspace()
    yield bench
    bench.close()


def test_terminal_left_alone_is_ended_and_can_still_be_closed(limited: Bench) -> None:
    """Its program ends, with the reason shown; what it wrote is kept if that is wished."""
    name = open_terminal(limited, "echo x > kept; sleep 1000", wait_s=0.3)
    limited.wait(lambda: all(held.live.end for held in limited.worker._desk._held.values()))
    ended = run(limited, "send", terminal=name, text="x")
    assert "left alone for 0.7 s (terminals.idle_s)" in ended.text
    assert run(limited, "open", wait_s=0.2).status == "ok", "one that has ended takes no place"
    assert run(limited, "close", terminal=name).status == "ok"
    assert (limited.workspace / "kept").read_text() == "x\n"


def test_terminal_that_prints_is_in_use(bench: Bench) -> None:
    """Nobody types or looks, and its time moves on."""
    open_terminal(bench, "while sleep 0.3; do echo x; done", wait_s=0.1)
    [live] = bench.worker._core.terminals._table.of_task(TASK)
    before = live.used_at
    bench.wait(lambda: live.used_at > before + 0.5)


def test_executor_has_so_many_terminals_and_no_more(limited: Bench) -> None:
    """Another task's too counts."""
    open_terminal(limited, wait_s=0.2)
    ended = run(limited, "open", task=OTHER)
    assert ended.status == "refused"
    assert "as many as there may be" in ended.text


def restart(bench: Bench) -> None:
    """As after a SIGKILL: nothing was said or closed in order."""
    bench.worker._sandboxes.close()
    bench.worker._ledger._env.close()
    os.close(bench.worker._ledger._lock_fd)
    bench.zygote.new_owner()
    bench.start()


def test_dead_executor_s_terminals_are_told_of_as_lost(own: Bench) -> None:
    """Their names are known, not given again, and no call is in doubt that nothing can have come of."""
    own.own_workspace()
    name = open_terminal(own)
    key = ask(own, "send", terminal=name, text="echo x > lost; sleep 1000\n", wait_s=60)
    own.wait(lambda: own.worker._ledger.get(key))
    restart(own)
    ask(own, "send", key=key, resumed=True, terminal=name, text="echo x > lost; sleep 1000\n", wait_s=60)
    ended = own.ended(key)
    assert ended.status == "error"
    lost = f"terminal {name} ended when its executor was restarted; unmerged changes are lost"
    assert lost in ended.text
    assert lost in run(own, "screen", terminal=name).text
    assert lost in run(own, "close", terminal=name).text
    assert not (own.workspace / "lost").exists()
    assert open_terminal(own) != name
    assert m.Keeping((TASK,)) in own.loop.posted
    end_task(own)
    assert lost not in run(own, "screen", terminal=name).text


def test_dead_executor_s_open_is_done_again_and_its_unstaged_send_is_in_doubt(own: Bench) -> None:
    """What was on a stage is gone for certain; what was not may have taken effect."""
    own.own_workspace()
    opening = ask(own, "open", command="sleep 1000", wait_s=60)
    own.wait(lambda: own.worker._ledger.get(opening))
    restart(own)
    ask(own, "open", key=opening, resumed=True, command="echo again; sleep 1000", wait_s=0.3)
    assert "again" in own.ended(opening).text
    direct = open_terminal(own, stage=False)
    key = ask(own, "send", stage=False, terminal=direct, text="sleep 1000\n", wait_s=60)
    own.wait(lambda: own.worker._ledger.get(key))
    restart(own)
    ask(own, "send", stage=False, key=key, resumed=True, terminal=direct, text="sleep 1000\n", wait_s=60)
    assert own.ended(key).status == "in_doubt"


def test_stop_of_the_executor_ends_its_terminals(own: Bench) -> None:
    """Nothing waits for a shell that would never end."""
    own.own_workspace()
    word = f"65432.{os.getpid()}"
    open_terminal(own, f"sleep {word}", wait_s=0.2)
    own.worker.on_stop(1_000.0)
    own.wait(lambda: own.loop.finished)
    own.zygote.new_owner()
    own.wait(lambda: not is_running(word))
