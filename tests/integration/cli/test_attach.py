"""`homeostat attach`: a person on a real terminal takes over a live terminal of a real executor."""

from __future__ import annotations

import contextlib
import os
import resource
import shlex
import signal
import socket
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyte
import pytest

from homeostat.proto import attach, messages as m, wire
from homeostat.supervisor.cli import attach as cli_attach
from homeostat.workers.executor.terminals.lending import Visitor
from tests.fakes.pty_program import PtyProgram
from tests.fakes.wire_gate import WireGate, local
from tests.integration.cli.conftest import command_line
from tests.integration.executor.bench import TASK, Bench
from tests.integration.executor.terminal_bench import ask, open_terminal, run, send, shows

PATIENCE_S = 60.0


class Shown:
    """What the person sees; as a terminal that understands whatever programs print."""

    def __init__(self, columns: int, lines: int) -> None:
        self._screen = pyte.Screen(columns, lines)
        self._stream = pyte.Stream(self._screen)

    def feed(self, data: str) -> None:
        """Draw."""
        self._stream.feed(data)

    def resize(self, columns: int, lines: int) -> None:
        """Another size."""
        self._screen.resize(lines, columns)

    def text(self) -> list[str]:
        """The rows."""
        return [row.rstrip() for row in self._screen.display]


class Stand:
    """An executor with a socket for people, a gate that sends them there, and people."""

    def __init__(self) -> None:
        self.bench = Bench()
        self.bench.stop()
        (self.bench.home / "run").mkdir(mode=0o700)
        self.path = str(self.bench.home / "run" / "terminal.0.sock")
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(self.path)
        Path(self.path).chmod(0o600)
        self.listener.listen()
        self.bench.fds = {"attach": os.dup(self.listener.fileno())}
        self.bench.zygote.new_owner()
        self.bench.start()
        self.bench.own_workspace()
        self.gate = WireGate(local(self.bench.home))
        self.people: list[PtyProgram] = []
        self._tokens = 0

    def close(self) -> None:
        """End all."""
        for person in self.people:
            person.__exit__(None, None, None)
        self.gate.stop()
        self.bench.close()
        self.listener.close()

    def lend(self, name: str = "") -> m.Lent:
        """As the gate asks for it."""
        self._tokens += 1
        token = f"token-{self._tokens}"
        self.bench.worker.on_message(m.Lend(token, TASK, name, "local"))
        return next(one for one in self.bench.loop.posted if isinstance(one, m.Lent) and one.token == token)

    def attach(self, name: str = "", columns: int = 90, lines: int = 20, under: str = "") -> PtyProgram:
        """A person types the command; they see the terminal when this returns. ``under``: a shell's words."""
        lent = self.lend(name)
        assert not lent.trouble, lent
        self.gate.answers[wire.Attach] = wire.Attached(
            task=TASK,
            terminal=lent.terminal,
            path=self.path,
            token=lent.token,
            rows=lent.rows,
            cols=lent.cols,
        )
        command = [*shlex.split(under), *command_line(self.bench.home), "attach", TASK]
        person = PtyProgram(command, columns, lines)
        person.screen = Shown(columns, lines)  # type: ignore[assignment]
        self.people.append(person)
        self.until(lambda: self.taken and self.taken[-1].on)
        return person

    @property
    def taken(self) -> list[m.TerminalTaken]:
        """What the gate was told."""
        return [one for one in self.bench.loop.posted if isinstance(one, m.TerminalTaken)]

    def until(self, is_true: Callable[[], object]) -> None:
        """Serve the executor and show the people what comes, until it holds."""
        until_s = time.monotonic() + PATIENCE_S
        while not is_true():
            assert time.monotonic() < until_s, [person.text() for person in self.people]
            self.bench.loop._turn(0.02)
            for person in self.people:
                if person._status is None:
                    person.pump(0.0)

    def sees(self, person: PtyProgram, wanted: str) -> None:
        """Wait until the person sees this."""
        self.until(lambda: wanted in person.text())

    def ended(self, person: PtyProgram) -> int:
        """Wait for the end of the person's command."""
        gone: list[int] = []

        def is_gone() -> bool:
            pid, status = os.waitpid(person.pid, os.WNOHANG)
            if pid:
                gone.append(os.waitstatus_to_exitcode(status))
            return bool(gone)

        self.until(is_gone)
        for _ in range(20):
            person.pump(0.0)
        person._status = gone[0]
        return gone[0]


