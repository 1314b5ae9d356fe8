"""The corpus that ships as `homeostat selftest`, put to a zygote of root's and one of a user's; its guard."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from homeostat.sandbox.profile import Profile
from homeostat.sandbox.selftest import guard
from homeostat.sandbox.selftest.case import REFUSED_TO_RUN, Act, Answer, Case
from homeostat.sandbox.selftest.corpus import CASES
from homeostat.sandbox.selftest.ground import TEXT
from homeostat.sandbox.selftest.prover import Prover
from tests.sandbox.stand import PYTHON


def tried(prover: Prover, case: Case) -> tuple[str, str]:
    """State and reason of one case."""
    (verdict,) = prover.prove([case])
    return verdict.state, verdict.detail


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_attack_is_contained(prover: Prover, case: Case) -> None:
    """Each really tried, in each vehicle, with exactly the answers that ours gives, and no canary touched."""
    if "root" in case.needs and not prover.can_lay_traps_of_root:
        pytest.skip("only root can lay this trap")
    if "group" in case.needs and prover.groups.version == "none":
        pytest.skip(f"no control groups here: {prover.groups.reason}")
    assert tried(prover, case) == ("contained", "")


def test_selftest_sandboxes_are_in_groups_or_say_why_not(prover: Prover) -> None:
    """As a supervisor's are: those of a further zygote too."""
    assert bool(prover.ungrouped) is (prover.groups.version == "none")
    prover.ground.fresh_workspace()
    with prover.another_zygote() as zygote:
        zygote.run(prover.request(CASES[0], "command", "pass"))
        assert zygote.report is not None
        assert zygote.report.cgroup == prover.groups.version
        assert ("cgroup" in zygote.report.degraded) is bool(prover.ungrouped)


ORDINARY = (
    Act("a named pipe", "os.mkfifo('pipe')", ("OK",)),
    Act("interfaces", "socket.socket(16, 3, 0).close()", ("OK",)),
    Act("a UNIX pair", "socket.socketpair()[0].close()", ("OK",)),
    Act("TCP on the own loopback", "socket.create_connection(server.getsockname()).close()", ("OK",)),
    Act("TCP over IPv6", "socket.create_server(('::1', 0), family=10).close()", ("OK",)),
    Act("UDP by its number", "socket.socket(2, 2, 17).close()", ("OK",)),
    Act("no delay", "socket.socket(2, 1, 6).setsockopt(6, 1, 1)", ("OK",)),
    Act("the execution domain", "call('personality', 0xFFFFFFFF)", ("OK",)),
    Act("a thread", "threading.Thread(target=int).start()", ("OK",)),
    Act("lower a limit", "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))", ("OK",)),
    Act("look at a limit", "resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE) and 'seen'", ("seen",)),
    Act("window size", "call('ioctl', os.openpty()[1], 0x5413, zeros(8))", ("OK",)),
)  # fmt: skip
SERVER = "server = socket.create_server(('127.0.0.1', 0))"


def test_ordinary_calls_work_beside_what_is_refused(prover: Prover) -> None:
    """What the corpus' rules stand next to is allowed."""
    assert tried(prover, Case("ordinary", (), "", "", acts=ORDINARY, setup=SERVER)) == ("contained", "")


HITS: Sequence[tuple[Case, str]] = (
    (Case("act", (), "", "", acts=(Act("a", "None"),)), "a: OK"),
    (Case("file", (), "", "", setup="open(WORKSPACE + '/x', 'w')", staged=False,
          examine=lambda ground: _found(ground.workspace)), "x: written"),
    (Case("endless", (), "", "", setup="time.sleep(0.1)", deadly=(9,)), "exit 0"),
)  # fmt: skip


def _found(folder: Path) -> list[Answer]:
    return [Answer(path.name, "written", ()) for path in folder.iterdir()]


@pytest.mark.parametrize(("case", "detail"), HITS, ids=lambda value: getattr(value, "name", ""))
def test_selftest_tells_a_hit_when_an_act_succeeds(prover: Prover, case: Case, detail: str) -> None:
    """What nothing refuses is called by its name."""
    state, reason = tried(prover, case)
    assert state == "not contained"
    assert detail in reason


def test_selftest_tells_a_hit_when_a_canary_is_touched(prover: Prover) -> None:
    """The attack's own answers say nothing; the host does."""

    def touch(_: object) -> dict[str, object]:
        prover.ground.canary.write_text("touched from outside")
        return {}

    state, reason = tried(
        prover, Case("canary", (), "", "", acts=(Act("a", "None", ("OK",)),), prepare=touch)
    )
    assert (state, reason) == ("not contained", "canary was changed")
    assert prover.ground.canary.read_text() == TEXT


@pytest.mark.parametrize(
    "case",
    [
        Case("broken", (), "", "", setup="raise RuntimeError('a bug of the attack')"),
        Case("silent", (), "", "", acts=(Act("a", "os._exit(0)"),)),
        Case("kernel reached", (), "", "", acts=(Act("a", "call('ioctl', 0, 0x5401, 0)"),)),
    ],
    ids=lambda case: case.name,
)
def test_selftest_never_calls_contained_what_proves_nothing(prover: Prover, case: Case) -> None:
    """An attack that breaks off, says nothing or fails for another reason shows no containment."""
    assert tried(prover, case)[0] != "contained"


def test_attack_refuses_to_run_outside_of_a_sandbox(prover: Prover) -> None:
    """The guard: exit 97 before the first act, by the initial namespace or by its sender's."""
    case = Case("guarded", (), "", "", setup="writing(CANARY)")
    values = prover.ground.values() | {"WORKSPACE": Profile().workspace}
    for changed in ({}, {"HOST_USER_NAMESPACE": "user:[0]"}):
        source = guard.source(case, values | changed)
        ran = subprocess.run([PYTHON, "-I", "-S", "-c", source], check=False, capture_output=True)
        assert ran.returncode == REFUSED_TO_RUN
    assert prover.ground.disturbed() == ""
