"""Zygotes and their owners: death of those above, successors, garbage, kills. Bombs are in the corpus."""

import os
import select
import time

import pytest

from homeostat.sandbox import protocol
from homeostat.sandbox.profile import Profile
from homeostat.sandbox.protocol import Exited, Launch, Launched, Refused
from tests.sandbox.stand import PATIENCE_S, PYTHON, Stand, kill, receive, wait_dead


def start(stand: Stand, argv: list[bytes]) -> tuple[Launched, int, int]:
    """Start a command whose output is a pipe: what was launched, its pidfd, the pipe's end (one byte was
    read).
    """
    read, write = os.pipe()
    null = os.open(os.devnull, os.O_RDWR)
    stand.launch(Launch(stand.next_id(), Profile(), argv), stdio=(null, write, write))
    protocol.close((write, null))
    ((launched, (pidfd,)),) = receive(stand.client)
    assert isinstance(launched, Launched)
    assert os.read(read, 1)
    return launched, pidfd, read


#: A tree that ignores what it can: a daemon by double fork with a session of its own, and one that ignores
#: TERM.
TREE = [PYTHON, b"-c", b"""
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.setsid()
        time.sleep(3600)
    os._exit(0)
print("up", flush=True)
time.sleep(3600)
"""]  # fmt: skip


def test_attack_orphans_die_when_the_zygote_is_killed(mortal: Stand) -> None:
    """61: PDEATHSIG reaches PID 1, and its death everybody."""
    launched, pidfd, pipe = start(mortal, TREE)
    kill(mortal.process)
    wait_dead(launched.pid)
    with open(pipe, "rb") as rest:
        assert rest.read() == b"p\n"  # to the end of the pipe: nobody holds it
    protocol.close((pidfd,))


def test_attack_orphans_die_when_the_supervisor_hangs_up(mortal: Stand) -> None:
    """61: the end of the control socket ends the zygote and everything in it."""
    launched, pidfd, pipe = start(mortal, TREE)
    mortal.control.close()
    assert mortal.process.wait(PATIENCE_S) == 0
    wait_dead(launched.pid)
    protocol.close((pidfd, pipe))


def test_attack_orphans_die_when_the_executor_hangs_up(mortal: Stand) -> None:
    """61: an executor that dies takes its sandboxes along; the zygote waits for the next executor."""
    launched, pidfd, pipe = start(mortal, TREE)
    mortal.client.close()
    wait_dead(launched.pid)
    with_next = mortal.new_owner()
    assert mortal.run([b"true"], client=with_next).code == 0
    with_next.close()
    protocol.close((pidfd, pipe))


def test_zygote_serves_a_new_owner_after_the_former_ones_sandboxes_died(mortal: Stand) -> None:
    """The successor's first answer comes when the predecessor's tree is dead."""
    launched, pidfd, pipe = start(mortal, TREE)
    successor = mortal.new_owner()
    result = mortal.run([b"true"], client=successor)
    assert result.code == 0
    assert select.select([pidfd], [], [], 0)[0]
    wait_dead(launched.pid)
    successor.close()
    protocol.close((pidfd, pipe))


def test_zygote_greets_a_new_owner_when_the_former_ones_sandboxes_are_dead(mortal: Stand) -> None:
    """An executor that waits for it never calls an effect in doubt that is still about to happen."""
    launched, pidfd, pipe = start(mortal, TREE)
    successor = mortal.new_owner()
    successor.wait_served()
    assert select.select([pidfd], [], [], 0)[0]
    wait_dead(launched.pid)
    successor.close()
    protocol.close((pidfd, pipe))


def test_zygote_stops_when_it_is_told_to(mortal: Stand) -> None:
    """Stop kills what runs and exits 0."""
    from homeostat.proto import codec, messages

    launched, pidfd, pipe = start(mortal, TREE)
    mortal.control.send(codec.encode(messages.Stop(deadline_s=5)))
    assert mortal.process.wait(PATIENCE_S) == 0
    wait_dead(launched.pid)
    protocol.close((pidfd, pipe))


def test_zygote_drops_an_owner_that_sends_garbage(mortal: Stand) -> None:
    """Bytes that are no message end the owner, not the zygote."""
    mortal.client._sock.send(b"\xc1garbage")
    assert select.select([mortal.client], [], [], PATIENCE_S)[0]
    successor = mortal.new_owner()
    assert mortal.run([b"true"], client=successor).code == 0
    successor.close()


def test_zygote_leaks_no_descriptor_over_many_launches(mortal: Stand) -> None:
    """Launches, refusals and kills leave the zygote with what it had."""
    folder = f"/proc/{mortal.process.pid}/fd"
    if not os.access(folder, os.R_OK):
        pytest.skip("an ordinary user can't look into a zygote that hides itself")

    def settled() -> int:
        """How many it holds when its sandboxes made ahead are all there, and those that ended are gone."""
        counts = [-1]
        while len(counts) < 6 or len(set(counts[-5:])) > 1:
            time.sleep(0.2)
            counts.append(len(os.listdir(folder)))
        return counts[-1]

    def work() -> None:
        for _ in range(10):
            assert mortal.run([b"true"]).code == 0
            assert isinstance(mortal.run([b"nonesuch"]).end, Refused)

    work()
    before = settled()
    work()
    assert settled() == before


@pytest.mark.parametrize("when", ["at once", "running"])
def test_kill_ends_every_launch_with_exactly_one_message(stand: Stand, when: str) -> None:
    """Refused(killed) before the command ran, Exited afterwards; a kill of an unknown id is ignored."""
    null = os.open(os.devnull, os.O_RDWR)
    identity = stand.next_id()
    stand.client.kill(999_999_999)
    stand.launch(Launch(identity, Profile(), [b"sleep", b"3600"]), stdio=(null,) * 3)
    got = [] if when == "at once" else receive(stand.client)
    stand.client.kill(identity)
    while not (got and isinstance(got[-1][0], Exited | Refused)):
        got += receive(stand.client)
    ends = [message for message, _ in got if isinstance(message, Exited | Refused)]
    assert len(ends) == 1
    assert isinstance(ends[0], Exited) or ends[0].layer == "killed"
    protocol.close([null, *(fd for _, fds in got for fd in fds)])
