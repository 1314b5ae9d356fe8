"""A real zygote process for tests, and the executor's end of its socket."""

from __future__ import annotations

import socket
import subprocess
import sys

from homeostat.proto import codec, messages as m

_PROGRAM = """
import os, sys
from homeostat.sandbox import zygote
from homeostat.sandbox.namespaces import Ids
from homeostat.workers.executor.tools.files import BUILTINS
control, owner, base = (int(word) for word in sys.argv[1:])
ids = Ids(base + 10, base + 11) if os.geteuid() == 0 else Ids(os.geteuid())
zygote.main(control, owner, ids, BUILTINS)
"""


class ZygoteProcess:
    """One zygote; ``owner`` is what an executor is handed."""

    def __init__(self, users_base: int = 64_100) -> None:
        self.control, control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.owner, owner = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with control, owner:
            fds = (control.fileno(), owner.fileno())
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, *map(str, (*fds, users_base))], pass_fds=fds
            )
        said = codec.TO_SUPERVISOR.decode(self.control.recv(1 << 16))
        assert isinstance(said, m.Ready), said

    def new_owner(self) -> socket.socket:
        """As the supervisor does after an executor's death: another owner, served when all is dead."""
        self.owner.close()
        self.owner, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            socket.send_fds(self.control, [codec.encode(m.Owner(2))], [theirs.fileno()])
        return self.owner

    def close(self) -> None:
        """End it and everything of it."""
        self.owner.close()
        self.control.close()
        self._process.wait(20)
