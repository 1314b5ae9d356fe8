"""The peers: other sandboxes, each as its documentation sets it up for an agent that may write a workspace.

Owns: their words and settings; having them installed where that was asked for, npm's into our own folder.
Must not know: what is measured or attacked.
Invariant: nothing is installed globally from npm, nothing into the checkout; `close` removes the folder.
Source: bwrap(1), firejail(1), `codex sandbox --help`, the README of @anthropic-ai/sandbox-runtime.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.installed import install_debian
from tests.bench.sandbox.foreign import Foreign

NPM = {"codex": "@openai/codex", "srt": "@anthropic-ai/sandbox-runtime"}
DEBIAN = {"bwrap": "bubblewrap", "firejail": "firejail", "socat": "socat", "rg": "ripgrep"}
"""Programs and their packages; srt wants the last two."""
INSTALL_S = 300.0


class Peers:
    """Those that this machine has, and a folder for what was installed and for their own homes."""

    def __init__(self, *, install: bool, user: int | None) -> None:
        self.user = user
        self.folder = Path(tempfile.mkdtemp(prefix="hs-sandboxes-", dir="/var/tmp"))
        self.folder.chmod(0o755)
        self.home = self.folder / "home"
        self.home.mkdir()
        if user is not None:
            os.chown(self.home, user, user)
        self.why_not: dict[str, str] = {}
        if install:
            self._install()

    def _install(self) -> None:
        missing = [package for program, package in DEBIAN.items() if shutil.which(program) is None]
        if missing:
            install_debian(missing)
        if shutil.which("npm") is None:
            print("there is no npm here: codex and srt are not measured", flush=True)
            return
        for name, package in NPM.items():
            print(f"installing {package} into {self.folder} ...", flush=True)
            command = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(self.folder), package]
            try:
                done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=INSTALL_S)
            except subprocess.TimeoutExpired:
                self.why_not[name] = f"npm took more than {INSTALL_S:.0f} s"
                continue
            if done.returncode != 0:
                self.why_not[name] = f"npm failed: {done.stderr.strip()[-200:]}"

    def program(self, name: str) -> str | None:
        """Where a peer's program is: in our folder, else the machine's own."""
        own = self.folder / "node_modules" / ".bin" / name
        return str(own) if own.exists() else shutil.which(name)

    def all(self) -> list[Foreign]:
        """Each peer that is here."""
        found = []
        for peer in PEERS:
            program = self.program(peer.program)
            if program is None:
                self.why_not.setdefault(peer.program, "not installed")
                continue
            env = {"HOME": str(self.home), "CODEX_HOME": str(self.home)}
            found.append(Foreign(peer.name, peer.make(program, self.home), env, self.user))
        return found

    def close(self) -> None:
        """Take away what was installed."""
        shutil.rmtree(self.folder, ignore_errors=True)


@dataclass(frozen=True)
class Peer:
    """How one is used."""

    name: str
    program: str
    make: Callable[[str, Path], Callable[[Path], Sequence[str]]]


def _bwrap(program: str, _: Path) -> Callable[[Path], Sequence[str]]:
    return lambda workspace: [
        program, "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp",
        "--bind", str(workspace), str(workspace), "--unshare-all", "--die-with-parent", "--new-session",
        "--chdir", str(workspace), "--",
    ]  # fmt: skip


def _firejail(program: str, _: Path) -> Callable[[Path], Sequence[str]]:
    return lambda workspace: [
        program, "--quiet", "--noprofile", "--net=none", "--private-dev", "--keep-var-tmp", "--read-only=/",
        f"--read-write={workspace}", "--caps.drop=all", "--seccomp", "--nonewprivs", "--noroot", "--",
    ]  # fmt: skip


def _codex(program: str, _: Path) -> Callable[[Path], Sequence[str]]:
    return lambda _workspace: [program, "sandbox", "-c", 'sandbox_mode="workspace-write"', "--"]


def _srt(program: str, home: Path) -> Callable[[Path], Sequence[str]]:
    def words(workspace: Path) -> Sequence[str]:
        settings = home / f"{workspace.name}.json"
        settings.write_text(json.dumps({
            "network": {"allowedDomains": [], "deniedDomains": []},
            "filesystem": {"denyRead": [], "allowWrite": [str(workspace), "/tmp"], "denyWrite": []},
        }))  # fmt: skip
        settings.chmod(0o644)
        return [program, "--settings", str(settings)]

    return words


PEERS: Sequence[Peer] = (
    Peer("bubblewrap", "bwrap", _bwrap),
    Peer("firejail", "firejail", _firejail),
    Peer("codex sandbox", "codex", _codex),
    Peer("srt", "srt", _srt),
)
