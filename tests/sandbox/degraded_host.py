"""Owns: a process that runs a zygote for each case, with one thing taken away, and says what became of it.
Must not know: what a case is expected to do.
Invariants: started by exec and single-threaded; one fork a case; what it starts is dead when it ends.
Source: tests/sandbox/test_degradation.py starts it and has the cases.

    degraded_host.py FOLDER SETUP_UID COMMAND_UID < cases.json > results.json
"""

import json
import os
import select
import socket
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from homeostat.proto import codec, messages
from homeostat.sandbox import kernel, mountapi as m, namespaces, probe, protocol, zygote
from homeostat.sandbox.client import ZygoteClient, ZygoteGoneError
from homeostat.sandbox.delegation import HomeGroup
from homeostat.sandbox.namespaces import Ids
from homeostat.sandbox.placement import Placement
from homeostat.sandbox.profile import Profile
from homeostat.sandbox.protocol import Exited, Launch, Launched, Refused
from tests.fakes import without

PATIENCE_S = 30.0


def mask_proc() -> None:
    """As a container runtime does: something lies over a part of /proc."""
    flags = kernel.CLONE_NEWNS | (0 if os.geteuid() == 0 else kernel.CLONE_NEWUSER)
    uid, gid = os.geteuid(), os.getegid()
    kernel.unshare(flags)
    if uid != 0:
        namespaces.map_self(uid, gid, uid)
    m.set_propagation("/", m.MS_REC | m.MS_PRIVATE)
    m.mount("tmpfs", "/proc/sys", "tmpfs", m.MS_NOSUID)


def forbid_namespaces() -> None:
    """As `sysctl user.max_user_namespaces=0`, in a namespace of our own so that nobody else is hit."""
    uid, gid = os.geteuid(), os.getegid()
    kernel.unshare(kernel.CLONE_NEWUSER)
    namespaces.map_self(uid, gid, uid)
    with open("/proc/sys/user/max_user_namespaces", "w", encoding="utf-8") as file:
        file.write("0")


def close_groups(lent: dict[str, int]) -> None:
    """What was delegated is taken back."""
    for fd in lent.values():
        os.chown(fd, 0, 0)


def life(case: dict[str, Any], fds: Sequence[int], ids: Ids, lent: dict[str, int]) -> None:
    """Be the zygote of this case; never returns."""
    if case["act"] == "mask_proc":
        mask_proc()
    elif case["act"] == "forbid_namespaces":
        forbid_namespaces()
    elif case["act"] == "close_groups":
        close_groups(lent)
    without.load(*(without.Refusal(**one) for one in case["refusals"]))
    groups = lent if case["grouped"] else None
    zygote.main(fds[0], fds[1], ids, {}, Placement(groups, case["may_be_missing"]), armed=0)


class Trial:
    """One zygote and one launch."""

    def __init__(self, base: str, ids: Ids, lent: dict[str, int]) -> None:
        self.base, self.ids, self.lent = base, ids, lent

    def run(self, case: dict[str, Any]) -> dict[str, Any]:
        """What became of it: fatal, refused, or ran with this report."""
        control, control_there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        owner, owner_there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        child = os.fork()
        if child == 0:
            control.close()
            owner.close()
            life(case, (control_there.fileno(), owner_there.fileno()), self.ids, self.lent)
        control_there.close()
        owner_there.close()
        control.settimeout(PATIENCE_S)
        try:
            return {"case": case["name"], **self._outcome(case, control, ZygoteClient(owner))}
        finally:
            control.close()
            owner.close()
            os.waitpid(child, 0)

    def _outcome(self, case: dict[str, Any], control: socket.socket, client: ZygoteClient) -> dict[str, Any]:
        said = control.recv(codec.CONTROL_LIMIT_BYTES)
        if not said:
            return {"end": "died"}
        match codec.TO_SUPERVISOR.decode(said):
            case messages.Fatal() as fatal:
                return {
                    "end": "fatal",
                    "text": fatal.message,
                    "remedy": fatal.remedy,
                    "code": fatal.exit_code,
                }
            case messages.Ready():
                return self._launch(case, client)
            case other:
                return {"end": f"said {other}"}

    def _launch(self, case: dict[str, Any], client: ZygoteClient) -> dict[str, Any]:
        stage = self._stage() if case["staged"] else None
        folders = [os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in (self.base, stage) if path]
        null = [] if case["tty"] else [os.open(os.devnull, os.O_RDWR)] * 3
        launch = Launch(1, Profile(), [b"true"], tty=case["tty"], staged=stage is not None)
        client.launch(launch, [*folders, *null])
        protocol.close([*folders, *null[:1]])
        try:
            return self._hear(client)
        except ZygoteGoneError:
            return {"end": "died"}

    def _hear(self, client: ZygoteClient) -> dict[str, Any]:
        report: dict[str, Any] = {}
        while select.select([client], [], [], PATIENCE_S)[0]:
            for message, fds in client.receive():
                protocol.close(fds)
                if isinstance(message, Launched):
                    report = {"cgroup": message.report.cgroup, "degraded": message.report.degraded,
                              "landlock": message.report.landlock_abi}  # fmt: skip
                if isinstance(message, Refused):
                    return {"end": "refused", "layer": message.layer, "text": message.message,
                            "remedy": message.remedy}  # fmt: skip
                if isinstance(message, Exited):
                    return {"end": "ran", "exit": message.exit_code, **report}
        return {"end": "silence"}

    def _stage(self) -> str:
        stage = tempfile.mkdtemp(dir=self.base, prefix="stage-")
        for path in (stage, f"{stage}/upper", f"{stage}/work"):
            os.makedirs(path, exist_ok=True)
            os.chmod(path, 0o755)
            if os.geteuid() == 0:
                os.chown(path, self.ids.outside_uid, self.ids.outside_uid)
        return stage


def main(base: str, setup_uid: int, command_uid: int) -> None:
    """Run all cases."""
    ids = Ids(setup_uid, command_uid or None)
    zygote.compile_filters()
    delegated = HomeGroup(Path(base), setup_uid if os.geteuid() == 0 else None)
    results = []
    try:
        for index, case in enumerate(json.load(sys.stdin)):
            lent = delegated.lend(index)
            results.append(Trial(base, ids, lent).run(case))
            protocol.close([*lent.values()])
    finally:
        delegated.close()
        remove_stages(base)
    json.dump({"groups": delegated.version, "results": results}, sys.stdout)


def remove_stages(base: str) -> None:
    """All that the cases left in the folder."""
    for name in os.listdir(base):
        probe.remove_stage(f"{base}/{name}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
