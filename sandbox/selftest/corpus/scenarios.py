"""Attacks that take more than one sandbox, or the end of whoever made it.

Owns: numbers 10, 11, 58, 60, 61, 63 and 64 of the corpus, and requests that a model could shape.
Must not know: how results are told.
Invariant: each scenario ends every sandbox and every zygote that it started.
Source: the numbers of the corpus; CVE-2024-42472 for folders that are swapped between two runs.
"""

# ruff: noqa: E501 (an attack is one expression a line; its paths and addresses are the point)

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterator
from typing import Final

from ...client import ZygoteGoneError
from ...profile import Profile
from .. import guard
from ..case import Act, Answer, Case, answers_of
from ..ground import Ground
from ..prover import Prover
from ..zygotes import RUN_S, Live, Request, Zygote

_DEAD_S: Final = 5.0
_TREE: Final = """
for number in (signal.SIGTERM, signal.SIGHUP): signal.signal(number, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.setsid(); time.sleep(30)
    os._exit(0)
print("up", flush=True)
"""


def _request(prover: Prover, ground: Ground, source: str, *, staged: bool = True) -> Request:
    """A command of Python on a fresh workspace."""
    case = Case("scenario", (), "", "", setup=source, staged=staged)
    ground.fresh_workspace()
    if staged:
        ground.fresh_stage()
    values = ground.values() | {"WORKSPACE": Profile().workspace}
    return prover.request(case, "command", guard.source(case, values))


@contextlib.contextmanager
def _living(zygote: Zygote, request: Request, word: bytes = b"up") -> Iterator[Live]:
    """A sandbox that has said its word, and is killed at the end."""
    live = zygote.start(request)
    try:
        zygote.wait(live, time.monotonic() + RUN_S, word=word)
        yield live
    finally:
        if live.end is None and zygote.process.poll() is None:
            with contextlib.suppress(OSError, ZygoteGoneError):  # a scenario may have hung up itself
                zygote.kill(live)
        live.close()


def _bad_requests(prover: Prover, ground: Ground) -> Iterator[Answer]:
    ground.fresh_workspace()
    plain = Request([b"true"], str(ground.workspace), profile=prover.profile())
    for name, request in (
        ("NUL in an argument", _changed(plain, argv=[b"true", b"/etc/passwd\0.txt"])),
        ("NUL in the cwd", _changed(plain, cwd="x\0/..")),
        ("no argument", _changed(plain, argv=[])),
        ("a variable with a NUL", _changed(plain, env={"A": "x\0LD_PRELOAD=y"})),
        ("a variable with =", _changed(plain, env={"A=LD_PRELOAD": "y"})),
    ):
        ran = prover.zygote.run(request)
        yield Answer(name, "refused" if ran.refused else f"exit {ran.code}", ("refused",))
    for path in ("/usr/../etc", "relative", "/a//b", "/x\0y", "/proc/1/root"):
        try:
            profile = Profile(read_only=(path,))
        except ValueError:
            yield Answer(f"an extra path {path!r}", "refused", ("refused",))
            continue
        ran = prover.zygote.run(_changed(plain, profile=profile))
        yield Answer(
            f"an extra path {path!r}", "refused" if ran.refused else f"exit {ran.code}", ("refused",)
        )


def _changed(request: Request, **changes: object) -> Request:
    """The request with other fields."""
    return Request(**{**vars(request), **changes})


def _chosen_cwd(prover: Prover, ground: Ground) -> Iterator[Answer]:
    """A cwd that the model chose gives no right to write there; one that can't be is refused."""
    try_here = "act('here', lambda: creating(NAME))"
    for cwd in ("..", "../..", "/usr", "/etc", "/proc/self/" + "root/usr", str(ground.outside), "missing"):
        request = _changed(_request(prover, ground, try_here), cwd=cwd)
        ran = prover.zygote.run(request)
        case = Case("", (), "", "", acts=(Act("here", ""),))
        given = "refused" if ran.refused else answers_of(case, ran, guard.MACHINE)[0].given
        yield Answer(f"cwd {cwd}", given, ("refused", "EACCES", "EROFS", "EPERM", "ENOENT"))


def _swapped_folder(prover: Prover, ground: Ground) -> Iterator[Answer]:
    """One command swaps a folder for a link out; the next one is started in it."""
    swap = _request(prover, ground, "os.symlink(OUTSIDE, 'sub')", staged=False)
    prover.zygote.run(swap)
    case = Case("", (), "", "", acts=(Act("append", "writing('canary')"),), staged=False)
    values = ground.values() | {"WORKSPACE": Profile().workspace}
    request = prover.request(case, "command", guard.source(case, values))
    ran = prover.zygote.run(_changed(request, cwd="sub"))
    given = "refused" if ran.refused else answers_of(case, ran, guard.MACHINE)[0].given
    yield Answer("a cwd that is a link out", given, ("refused", "ENOENT", "EACCES", "EROFS"))


