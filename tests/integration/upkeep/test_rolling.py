"""Rolling restarts under load, with real workers: nothing is lost, doubled or cut."""

import threading
import time
from collections.abc import Callable

import pytest

from tests.fakes.chat_server import ChatServer, Reply, calls, text
from tests.integration.upkeep.stand import CONFIG, Home

Serve = Callable[..., Home]
TWO = CONFIG + "[workers]\nexecutors = 2\nbrains = 2\n"
STEPS = 6


@pytest.mark.slow
@pytest.mark.parametrize("config", [CONFIG, TWO], ids=["one of each", "two of each"])
def test_tasks_lose_and_double_nothing_when_all_workers_are_restarted_again_and_again(
    serve: Serve, config: str
) -> None:
    """Each command of each class happens once and in order, none is in doubt or ends otherwise than ok."""
    home = serve(config)
    wanted = [str(number) for number in range(STEPS)]
    commands = [f"sleep 0.1; echo {number} >> log" for number in range(STEPS)]
    tasks = [home.submit(*commands, agent=agent) for agent in ("default", "bold") for _ in range(4)]
    rolls = 0
    while rolls < 4 or any(home.show(task)["status"] in ("queued", "running") for task in tasks):
        code, out, errors = home.command("restart")
        assert code == 0, out + errors
        rolls += 1
    for task in tasks:
        shown = home.ended(task)
        assert shown["status"] == "done", shown["reason"]
        assert home.lines(task) == wanted
        outcomes = [one["outcome"] for step in shown["steps"] for one in step["calls"]]
        assert [(one["status"], one["exit_code"]) for one in outcomes] == [("ok", 0)] * STEPS
    rows = home.workers()
    assert {row["epoch"] for row in rows.values()} == {rolls + 1}
    assert {row["crashes"] for row in rows.values()} == {0}


@pytest.mark.parametrize("agent", ["default", "bold"])
def test_running_command_ends_as_it_would_have_when_its_executor_is_drained(serve: Serve, agent: str) -> None:
    """The restart waits for it; a call that comes meanwhile waits for the new executor."""
    home = serve()
    before = home.epochs()["executor.0"]
    first = home.submit("sleep 2; echo $$ >> log", agent=agent)
    time.sleep(0.7)
    restart = home.begin("restart", "executor")
    home.logged("event=draining worker=executor.0")
    second = home.submit("echo second >> log", agent=agent)
    code, out, errors = home.end(restart)
    assert code == 0, errors
    assert "executor.0             done" in out
    assert "restarted" in out
    (call,) = home.ended(first)["steps"][0]["calls"]
    assert (call["outcome"]["status"], call["outcome"]["exit_code"]) == ("ok", 0)
    assert call["outcome"]["duration_s"] >= 2
    assert len(home.lines(first)) == 1
    assert home.ended(second)["status"] == "done"
    assert home.lines(second) == ["second"]
    row = home.workers()["executor.0"]
    assert (row["epoch"], row["crashes"]) == (before + 1, 0)


def test_restart_is_put_off_when_a_command_outlasts_its_limit(serve: Serve) -> None:
    """An error that says so; the command ends normally, and the executor takes work as before."""
    home = serve()
    before = home.workers()["executor.0"]["pid"]
    task = home.submit("echo > begun; sleep 3; echo x >> log", agent="bold")
    home.begun(task)
    code, out, errors = home.command("restart", "executor", "--timeout", "0.3")
    assert code == 1
    assert "executor.0 was not restarted: a command still runs after 0.3 s" in errors
    assert "--force" in errors
    assert "put off" in out
    assert home.ended(home.submit("echo y >> log", agent="bold"))["status"] == "done"
    assert home.ended(task)["status"] == "done"
    assert home.lines(task) == ["x"]
    assert home.workers()["executor.0"]["pid"] == before


def test_command_is_cut_once_when_the_restart_is_forced(serve: Serve) -> None:
    """Whoever forces it is told by the task; it is never run again by itself."""
    home = serve(CONFIG.replace("stop_s = 5.0", "stop_s = 1.0"))
    task = home.submit("echo > begun; echo x >> log; sleep 60", agent="bold")
    home.begun(task)
    code, _, errors = home.command("restart", "executor", "--timeout", "0.2", "--force")
    assert code == 0, errors
    shown = home.ended(task)
    assert shown["status"] in ("in_doubt", "failed")
    assert home.lines(task) == ["x"]


def chat(url: str) -> str:
    """A configuration with an agent that asks this model."""
    return (
        f'{CONFIG}[[agent]]\nname = "chatty"\nprovider = "chat"\n[agent.model]\n'
        f'base_url = "{url}"\nmodel = "fake"\n'
    )


