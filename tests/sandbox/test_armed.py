"""Sandboxes that were made ahead: the same as others, for their folder and owner alone, never left over."""

import errno
import fcntl
import os
import select
import signal
import socket
import struct
import termios
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from homeostat.sandbox import protocol
from homeostat.sandbox.profile import Limits, Profile
from homeostat.sandbox.protocol import EGRESS_PORT, Exited, Frozen, Launch, Launched, Refused
from tests.sandbox.stand import PATIENCE_S, Result, Stand, receive, wait_dead

ARMED = 2
STILL_S = 0.3
SEEN = b"""
env | sort; ulimit -a; umask; pwd; ls -l /proc/self/fd | wc -l; cat /proc/self/oom_score_adj; mount | wc -l
grep -E '^(Uid|Gid|Groups|Cap|NoNew|Seccomp|Sig|Shd|NSpid)' /proc/self/status; cat /proc/self/uid_map
sleep 0.05; ps -o pid,ppid,pgid,sid,tty,nice -p $$; ls -a . /tmp /dev/shm; echo /proc/[0-9]*
"""


def children(pid: int) -> set[int]:
    """Of a process with one thread."""
    return {int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


def waiting(stand: Stand) -> set[int]:
    """The first processes of all sandboxes of this zygote."""
    return children(stand.process.pid)


def until(act: Callable[[], bool], what: str) -> None:
    """Wait for something to become true."""
    end_s = time.monotonic() + PATIENCE_S
    while not act():
        assert time.monotonic() < end_s, what
        time.sleep(0.02)


def arm(stand: Stand, *, staged: bool = False) -> set[int]:
    """Launch until one that was armed has served, and its place is filled again; who waits now."""

    def served() -> bool:
        result = stand.run([b"true"], stage=stand.stage() if staged else None)
        assert result.code == 0
        assert result.launched is not None
        if not result.launched.armed:
            time.sleep(0.1)
        return result.launched.armed

    until(served, "none is armed")
    until(lambda: len(waiting(stand)) >= ARMED, "none is armed again")
    time.sleep(0.1)
    return waiting(stand)


def start(stand: Stand, launch: Launch, stdio: tuple[int, ...] = ()) -> tuple[Launched, list[int]]:
    """Launch; the first word."""
    stand.launch(launch, stdio=stdio)
    ((message, fds),) = receive(stand.client)
    assert isinstance(message, Launched), message
    return message, fds


def finish(stand: Stand) -> Exited:
    """The last word."""
    ((message, _),) = receive(stand.client)
    assert isinstance(message, Exited), message
    return message


@pytest.mark.parametrize("staged", [False, True])
def test_armed_one_shows_a_command_what_a_cold_one_does(mortal: Stand, *, staged: bool) -> None:
    """Environment, limits, descriptors, umask, masks, session, ids, mounts, processes."""

    def seen() -> Result:
        stage = mortal.stage() if staged else None
        return mortal.run([b"bash", b"-c", SEEN], env={"A": "1"}, cwd="sub", stage=stage)

    mortal.own_folder(mortal.workspace / "sub")
    cold = seen()
    results = [cold]

    def was_armed() -> bool:
        results.append(seen())
        assert results[-1].launched is not None
        time.sleep(0.1)
        return results[-1].launched.armed

    until(was_armed, "none is armed")
    assert cold.launched is not None
    assert not cold.launched.armed
    assert results[-1].out == cold.out
    assert results[-1].launched is not None
    assert results[-1].launched.report == cold.launched.report
    assert results[-1].launched.report.workspace == ("overlay" if staged else "bind")


SECRET = "s3cret" * 3
LEAVING = b"echo $X > /tmp/left; echo $X > /dev/shm/left; echo left"
LOOKING = b"""ls -A /tmp /dev/shm; cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline; echo
ls /proc/self/fd | wc -l; echo over"""


def said_by(stand: Stand, kind: str, script: bytes, *words: str) -> tuple[bool, str]:
    """Run a script in a sandbox of this kind: whether that was armed, and what it said."""
    env = dict.fromkeys(["X"] * bool(words), "".join(words))
    argv = [b"sh", b"-c", script, *map(str.encode, words)]
    if kind != "terminal":
        result = stand.run(argv, env=env, stage=stand.stage() if kind == "staged" else None)
        assert result.launched is not None
        return result.launched.armed, result.out
    stand.launch(Launch(stand.next_id(), Profile(), argv, env=env, tty=True))
    heard = receive(stand.client)
    ((launched, (pidfd, master)), *_) = heard
    assert isinstance(launched, Launched)
    out = b""
    with suppress(OSError):  # EIO: nobody has the terminal open any more
        while data := os.read(master, 4096):
            out += data
    if len(heard) == 1:
        finish(stand)
    protocol.close((pidfd, master))
    return launched.armed, out.decode()


@pytest.mark.parametrize("kind", ["plain", "staged", "terminal"])
def test_armed_ones_never_show_what_another_launch_was_given(mortal: Stand, kind: str) -> None:
    """Variables, arguments, descriptors and private folders of one are nowhere in the next, which was armed
    before, beside or after it.
    """
    seen = 0

    def seen_often() -> bool:
        nonlocal seen
        assert "left" in said_by(mortal, kind, LEAVING, SECRET)[1]
        armed, out = said_by(mortal, kind, LOOKING)
        assert SECRET not in out
        assert "left" not in out
        assert out.split()[-2:] == ["4", "over"]
        seen += armed
        time.sleep(0 if armed else 0.1)
        return seen == 4

    until(seen_often, f"none of kind {kind} is armed")


def test_burst_beyond_the_pool_is_made_cold_and_the_pool_fills_again(mortal: Stand) -> None:
    """Twelve at once: all run, some had been armed; then as many wait as before, and no more."""
    arm(mortal)
    null = os.open(os.devnull, os.O_RDWR)
    left = {mortal.next_id() for _ in range(12)}
    armed = 0
    for identity in left:
        mortal.launch(Launch(identity, Profile(), [b"true"]), stdio=(null,) * 3)
    while left:
        for message, fds in receive(mortal.client):
            protocol.close(fds)
            if isinstance(message, Launched):
                armed += message.armed
            else:
                assert isinstance(message, Exited)
                left.remove(message.id)
    os.close(null)
    assert 1 <= armed <= ARMED
    until(lambda: len(waiting(mortal)) == ARMED, "the pool is not full again")
    time.sleep(STILL_S)
    assert len(waiting(mortal)) == ARMED


def test_workspace_that_was_replaced_is_not_what_was_armed(mortal: Stand) -> None:
    """Another folder of the same name is served by others; those that hold the former one are retired."""
    mortal.file(mortal.workspace / "old", "")
    before = arm(mortal)
    mortal.workspace.rename(mortal.base / "aside")
    mortal.own_folder(mortal.workspace)
    mortal.file(mortal.workspace / "new", "")
    result = mortal.shell("ls")
    assert result.out == "new\n"
    for pid in before:
        wait_dead(pid)


def test_new_owner_gets_nothing_that_was_armed_before(mortal: Stand) -> None:
    """What waited for the former one is dead when the new one is served."""
    before = arm(mortal)
    client = mortal.new_owner()
    client.wait_served()
    assert not before & waiting(mortal)
    mortal.client.close()
    mortal.client = client
    result = mortal.run([b"true"])
    assert result.launched is not None
    assert not result.launched.armed


def test_armed_one_that_is_killed_is_replaced_and_hurts_no_launch(mortal: Stand) -> None:
    """A launch that comes while they are dying is served by another, unless it began before; one that comes
    later is served; after a pause there are as many again.
    """
    before = arm(mortal)
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    result = mortal.shell("echo fine")
    assert result.out == "fine\n" or result.signal == signal.SIGKILL
    for pid in before:
        wait_dead(pid)
    assert mortal.shell("echo fine").out == "fine\n"
    until(lambda: len(waiting(mortal) - before) >= ARMED, "none is armed again")


def test_freeze_holds_back_an_armed_one_that_was_given_its_launch(mortal: Stand) -> None:
    """Launch and Freeze read at once: nothing begins before Thaw."""
    arm(mortal)
    read, write = os.pipe()
    null = os.open(os.devnull, os.O_RDWR)
    launch = Launch(mortal.next_id(), Profile(), [b"sh", b"-c", b"echo ran"])
    mortal.process.send_signal(signal.SIGSTOP)
    mortal.launch(launch, stdio=(null, write, write))
    mortal.client.freeze(launch.id)
    mortal.process.send_signal(signal.SIGCONT)
    protocol.close((write, null))
    assert receive(mortal.client) == [(Frozen(launch.id), [])]
    assert not select.select([read], [], [], STILL_S)[0]
    mortal.client.thaw(launch.id)
    assert select.select([read], [], [], PATIENCE_S)[0]
    assert os.read(read, 10) == b"ran\n"
    words = receive(mortal.client)
    assert isinstance(words[0][0], Launched)
    assert words[0][0].armed
    os.close(read)


@pytest.mark.parametrize("begun", [False, True])
def test_frozen_launch_runs_nowhere_before_thaw_when_its_armed_one_dies(
    mortal: Stand, *, begun: bool
) -> None:
    """Neither one that had not begun, nor one whose PID 1 died before it could stand still: Frozen is said
    once, and the sandbox that it is given to then stands still too.
    """
    stage = mortal.stage() if begun else None
    before = arm(mortal, staged=begun)
    read, write = os.pipe()
    null = os.open(os.devnull, os.O_RDWR)
    launch = Launch(mortal.next_id(), Profile(), [b"sh", b"-c", b"echo ran"], staged=begun)
    inside = [pid for first in before for pid in children(first)]
    for pid in (mortal.process.pid, *before, *inside):  # what is armed takes nothing in any more
        os.kill(pid, signal.SIGSTOP)
    mortal.launch(launch, stage=stage, stdio=(null, write, write))
    if begun:  # it is given its launch before the Freeze is read
        mortal.client.look(launch.id)
    mortal.client.freeze(launch.id)
    os.kill(mortal.process.pid, signal.SIGCONT)
    if not begun:
        assert receive(mortal.client) == [(Frozen(launch.id), [])]
    else:
        assert not select.select([mortal.client], [], [], STILL_S)[0]
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    for pid in before:
        wait_dead(pid)
    protocol.close((write, null))
    if begun:
        assert receive(mortal.client) == [(Frozen(launch.id), [])]
    assert not select.select([read, mortal.client.fileno()], [], [], STILL_S)[0]
    mortal.client.thaw(launch.id)
    assert select.select([read], [], [], PATIENCE_S)[0]
    assert os.read(read, 10) == b"ran\n"
    ((first, fds), *_) = receive(mortal.client)
    assert isinstance(first, Launched)
    protocol.close((read, *fds))


def test_armed_terminal_has_the_size_that_was_asked_for(mortal: Stand) -> None:
    """It was made ahead with another."""
    for _ in range(20):
        launch = Launch(mortal.next_id(), Profile(), [b"sh", b"-c", b"stty size; sleep 0.1"], tty=True,
                        rows=33, cols=77)  # fmt: skip
        launched, (pidfd, master) = start(mortal, launch)
        assert struct.unpack("HHHH", fcntl.ioctl(master, termios.TIOCGWINSZ, b"\0" * 8))[:2] == (33, 77)
        assert os.read(master, 100).startswith(b"33 77")
        finish(mortal)
        protocol.close((pidfd, master))
        if launched.armed:
            return
        time.sleep(0.2)
    pytest.fail("none is armed")


def test_many_launches_leave_nothing(mortal: Stand) -> None:
    """Descriptors, processes and mounts of the zygote are as many after hundreds as before."""

    def counts() -> tuple[int, int, int]:
        folder = Path(f"/proc/{mortal.process.pid}")
        fds = len(os.listdir(folder / "fd")) if os.geteuid() == 0 else 0
        mounts = (folder / "mountinfo").read_text().count("\n") if os.geteuid() == 0 else 0
        return fds, len(waiting(mortal)), mounts

    for _ in range(2):  # the pools of both kinds are full
        arm(mortal)
        mortal.run([b"true"], stage=mortal.stage())
        time.sleep(0.3)
    until(lambda: len(waiting(mortal)) == 2 * ARMED, "the pool is not full")
    before = counts()
    null = os.open(os.devnull, os.O_RDWR)
    waiting_for: set[int] = set()
    for number in range(300):
        waiting_for.add(identity := mortal.next_id())
        program = [b"true"] if number % 3 else [b"nonesuch"]
        mortal.launch(Launch(identity, Profile(), program), stdio=(null,) * 3)
        while len(waiting_for) > (20 if number < 299 else 0):
            for message, fds in receive(mortal.client):
                protocol.close(fds)
                if isinstance(message, Exited | Refused):
                    waiting_for.remove(message.id)
    os.close(null)
    until(lambda: counts() == before, f"{counts()} is not {before}")


@pytest.mark.parametrize(
    "line", ["kill -STOP $PPID; exit 3", "kill -KILL $PPID; exit 3", "sleep 0.2; exit 3"]
)
def test_end_is_told_whatever_a_command_does_to_its_parent(stand: Stand, line: str) -> None:
    """Who started it has the same uid, and lives for a few milliseconds more."""
    assert stand.shell(line).code == 3


def test_short_and_small_commands_have_their_own_status(stand: Stand) -> None:
    """Code or signal, at once or later, with hardly a process allowed."""
    few = Profile(limits=Limits(processes=1))
    assert stand.run([b"sh", b"-c", b"exit 7"], profile=few).code == 7
    for line, code, death in (("exit 9", 9, None), ("kill -9 $$", None, 9), ("sleep 0.1; kill $$", None, 15)):
        result = stand.shell(line)
        assert (result.code, result.signal) == (code, death)


# -- the way out -----------------------------------------------------------------------------------

OUT = Profile(network="courier")
TALK = b"exec 3<>/dev/tcp/127.0.0.1/3128; echo hello >&3; head -n 1 <&3"
BIND = b"""
import errno, socket
for address in ("127.0.0.1", "0.0.0.0"):
    for option in (None, socket.SO_REUSEADDR, socket.SO_REUSEPORT):
        with socket.socket() as one:
            if option is not None: one.setsockopt(socket.SOL_SOCKET, option, 1)
            try:
                one.bind((address, 3128)); one.listen(); print("bound", address, option)
            except OSError as error:
                print(errno.errorcode[error.errno])
"""


def test_egress_gives_the_owner_a_listener_inside(mortal: Stand) -> None:
    """A command connects to it on its loopback, and bytes go both ways; cold and armed."""
    for _ in range(20):
        read, write = os.pipe()
        launch = Launch(mortal.next_id(), OUT, [b"bash", b"-c", TALK], egress=True)
        launched, (pidfd, listening) = start(mortal, launch, (write, write, write))
        assert launched.report.network == "courier"
        with socket.socket(fileno=listening) as listener:
            listener.settimeout(PATIENCE_S)
            assert listener.getsockname() == ("127.0.0.1", EGRESS_PORT)
            with listener.accept()[0] as connection:
                assert connection.recv(100) == b"hello\n"
                connection.send(b"welcome\n")
                assert finish(mortal).exit_code == 0
        assert os.read(read, 100) == b"welcome\n"
        protocol.close((read, write, pidfd))
        if launched.armed:
            return
        time.sleep(0.2)
    pytest.fail("none is armed")


def test_egress_port_is_taken_before_a_command_can_have_it(stand: Stand) -> None:
    """Whatever options it sets."""
    read, write = os.pipe()
    launch = Launch(stand.next_id(), OUT, [b"python3", b"-c", BIND], egress=True)
    _, fds = start(stand, launch, (write, write, write))
    os.close(write)
    finish(stand)
    with open(read, encoding="utf-8") as pipe:
        assert pipe.read() == "EADDRINUSE\n" * 6
    protocol.close(fds)


def test_without_egress_nobody_listens_and_none_is_promised(stand: Stand) -> None:
    """Neither with a profile that would allow it; and one that doesn't can't be given it."""
    for profile in (Profile(), OUT):
        result = stand.run([b"bash", b"-c", TALK], profile=profile)
        assert result.code != 0
        assert "refused" in result.out
        assert result.launched is not None
        assert result.launched.report.network == "none"
    null = os.open(os.devnull, os.O_RDWR)
    stand.launch(Launch(stand.next_id(), Profile(), [b"true"], egress=True), stdio=(null,) * 3)
    os.close(null)
    ((end, _),) = receive(stand.client)
    assert isinstance(end, Refused)
    assert (end.layer, end.errno) == ("request", errno.EINVAL)


# -- the zygote's own powers -----------------------------------------------------------------------


def test_zygote_holds_no_power_outside_its_own_namespace(stand: Stand) -> None:
    """Its capabilities are those of a user namespace without the host's root in it; it can't go back."""
    folder = Path(f"/proc/{stand.process.pid}")
    status = dict(
        line.split(":\t", 1) for line in (folder / "status").read_text().splitlines() if ":\t" in line
    )
    assert set(status["Uid"].split()) == {str(stand.ids.setup_uid)}
    assert status["Threads"] == "1"
    maps = [line.split() for line in (folder / "uid_map").read_text().splitlines()]
    assert "0" not in {outside for _, outside, _ in maps}
    assert {int(count) for _, _, count in maps} == {1}
    if os.geteuid() == 0:
        assert os.readlink(folder / "ns/user") != os.readlink("/proc/self/ns/user")