@pytest.fixture(scope="module")
def stands() -> Iterator[Stand]:
    """One for all tests."""
    stand = Stand()
    yield stand
    stand.close()


@pytest.fixture
def stand(stands: Stand) -> Iterator[Stand]:
    """Without terminals, and nothing said yet."""
    stands.bench.loop.posted.clear()
    yield stands
    stands.bench.worker.on_message(m.EndTask(TASK))
    stands.bench.wait(lambda: not stands.bench.worker._desk._held and stands.bench.worker._jobs.idle())
    stands.until(lambda: all(person._status is not None for person in stands.people) or ended_all(stands))


def ended_all(stand: Stand) -> bool:
    """Whether everybody's command has ended, who was still there when the terminals went."""
    for person in stand.people:
        if person._status is None:
            stand.ended(person)
    return True


def test_attach_takes_a_terminal_over_and_hands_it_back(stand: Stand) -> None:
    """The person sees what was there, types, and leaves; the model goes on where they left it."""
    name = open_terminal(stand.bench)
    send(stand.bench, name, "echo before\n")
    person = stand.attach()
    stand.sees(person, "before")
    stand.sees(person, "Ctrl-] hands this terminal back")
    assert stand.taken == [m.TerminalTaken(TASK, name, "local", on=True)]
    person.press("echo by a per''son\r")
    stand.sees(person, "by a person")
    person.press("\x1d")
    assert stand.ended(person) == 0
    assert f"terminal {name} is handed back" in person.raw
    assert person.modes == person.before
    stand.until(lambda: stand.taken[-1] == m.TerminalTaken(TASK, name, "local", on=False))
    assert "by a person" in run(stand.bench, "screen", terminal=name).text


def test_attach_shows_a_full_screen_program_and_passes_every_key(stand: Stand) -> None:
    """Colours, arrows, Ctrl-C and Ctrl-Z reach the program, and none of them ours."""
    open_terminal(stand.bench, "stty raw -echo; printf '\\e[2J\\e[3;5H\\e[31mred\\e[0m'; cat -v", wait_s=20)
    person = stand.attach()
    stand.sees(person, "    red")
    person.press("\x03\x1a\x1b[A\x04x")
    stand.sees(person, "^C^Z^[[A^Dx")
    person.press("\x1d")
    assert stand.ended(person) == 0


def test_attach_gives_the_terminal_the_person_s_size_and_its_own_back(stand: Stand) -> None:
    """While they have it, it is as large as theirs, and follows it."""
    name = open_terminal(stand.bench)
    person = stand.attach(columns=90, lines=20)
    person.press("stty size\r")
    stand.sees(person, "20 90")
    person.resize(columns=100, lines=25)
    stand.until(
        lambda: all(held.live.screen.size == (25, 100) for held in stand.bench.worker._desk._held.values())
    )
    person.press("stty size\r")
    stand.sees(person, "25 100")
    person.press("\x1d")
    stand.ended(person)
    stand.until(lambda: not stand.taken[-1].on)
    assert "· 24x80 ·" in run(stand.bench, "screen", terminal=name).text


