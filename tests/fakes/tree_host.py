"""A real supervision tree of any shape, for what the product's own tree never does.

Owns: groups and child specs from text, and a loop as that of supervisor/main.py without its ports.
Must not know: what is tested.
Invariant: tree, launcher, nursery, spares and hangs are the real ones; only the workers are fakes.
Source: supervisor/main.py; Erlang/OTP supervisor(3).

    python -m tests.fakes.tree_host HOME SETTINGS GROUP...

A GROUP is ``strategy=child;child;…``, a child ``role.index[,word]…`` with the words ``permanent``,
``transient``, ``temporary``, ``significant``, ``brutal``, ``shutdown:SECONDS``, ``start:SECONDS``. SETTINGS
are the TOML of a configuration. HOMEOSTAT_HOST_ENTRY and HOMEOSTAT_HOST_PYTHON name another worker entry and
another interpreter for nurseries.

Commands come on standard input, one a line, each answered by one line of JSON: ``status``, ``stop``,
``hurry`` (stop waiting), ``recycle NAME``, ``kill NAME`` (as hangs are), ``renew``, ``python PATH``. Its end
is a stop. The last line tells the exit code and the last words.
"""

import contextlib
import os
import selectors
import signal
import socket
import sys
import time
from pathlib import Path

import msgspec
import prctl

from homeostat.proto import config as settings
from homeostat.proto.errors import HomeostatError
from homeostat.proto.ids import Role
from homeostat.supervisor import daemon, listeners
from homeostat.supervisor.ending import Ending, home_error
from homeostat.supervisor.epochs import Epochs
from homeostat.supervisor.hangs import Hangs
from homeostat.supervisor.identities import Identities
from homeostat.supervisor.launch import Launcher
from homeostat.supervisor.log import Log
from homeostat.supervisor.nursery import Nursery
from homeostat.supervisor.secrets import Secrets
from homeostat.supervisor.specs import ChildId, ChildSpec, Group, Restart, Strategy
from homeostat.supervisor.tree import Tree

ENTRY = os.environ.get("HOMEOSTAT_HOST_ENTRY", "tests.fakes.worker:arm")
PYTHON = os.environ.get("HOMEOSTAT_HOST_PYTHON", sys.executable)
STOP_S = 5.0


# -- specs from text -----------------------------------------------------------------------------------------
def group(number: int, text: str) -> Group:
    """Read one group."""
    strategy, _, members = text.partition("=")
    return Group(
        f"group.{number}", Strategy(strategy), tuple(child(one) for one in members.split(";") if one)
    )


def child(text: str) -> ChildSpec:
    """Read one child."""
    name, *words = text.split(",")
    role, _, index = name.partition(".")
    numbers = {key: float(value) for key, _, value in (word.partition(":") for word in words) if value}
    kinds = [Restart(word) for word in words if word in {kind.value for kind in Restart}]
    return ChildSpec(
        ChildId(msgspec.convert(role, Role), int(index)),
        shutdown_s=None if "brutal" in words else numbers.get("shutdown", STOP_S),
        start_s=numbers.get("start", 30.0),
        restart=kinds[0] if kinds else Restart.PERMANENT,
        significant="significant" in words,
        liveness=role != "zygote",
    )


# -- the program ---------------------------------------------------------------------------------------------
class Host:
    """One tree and its loop."""

    def __init__(
        self, home: Path, config: settings.Config, groups: list[Group], stack: contextlib.ExitStack
    ) -> None:
        identities = Identities.of(config)
        daemon.prepare(home, identities)
        prctl.set_child_subreaper(True)
        self.selector = stack.enter_context(selectors.DefaultSelector())
        ports = listeners.listen(home, config, identities)
        stack.callback(ports.close)
        log = stack.enter_context(contextlib.closing(Log(config.log, home / "log")))
        self.hangs = Hangs(config.supervision, self.selector)
        stack.callback(self.hangs.close)
        epochs = Epochs(home / "run" / "epochs", used_before=False)
        data, secrets = settings.to_bytes(config), Secrets.taken(config)
        launcher = Launcher(home, data, identities, epochs, ports, secrets, self.hangs.kick)
        sys.executable = PYTHON
        self.tree = Tree(
            groups,
            config.supervision,
            launcher=launcher,
            make_nursery=lambda: Nursery(home, data, secrets.public, ENTRY),
            selector=self.selector,
            log=log,
        )
        self._unread = b""
        self.selector.register(0, selectors.EVENT_READ, self._on_command)
        self._wake_on_signals(stack)

    def serve(self) -> Ending:
        """Serve until the stop is done."""
        self.tree.start()
        while not self.tree.done:
            dues = [self.hangs.due_s, self.tree.due_s()]
            wait_s = min(one for one in dues if one is not None) - time.monotonic()
            for key, _ in self.selector.select(max(0.0, wait_s)):
                key.data()
            now_s = time.monotonic()
            if now_s >= self.hangs.due_s:
                self.hangs.look(self.tree, now_s)
                self.tree.look(now_s)
            self.tree.tick(now_s)
        self.tree.close()
        return self.tree.ending or Ending(0)

    def _wake_on_signals(self, stack: contextlib.ExitStack) -> None:
        read, write = socket.socketpair()
        for one in (read, write):
            one.setblocking(False)
            stack.callback(one.close)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, lambda _number, _frame: None)
        signal.set_wakeup_fd(write.fileno(), warn_on_full_buffer=False)
        stack.callback(signal.set_wakeup_fd, -1)

        def on_signals() -> None:
            if signal.SIGTERM in read.recv(4096):
                self.tree.stop(Ending(0))
            self.tree.reap()

        self.selector.register(read, selectors.EVENT_READ, on_signals)

    # -- commands --------------------------------------------------------------------------------------------
    def _on_command(self) -> None:
        data = os.read(0, 65536)
        if not data:
            self.selector.unregister(0)
            self.tree.stop(Ending(0))
            return
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            word, _, name = line.decode().partition(" ")
            say(self._carry_out(word, name))

    def _carry_out(self, word: str, name: str) -> object:
        match word:
            case "status":
                return self._status()
            case "stop":
                self.tree.stop(Ending(0))
            case "hurry":
                self.tree.kill_all()
            case "recycle":
                return self.tree.recycle(name)
            case "kill":
                self.tree.kill(name, "told to by a test")
            case "renew":
                self.tree.renew()
            case "python":
                sys.executable = name
            case _:
                return f"unknown command {word!r}"
        return True

    def _status(self) -> dict[str, object]:
        return {
            "ready": self.tree.ready,
            "ending": None if self.tree.ending is None else self.tree.ending.exit_code,
            "nursery": self.tree.nursery_pid,
            "children": {
                one.name: {
                    "pid": one.pid,
                    "epoch": one.epoch,
                    "state": one.state.value,
                    "over": one.over,
                    "restarts": one.restarts,
                    "crashes": one.crashes,
                    "blame": one.blame,
                }
                for one in self.tree.children.values()
            },
        }


def say(what: object) -> None:
    """One line."""
    os.write(1, msgspec.json.encode(what) + b"\n")


def main(home: str, toml: str, *texts: str) -> int:
    """Run a tree; give its exit code."""
    try:
        groups = [group(number, text) for number, text in enumerate(texts)]
        with contextlib.ExitStack() as stack:
            try:
                ending = Host(Path(home), settings.parse(toml), groups, stack).serve()
            except OSError as error:
                raise home_error(error, Path(home)) from error
    except HomeostatError as error:
        ending = Ending.of(error)
    say({"exit_code": ending.exit_code, "text": ending.text})
    return ending.exit_code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
