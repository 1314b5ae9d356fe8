"""Programs that draw: an editor, a pager, a multiplexer, shells with jobs, monitors, prompts."""

from __future__ import annotations

from tests.compatibility.glass import Glass
from tests.compatibility.workbench import Workbench, needs
from tests.sandbox.stand import Stand

SHELL = "PS1='[\\w]% ' exec bash --norc --noprofile -i"
EXPECT = """
set timeout 20
spawn sh -c {read -p "Name? " n; stty -echo; read -p "Word? " w; stty echo; echo; echo "$n:$w"}
expect "Name? "; send "me\\r"
expect "Word? "; send "secret\\r"
expect "me:secret"; expect eof
puts done
"""


@needs("vim")
def test_vim_edits_a_file_when_driven_by_commands(work: Workbench) -> None:
    """Ex mode, without a terminal, on a stage."""
    work.file("f", "one\ntwo\n")
    changes = work.changes("vim -es -u NONE -c '%s/two/TWO/' -c 'normal Gothree' -c wq f")
    assert changes == {"f": "changed"}
    assert (work.workspace / "f").read_text() == "one\nTWO\nthree\n"


@needs("vim")
def test_vim_edits_a_file_when_typed_at(place: Stand) -> None:
    """Insert, escape, undo, write, quit: as a person does it."""
    with Glass(place, "vim -u NONE -n f") as glass:
        glass.shows("~")
        glass.type("ihello\rwörld\x1b")
        glass.shows("wörld")
        glass.type("dd")
        glass.type("u")
        glass.shows("wörld")
        glass.type(":wq\r")
        assert glass.end() == 0
    assert (place.workspace / "f").read_text() == "hello\nwörld\n"


@needs("less")
def test_less_pages_searches_and_leaves(place: Stand) -> None:
    """To the end, back by a search, and out."""
    with Glass(place, "seq 1000 | less") as glass:
        glass.shows("\n23\n:")
        glass.type("G")
        glass.shows("1000\n(END)")
        glass.type("?^500$\r")
        assert glass.shows("500\n501").startswith("500\n")
        glass.type("q")
        assert glass.end() == 0


@needs("tmux")
def test_tmux_runs_a_server_with_panes(place: Stand) -> None:
    """A detached session, keys sent into it, its pane captured; then attached and split on a terminal."""
    script = (
        "tmux -f /dev/null new-session -d -s s -x 80 -y 24 'bash --norc' && "
        "tmux send-keys -t s 'echo $((6*7))' Enter; "
        "for i in $(seq 100); do tmux capture-pane -pt s | grep -qx 42 && break; sleep 0.05; done; "
        "tmux capture-pane -pt s | grep -x 42 && tmux attach -t s"
    )
    with Glass(place, script) as glass:
        glass.shows("[s]")
        glass.type("\x02%")
        glass.shows("│")
        glass.type("tput cols\r")
        glass.shows("39")
        glass.type("\x02:")
        glass.shows("\n:")
        glass.type("kill-server\r")
        assert glass.end() is not None
        assert "server exited" in glass.text()


def test_bash_controls_jobs(place: Stand) -> None:
    """Stopped by ^Z, listed, continued in the foreground, interrupted by ^C; another in the background."""
    with Glass(place, SHELL) as glass:
        glass.shows("[/workspace]%")
        glass.type("sleep 1000 &\n")
        glass.shows("[1] ")
        glass.type("echo up; cat\n")
        glass.shows("\nup")
        glass.type("ping\n")
        glass.shows("\nping\nping")
        glass.type("\x1a")
        glass.shows("[2]+  Stopped")
        glass.type("jobs\n")
        glass.shows("[1]-  Running")
        glass.type("fg\n")
        glass.shows("% fg\n")
        glass.type("pong\n")
        glass.shows("pong\npong")
        glass.type("\x03")
        glass.shows("^C\n[/workspace]%")
        glass.type("echo code $?\n")
        glass.shows("code 130")
        glass.type("exit 5\n")
        assert glass.end() == 5


def test_bash_completes_and_recalls(place: Stand) -> None:
    """Readline with its history and names of files."""
    place.file(place.workspace / "unmistakable", "content\n")
    with Glass(place, SHELL) as glass:
        glass.shows("%")
        glass.type("cat unm\t\n")
        glass.shows("\ncontent\n")
        glass.type("clear\n")
        glass.type("\x1b[A\x1b[A\n")
        glass.shows("content\n[/workspace]%")


@needs("python3")
def test_python_repl_answers_and_is_interrupted(place: Stand) -> None:
    """What is typed is echoed and evaluated; ^C breaks what runs, ^D leaves."""
    with Glass(place, "python3 -q") as glass:
        glass.shows(">>>")
        glass.type("6 * 7\n")
        glass.shows("\n42\n")
        glass.type("import time; print('be', 'gun'); time.sleep(1000)\n")
        glass.shows("be gun")
        glass.type("\x03")
        glass.shows("KeyboardInterrupt")
        glass.type("2 ** 5\n")
        glass.shows("\n32\n")
        glass.type("\x04")
        assert glass.end() == 0


@needs("top")
def test_top_shows_the_sandbox_alone(place: Stand) -> None:
    """Its few processes, of its one user."""
    with Glass(place, "top -d 0.2") as glass:
        text = glass.shows(" top")
        assert "Tasks:" in text
        assert int(text.split("Tasks:")[1].split()[0]) < 6
        glass.type("q")
        assert glass.end() == 0


def test_script_records_a_terminal(work: Workbench) -> None:
    """A pseudo terminal within, for a program that wants one."""
    assert work.output("script -qec 'tty; test -t 0 && echo yes' log | tr -d '\\r'") == "/dev/pts/0\nyes\n"


@needs("expect")
def test_expect_answers_prompts(work: Workbench) -> None:
    """A conversation with a program that hides what is typed."""
    work.file("e", EXPECT)
    assert work.output("expect -f e").endswith("me:secret\ndone\n")


@needs("man", "less")
def test_man_shows_a_page(place: Stand) -> None:
    """Formatted for the terminal, in a pager. The page is our own, as many machines have none installed."""
    page = ".TH GREET 1 2024-01-01\n.SH NAME\ngreet \\- says hello\n.SH SYNOPSIS\n.B greet\nsomebody\n"
    place.file(place.workspace / "greet.1", page)
    with Glass(place, "man ./greet.1") as glass:
        glass.shows("greet somebody")
        assert glass.text().splitlines()[0].startswith("GREET(1)")
        glass.type("q")
        assert glass.end() == 0