def test_call_of_the_agent_waits_while_a_person_has_the_terminal(stand: Stand) -> None:
    """It types when it is handed back; looking is not held up; its deadline tells who had it."""
    name = open_terminal(stand.bench)
    person = stand.attach()
    late = ask(stand.bench, "send", terminal=name, text="echo late\n", deadline_s=0.5)
    waiting = ask(stand.bench, "send", terminal=name, text="echo by the mo''del\n")
    assert run(stand.bench, "screen", terminal=name).status == "ok"
    ended = stand.bench.ended(late)
    assert ended.status == "timeout"
    assert f"local had taken terminal {name} over" in ended.text
    assert not stand.bench.answers(waiting)
    person.press("\x1d")
    stand.ended(person)
    assert stand.bench.ended(waiting).status == "ok"
    text = shows(stand.bench, name, "by the model")
    assert "late" not in text


@pytest.fixture
def no_core() -> Iterator[None]:
    """Nobody leaves a core file."""
    found = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, found[1]))
    yield
    resource.setrlimit(resource.RLIMIT_CORE, found)


@pytest.mark.usefixtures("no_core")
@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGALRM]
)
def test_attach_gives_the_terminal_back_when_it_is_signalled(stand: Stand, number: signal.Signals) -> None:
    """Modes and screen are as before, the terminal is handed back, and the exit tells what ended it."""
    open_terminal(stand.bench)
    person = stand.attach()
    stand.sees(person, "$")
    assert person.modes != person.before
    person.signal(number)
    code = stand.ended(person)
    assert code in {-number, 128 + number}
    assert person.modes == person.before
    assert "\x1b[?1049l" in person.raw
    stand.until(lambda: not stand.taken[-1].on)


def test_attach_is_prepared_for_every_signal_that_could_end_it() -> None:
    """All standard ones, but those that can't be caught, its own faults, and what Python ignores."""
    faults = {signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE}
    spared = {signal.SIGKILL, signal.SIGSTOP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGCHLD, signal.SIGURG}
    queued = {signal.SIGRTMIN, signal.SIGRTMAX}
    ignored = {one for one in (signal.SIGPIPE, signal.SIGXFSZ) if signal.getsignal(one) == signal.SIG_IGN}
    assert set(signal.Signals) - faults - spared - queued - ignored == set(cli_attach._SIGNALS)


def test_attach_gives_the_terminal_back_while_it_is_stopped(stand: Stand) -> None:
    """And has it painted anew when it goes on."""
    open_terminal(stand.bench, "echo so''mething; read x", wait_s=20)
    person = stand.attach(under="bash --norc -mc '\"$@\"; stty -a; read x; fg' bash")
    stand.sees(person, "something")
    assert person.modes != person.before
    [ours] = Path(f"/proc/{person.pid}/task/{person.pid}/children").read_text().split()
    os.kill(int(ours), signal.SIGTSTP)
    stand.until(lambda: "-icanon" not in person.raw.partition("speed")[2] and " icanon" in person.raw)
    assert "\x1b[?1049l" in person.raw
    shown = person.raw.count("something")
    person.press("\n")
    stand.until(lambda: person.raw.count("something") > shown)
    person.press("\x1d")
    assert stand.ended(person) == 0
    assert person.modes[3] & termios.ICANON


def test_attach_ends_with_the_program(stand: Stand) -> None:
    """Its exit is told to the person."""
    open_terminal(stand.bench)
    person = stand.attach()
    stand.sees(person, "$")
    person.press("exit 4\r")
    assert stand.ended(person) == 0
    assert "the program exited with code 4" in person.raw
    assert termios.tcgetattr(person._theirs) == person.before


def test_attach_ends_with_the_task(stand: Stand) -> None:
    """The terminal goes, and the person is told."""
    open_terminal(stand.bench)
    person = stand.attach()
    stand.bench.worker.on_message(m.EndTask(TASK))
    assert stand.ended(person) == 0
    assert "handed back: " in person.raw