def _two_sandboxes(prover: Prover, ground: Ground) -> Iterator[Answer]:
    first = _request(prover, ground, """
open("/tmp/mine", "w").write("secret"); open("/dev/shm/mine", "w").write("secret"); open("mine", "w").write("secret")
server = socket.create_server(("127.0.0.1", 4711)); name = socket.socket(1, 1); name.bind("\\0mine"); name.listen()
libc.shmget(4711, 4096, 0o1666)
print("up", flush=True); time.sleep(20)
""")  # fmt: skip
    stage, workspace = ground.stage, ground.workspace
    with _living(prover.zygote, first) as live:
        pid = 0 if live.launched is None else live.launched.pid
        yield Answer("the first one", "runs" if b"up" in live.out else "ended", ("runs",))
        acts = (
            Act("its /tmp", "reading('/tmp/mine') and 'read'", ("ENOENT",)),
            Act("its /dev/shm", "reading('/dev/shm/mine') and 'read'", ("ENOENT",)),
            Act("its workspace", f"os.listdir({str(workspace)!r}) and 'listed'", ("ENOENT", "EACCES")),
            Act("its stage", f"os.listdir({str(stage)!r}) and 'listed'", ("ENOENT", "EACCES")),
            Act("its stage by /proc/1", f"os.listdir('/proc/1/root' + {str(stage)!r}) and 'listed'", ("ENOENT", "EACCES", "EPERM")),
            Act("its port", "socket.create_connection(('127.0.0.1', 4711), 2).close()", ("ECONNREFUSED",)),
            Act("its abstract name", "socket.socket(1, 1).connect('\\0mine')", ("ECONNREFUSED",)),
            Act("its shared memory", "libc.shmget(4711, 4096, 0) < 0 and 'unseen' or 'found'", ("unseen",)),
            Act("its processes", "str(sum(name.isdigit() for name in os.listdir('/proc')) > 4)", ("False",)),
            Act("signal it by its pid outside", f"os.kill({pid}, 0)", ("ESRCH",)),
        )  # fmt: skip
        yield from _answers(prover, ground, acts)
        yield Answer("the first one afterwards", "runs" if live.end is None else "ended", ("runs",))
    yield from _answers(prover, ground, acts[:2])


def _answers(prover: Prover, ground: Ground, acts: tuple[Act, ...]) -> list[Answer]:
    """What a second sandbox answers."""
    case = Case("second", (), "", "", acts=acts)
    ground.fresh_workspace()
    ground.fresh_stage()
    values = ground.values() | {"WORKSPACE": Profile().workspace}
    ran = prover.zygote.run(prover.request(case, "command", guard.source(case, values)))
    return answers_of(case, ran, guard.MACHINE)


def _held_pipe(prover: Prover, ground: Ground) -> Iterator[Answer]:
    """The call ends with its command although a grandchild has the pipe, and the pipe ends with the tree."""
    source = "if os.fork() == 0:\n    os.setsid(); time.sleep(20)\nprint('done', flush=True)"
    began = time.monotonic()
    live = prover.zygote.start(_request(prover, ground, source))
    ended = prover.zygote.wait(live, began + RUN_S)
    yield Answer("the call", "ended" if ended else "held", ("ended",))
    yield Answer("its pipe", "closed" if _at_end(live) else "held", ("closed",))
    live.close()


def _at_end(live: Live) -> bool:
    until = time.monotonic() + _DEAD_S
    while live.source >= 0 and time.monotonic() < until:
        if select.select([live.source], [], [], 0.1)[0] and not os.read(live.source, 4096):
            return True
    return live.source < 0


def _stopped_tree(prover: Prover, ground: Ground) -> Iterator[Answer]:
    """A tree that stopped itself ends like any other."""
    source = "print('up', flush=True)\nos.kill(os.getpid(), signal.SIGSTOP)"
    with _living(prover.zygote, _request(prover, ground, source)) as live:
        prover.zygote.kill(live)
        yield Answer("a stopped command, killed", "dead" if live.end is not None else "alive", ("dead",))


def _orphans(prover: Prover, ground: Ground) -> Iterator[Answer]:
    """Executor, supervisor and zygote go away, each while a tree of daemons runs."""
    for who in ("executor", "supervisor", "zygote"):
        with prover.another_zygote() as zygote:
            request = _request(prover, ground, _TREE + "time.sleep(20)")
            with _living(zygote, request) as live:
                if who == "executor":
                    zygote.client.close()
                elif who == "supervisor":
                    zygote.control.close()
                else:
                    zygote.process.send_signal(signal.SIGKILL)
                dead = live.pidfd >= 0 and bool(select.select([live.pidfd], [], [], _DEAD_S)[0])
                yield Answer(f"its tree when the {who} ends", "dead" if dead else "alive", ("dead",))
                yield Answer(
                    f"its pipe when the {who} ends", "closed" if _at_end(live) else "held", ("closed",)
                )


CASES: Final = (
    Case("bad-requests", (9, 10), "NUL, .. and = in what a model chose", "request checked", script=_bad_requests),
    Case("chosen-cwd", (11,), "a cwd of the model's choice becomes writable", "Landlock, mounts", script=_chosen_cwd),
    Case(
        "swapped-folder", (88,), "a folder swapped for a link between two runs", "own root", like="CVE-2024-42472",
        script=_swapped_folder,
    ),
    Case("held-pipe", (58,), "a grandchild that holds stdout", "ends with its command", script=_held_pipe),
    Case("stopped-tree", (60,), "a tree that stopped itself", "pid namespace", script=_stopped_tree),
    Case("orphans", (61,), "whoever started it is killed", "PDEATHSIG", script=_orphans),
    Case("neighbours", (63, 64), "two sandboxes: see, reach, read each other", "namespaces", script=_two_sandboxes),
)  # fmt: skip