def _asked(home: Home) -> str:
    code, out, errors = home.command("submit", "--agent", "chatty", "say it")
    assert code == 0, errors
    return out.strip()


def test_answer_of_a_model_is_waited_for_when_its_brain_is_drained(serve: Serve) -> None:
    """The model is asked once a step: nothing is paid twice, and the task goes on in the new brain."""
    hold = threading.Event()
    note = ("c1", "task_note", '{"thought": "why", "text": "noted"}')
    with ChatServer(Reply(calls(note), hold=hold), Reply(text("all done"))) as server:
        home = serve(chat(server.url))
        task = _asked(home)
        assert server.wait_asked(1)
        restart = home.begin("restart", "brain")
        home.logged("event=draining worker=brain.0")
        assert restart.poll() is None
        hold.set()
        code, _, errors = home.end(restart)
        assert code == 0, errors
        shown = home.ended(task)
        assert (shown["status"], shown["result"]) == ("done", "all done")
        assert [one["tool"] for step in shown["steps"] for one in step["calls"]] == ["task.note"]
        assert len(server.bodies) == 2
        assert home.epochs()["brain.0"] == 2


def test_model_is_asked_again_when_its_answer_outlasts_the_limit(serve: Serve) -> None:
    """The same question once more, and one proposal: the task has its steps once."""
    hold = threading.Event()
    note = ("c1", "task_note", '{"thought": "why", "text": "noted"}')
    with ChatServer(Reply((), hold=hold, cut=True), Reply(calls(note)), Reply(text("all done"))) as server:
        home = serve(chat(server.url))
        task = _asked(home)
        assert server.wait_asked(1)
        code, _, errors = home.command("restart", "brain", "--timeout", "0.3")
        assert code == 0, errors
        hold.set()
        shown = home.ended(task)
        assert shown["status"] == "done", shown["reason"]
        assert len(shown["steps"]) == 1
        assert len(server.bodies) == 3
        assert server.bodies[0] == server.bodies[1]


def test_stop_wins_when_a_restart_waits_for_a_command(serve: Serve) -> None:
    """The supervisor ends in order, and the restart with clear words."""
    home = serve(CONFIG.replace("stop_s = 5.0", "stop_s = 1.0"))
    task = home.submit("echo > begun; sleep 60", agent="bold")
    home.begun(task)
    restart = home.begin("restart", "executor", "--timeout", "1000")
    home.logged("event=draining worker=executor.0")
    code, _, errors = home.command("stop")
    assert code == 0, errors
    code, out, errors = home.end(restart)
    assert code in (1, 4), out + errors
    assert "it did not come to its end" in errors or "the supervisor ended before" in errors
    assert home.process.wait(60) == 0


@pytest.mark.slow
def test_nothing_is_lost_when_workers_are_killed_over_a_rolling_restart(serve: Serve) -> None:
    """Each restart succeeds or says whom it left; staged commands happen once, whatever dies meanwhile."""
    home = serve(TWO.replace("stop_s", "healthy_s = 0.001\nstop_s"))
    commands = [f"sleep 0.1; echo {number} >> log" for number in range(STEPS)]
    tasks = [home.submit(*commands) for _ in range(6)]
    for number, victim in enumerate(("gate.0", "executor.1", "brain.0", "zygote.0", "memory.0"), 1):
        restart = home.begin("restart")
        home.logged("event=roll_queued", count=number)
        home.kill(victim)
        code, out, errors = home.end(restart)
        assert code == 0, out + errors
    for task in tasks:
        shown = home.ended(task)
        assert shown["status"] == "done", shown["reason"]
        assert home.lines(task) == [str(number) for number in range(STEPS)]


def test_tasks_go_on_when_every_worker_is_over_its_limit(serve: Serve) -> None:
    """All are recycled for it, one at a time, and then left alone: their successors take as much."""
    limits = "watch_s = 0.2\ncool_down_s = 1.0\nhard_factor = 0\nsoft_memory_bytes = 1000000\nstop_s"
    home = serve(CONFIG.replace("stop_s", limits))
    task = home.submit(*[f"sleep 0.4; echo {number} >> log" for number in range(STEPS)])
    for name in ("gate.0", "memory.0", "zygote.0", "executor.0", "brain.0"):
        home.logged(f"event=recycle_futile worker={name}")
    assert home.ended(task)["status"] == "done"
    assert home.lines(task) == [str(number) for number in range(STEPS)]
    rows = home.workers()
    assert {row["crashes"] for row in rows.values()} == {0}
    assert all(row["epoch"] >= 2 for row in rows.values())