def test_attach_needs_a_terminal_of_its_own(stand: Stand) -> None:
    """Without one it asks for nothing."""
    done = subprocess.run(
        [*command_line(stand.bench.home), "attach", TASK], capture_output=True, text=True, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 2
    assert "attach needs a terminal of its own" in done.stderr


# -- what the socket lets in --------------------------------------------------------------------------------
def said(stand: Stand, one: socket.socket) -> attach.ToPerson | None:
    """The next packet to a person; None at the end."""
    packets: list[bytes] = []

    def has_come() -> bool:
        try:
            packets.append(one.recv(attach.MAX_PACKET_BYTES, socket.MSG_DONTWAIT))
        except BlockingIOError:
            return False
        return True

    stand.until(has_come)
    return attach.decode_to_person(packets[0]) if packets[0] else None


def test_token_opens_one_connection_once(stand: Stand) -> None:
    """The second to bring it, and who brings none, sees nothing of the terminal."""
    open_terminal(stand.bench)
    token = stand.lend().token
    with attach.connect(stand.path, attach.Hello(token, 24, 80)) as first:
        assert isinstance(said(stand, first), attach.Output)
        for bad in (token, "guessed", ""):
            with attach.connect(stand.path, attach.Hello(bad, 24, 80)) as second:
                answer = said(stand, second)
                assert isinstance(answer, attach.Bye)
                assert "unknown, spent or too old" in answer.reason
        assert stand.lend().trouble.startswith("local has taken terminal")
    stand.until(lambda: not stand.taken[-1].on)


def test_token_is_worth_nothing_when_it_is_old(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten seconds are enough to connect."""
    open_terminal(stand.bench)
    monkeypatch.setattr("homeostat.workers.executor.terminals.lending.TOKEN_S", -1.0)
    token = stand.lend().token
    with attach.connect(stand.path, attach.Hello(token, 24, 80)) as one:
        assert isinstance(said(stand, one), attach.Bye)
    assert not stand.taken


@pytest.mark.parametrize("packet", [b"\xc1", b"", b"x" * 60_000], ids=["malformed", "empty", "long"])
def test_stranger_is_hung_up_on(stand: Stand, packet: bytes) -> None:
    """Whatever is not a Hello ends the connection, and nothing else."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as one:
        one.connect(stand.path)
        one.send(packet)
        stand.until(lambda: not is_open(one))
    assert run(stand.bench, "screen", terminal="t0").status == "error"


def is_open(one: socket.socket) -> bool:
    """Whether the other side has not hung up."""
    try:
        packet = one.recv(attach.MAX_PACKET_BYTES, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return True
    except ConnectionResetError:
        return False
    return bool(packet) and not isinstance(attach.decode_to_person(packet), attach.Bye)


@pytest.mark.root
def test_other_users_may_not_come(stand: Stand) -> None:
    """The kernel says who it is, whatever the mode of the socket."""
    open_terminal(stand.bench)
    token = stand.lend().token
    run_folder = Path(stand.path).parent
    run_folder.chmod(0o755)
    Path(stand.path).chmod(0o666)
    code = (
        "import os, socket, sys\nfrom homeostat.proto import attach\n"
        "os.setgid(64999); os.setuid(64999)\n"
        "one = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
        "one.connect(sys.argv[1])\n"
        "try:\n"
        "    one.send(attach.encode(attach.Hello(sys.argv[2], 24, 80)))\n"
        "except BrokenPipeError:\n"
        "    pass\n"  # it was hung up on before that; what was said then can be read all the same
        "try:\n"
        "    said = one.recv(65536)\n"
        "except ConnectionResetError:\n"
        "    said = one.recv(65536)\n"  # the kernel tells of unread words once, before what still waits
        "print(attach.decode_to_person(said))"
    )
    command = [sys.executable, "-c", code, stand.path, token]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as child:
        try:
            stand.until(lambda: child.poll() is not None)
        finally:
            child.kill()
            run_folder.chmod(0o700)
            Path(stand.path).chmod(0o600)
        assert child.stdout is not None
        assert "only the user whose homeostat this is" in child.stdout.read()
    assert not stand.taken


def test_person_who_does_not_read_holds_up_nobody_else(stand: Stand) -> None:
    """Their program waits, the executor goes on; when they leave the program does too."""
    name = open_terminal(stand.bench, "read x; seq 400000; echo at the e''nd; read x", wait_s=20)
    with attach.connect(stand.path, attach.Hello(stand.lend().token, 24, 80)) as one:
        assert isinstance(said(stand, one), attach.Output)
        one.send(attach.encode(attach.Input(b"\r")))
        stand.until(
            lambda: all(
                held.visitor and held.visitor.full for held in stand.bench.worker._desk._held.values()
            )
        )
        assert stand.bench.shell("echo fine").text == "fine\n"
    stand.until(lambda: not stand.taken[-1].on)
    assert "at the end" in shows(stand.bench, name, "at the end", 2_000)


def test_terminal_that_cannot_be_lent_is_told_why(stand: Stand) -> None:
    """None, frozen, ended, or one of several without a name."""
    assert "this task has no live terminal" in stand.lend().trouble
    first = open_terminal(stand.bench)
    second = open_terminal(stand.bench)
    assert f"are {first}, {second}" in stand.lend().trouble
    send(stand.bench, first, "exit 0\n")
    shows(stand.bench, first, "exited with code 0")
    assert "has exited with code 0" in stand.lend(first).trouble
    stand.bench.worker.on_message(m.HoldTask(TASK, on=True))
    assert "is frozen" in stand.lend(second).trouble
    stand.bench.worker.on_message(m.HoldTask(TASK, on=False))


# -- what people can make it keep ---------------------------------------------------------------------------
def visitor(stand: Stand) -> Visitor:
    """The one who is at the one terminal."""
    [held] = stand.bench.worker._desk._held.values()
    assert held.visitor is not None
    return held.visitor


def untyped(stand: Stand) -> int:
    """How much waits to be typed at the one terminal."""
    [held] = stand.bench.worker._desk._held.values()
    return len(held.live._untyped)


def tell(stand: Stand, one: socket.socket, packet: attach.FromPerson) -> None:
    """Say it, as soon as there is room."""

    def is_said() -> bool:
        try:
            one.send(attach.encode(packet), socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        return True

    stand.until(is_said)


UNREAD = "stty raw -echo; echo re''ady; sleep 1000"


def test_person_whose_program_does_not_read_is_held_up(stand: Stand) -> None:
    """What they type takes no memory without limit, and when they leave the terminal is handed back."""
    shows(stand.bench, open_terminal(stand.bench, UNREAD, wait_s=0.2), "ready")
    with attach.connect(stand.path, attach.Hello(stand.lend().token, 24, 80)) as one:
        assert isinstance(said(stand, one), attach.Output)
        packet, sent = attach.encode(attach.Input(b"x" * attach.INPUT_BYTES)), 0
        while sent < 1_000:  # 4 MB
            stand.bench.loop._turn(0.0)
            try:
                one.send(packet, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            sent += 1
        assert sent < 1_000
        assert untyped(stand) < 80_000
    stand.until(lambda: not stand.taken[-1].on)


def test_key_that_hands_back_is_seen_though_nothing_is_read(stand: Stand) -> None:
    """However much was typed before it."""
    open_terminal(stand.bench, UNREAD, wait_s=0.2)
    person = stand.attach()
    stand.sees(person, "ready")
    for _ in range(500):
        person.press("x" * 1_000)
        stand.bench.loop._turn(0.0)
    assert untyped(stand) < 80_000
    person.press("\x1d")
    assert stand.ended(person) == 0
    stand.until(lambda: not stand.taken[-1].on)


def test_packet_of_input_that_is_too_long_ends_the_connection(stand: Stand) -> None:
    """The limit of the protocol holds for people too."""
    open_terminal(stand.bench, UNREAD, wait_s=0.2)
    with attach.connect(stand.path, attach.Hello(stand.lend().token, 24, 80)) as one:
        assert isinstance(said(stand, one), attach.Output)
        one.send(attach.encode(attach.Input(b"x" * (attach.INPUT_BYTES + 1))))
        stand.until(lambda: not is_open(one))
    assert untyped(stand) == 0


def test_person_who_does_not_read_is_painted_for_once(stand: Stand) -> None:
    """However often they ask; and then the screen as it is when they read again."""
    open_terminal(stand.bench, UNREAD, wait_s=0.2)
    with attach.connect(stand.path, attach.Hello(stand.lend().token, 24, 80)) as one:
        stand.until(lambda: stand.taken and stand.taken[-1].on)
        for _ in range(600):
            tell(stand, one, attach.Resize(24, 80))
        stand.until(lambda: visitor(stand)._owed is not None)
        assert len(visitor(stand)._unsent) <= 17
        seen = 0
        while visitor(stand)._owed is not None:
            assert isinstance(said(stand, one), attach.Output)
            seen += 1
        assert seen < 600
    stand.until(lambda: not stand.taken[-1].on)


def test_reason_reaches_who_has_not_read_yet(stand: Stand) -> None:
    """What was printed comes first, then why it is over."""
    open_terminal(stand.bench, "read x; seq 400000; read x", wait_s=20)
    with attach.connect(stand.path, attach.Hello(stand.lend().token, 24, 80)) as one:
        assert isinstance(said(stand, one), attach.Output)
        one.send(attach.encode(attach.Input(b"\r")))
        stand.until(lambda: visitor(stand).full)
        stand.bench.worker.on_message(m.EndTask(TASK))
        stand.until(lambda: not stand.bench.worker._desk._held)
        last: attach.ToPerson | None = None
        while packet := said(stand, one):
            last = packet
    assert isinstance(last, attach.Bye)
    assert last.reason


def test_attach_hears_the_reason_though_it_was_typing(stand: Stand) -> None:
    """A connection that is closed with something unread is reset; what was said before still counts."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.send(attach.encode(attach.Bye("it is over")))
    ours.send(attach.encode(attach.Input(b"x")))
    theirs.close()
    with ours:
        session = cli_attach._Session.__new__(cli_attach._Session)
        session._executor = ours
        heard = [session._hear(), session._hear()]
    assert heard == [None, "it is over"]


def test_executor_without_descriptors_lets_nobody_in_until_it_has_some(stand: Stand) -> None:
    """Its loop goes on, and who waits comes in later."""
    open_terminal(stand.bench)
    found = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    hello = attach.encode(attach.Hello(stand.lend().token, 24, 80))
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as one:
        one.setblocking(False)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(found[0], 512), found[1]))
        try:
            with contextlib.suppress(OSError):  # until none is left
                while True:
                    taken.append(os.dup(one.fileno()))
            one.connect(stand.path)
            one.send(hello)
            for _ in range(5):
                stand.bench.loop._turn(0.01)
        finally:
            for fd in taken:
                os.close(fd)
            resource.setrlimit(resource.RLIMIT_NOFILE, found)
        assert isinstance(said(stand, one), attach.Output)
    stand.until(lambda: not stand.taken[-1].on)


def test_strangers_are_few_at_a_time(stand: Stand) -> None:
    """Connections that say nothing wait at the door; one who has a token comes in after them."""
    open_terminal(stand.bench)
    lending = stand.bench.worker._desk._lending
    silent = [socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(12)]
    for one in silent:
        one.connect(stand.path)
    for _ in range(30):
        stand.bench.loop._turn(0.0)
    assert len(lending._strangers) == 8
    with attach.connect(stand.path, attach.Hello(stand.lend().token, 24, 80)) as person:
        for one in silent:
            one.close()
        assert isinstance(said(stand, person), attach.Output)
    stand.until(lambda: not stand.taken[-1].on)
    assert not lending._strangers
