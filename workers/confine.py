"""Giving up powers: what each worker keeps, and how the rest goes.

Owns: the table of powers, per role. Must not know: what the workers do with them.
Invariant: applied in the worker's only thread, before any other is started; what can't be given up stops the
    worker with the remedy named, unless the operator wrote down that this layer may be missing.
Source: DESIGN §3 (the table), law 4 and law 8; landlock(7), seccomp(2), capabilities(7).
"""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache
from pathlib import Path

import prctl

from ..proto.config import Config
from ..proto.databases import files_of, sqlite_file
from ..proto.errors import ProtectionError
from ..proto.ids import Role
from ..sandbox import kernel, landlock, seccomp
from ..sandbox.landlock import ALL, DEVICE, READ, Rights
from ..sandbox.layers import LayerError

POLICIES = {
    "gate": "worker_local.toml",
    "executor": "worker_local.toml",
    "memory": "worker_local.toml",
    "brain": "worker_brain.toml",
    "courier": "worker_courier.toml",
    "database": "worker_database.toml",
}
"""The seccomp policy of each role."""
REACHES_OUT = frozenset({"brain", "courier", "database"})
"""Roles that may connect over TCP; to whom is not the kernel's to say (docs/SECURITY.md)."""
_HIDDEN_FROM_EXECUTOR = ("journal", "keys", "memory")
_CLONE_NEWNS, _CLONE_NEWUSER = 0x20000, 0x10000000
_MS_RDONLY, _MS_REC, _MS_PRIVATE = 1, 16384, 1 << 18
_libc = ctypes.CDLL(None, use_errno=True)


@cache
def program(role: str) -> bytes:
    """The role's seccomp program, compiled once (in the nursery, before the forks)."""
    return seccomp.compile_policy(seccomp.POLICIES / POLICIES[role])


def prepare() -> None:
    """Compile what every restart needs."""
    for role in POLICIES:
        program(role)


def apply(role: Role, home: Path, config: Config) -> str:
    """Give up everything but the role's powers; say what was enforced. Raises ProtectionError."""
    privileged_executor = role == "executor" and _in_own_user_namespace()
    try:
        if role == "executor" and not privileged_executor:
            _hide([str(home / name) for name in _HIDDEN_FROM_EXECUTOR])
        kernel.set_no_new_privs()
        if (
            not privileged_executor
        ):  # It has its four of its own namespace left, and nothing else: identity.py.
            _drop_capabilities()
        version = landlock.restrict(
            rules(role, home, config), connect_ports=None if role in REACHES_OUT else [], bind_ports=[]
        )
        seccomp.load(program(role))
        kernel.set_dumpable(False)
    except (OSError, LayerError) as error:
        raise ProtectionError(
            f"the {role} can't be confined: {error}",
            remedy="`homeostat doctor` shows what this kernel can give.",
        ) from error
    if version == 0 and "landlock" not in config.sandbox.may_be_missing:
        raise ProtectionError(
            "this kernel has no Landlock",
            remedy="Boot a kernel with CONFIG_SECURITY_LANDLOCK and lsm=landlock,… "
            'or write sandbox.may_be_missing = ["landlock"] into the configuration.',
        )
    return f"landlock{version}+seccomp:{seccomp.digest(program(role))[:8]}"


def rules(role: Role, home: Path, config: Config) -> list[tuple[int | str, Rights]]:
    """The folders that a role may use; Landlock refuses all others."""
    found: list[tuple[int | str, Rights]] = [(path, READ) for path in _interpreter()]
    found += [(path, DEVICE) for path in ("/dev/null", "/dev/urandom", "/dev/random") if os.path.exists(path)]
    found += [(str(home / "run" / "metrics"), ALL)]
    match role:
        case "gate":
            found += [(str(home / "journal"), ALL), (str(home / "keys"), ALL)]
            found += [(path, READ) for path in config.policy.files if os.path.exists(path)]
        case "brain":
            files = [
                agent.model.key_file
                for agent in config.agent
                if agent.model is not None and agent.model.key_file
            ]
            # Folders of key files, not the files: a rule names the inode, and a rotated key is another one.
            folders = [str(Path(path).parent) for path in files]
            names = os.path.realpath("/etc/resolv.conf")  # systemd keeps it in /run
            found += [(path, READ) for path in ("/etc", names, *folders) if os.path.exists(path)]
        case "memory":
            found += [(str(home / "memory"), ALL)]
        case "courier":
            found += [(path, Rights.READ_FILE) for path in _of_courier(config) if os.path.exists(path)]
        case "database":
            found += [(path, rights) for path, rights in _of_database(config) if os.path.exists(path)]
        case _:
            # Workspaces may lie anywhere that the user may write; journal, keys and memory are hidden by
            # mounts (as an ordinary user) or belong to other users (as root).
            found = [("/", ALL & ~Rights.EXECUTE & ~Rights.MAKE_CHAR & ~Rights.MAKE_BLOCK)]
    return found


def _of_courier(config: Config) -> list[str]:
    """To resolve names, to trust certificates, to read credentials: to read, and no folder to look into.

    Folders, not files: a rule names the inode, and a file that is written anew (by DHCP, by an update of the
    certificates, by a rotation of keys) is another one.
    """
    files = [one.value_file for one in config.credential if one.value_file]
    certificates = [
        path for path in (os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")) if path
    ]
    rotated = [*files, os.path.realpath("/etc/resolv.conf")]
    folders = [path if Path(path).parent == Path("/") else str(Path(path).parent) for path in rotated]
    return ["/etc", "/usr/share/ca-certificates", "/usr/local/share/ca-certificates", *certificates, *folders]


def _of_database(config: Config) -> list[tuple[str, Rights]]:
    """The folders of SQLite files, to write where a connection may (a journal lies beside its file); and what
    reaching a server takes, to read.
    """
    keep = Rights.WRITE_FILE | Rights.MAKE_REG | Rights.REMOVE_FILE | Rights.TRUNCATE
    found = [(path, READ) for path in ("/etc", os.path.realpath("/etc/resolv.conf"))]
    for one in config.connection:
        if (file := sqlite_file(one.url)) is not None:
            found.append((_folder(file), READ | keep if one.write else READ))
        found += [(_folder(path), READ) for path in (one.password_file, *files_of(one.url)) if path]
    return found


def _folder(path: str) -> str:
    """The folder of a file, which may be written anew; in the root the file: the root is everything."""
    folder = str(Path(path).parent)
    return path if folder == "/" else folder


def _interpreter() -> list[str]:
    """What an import in mid-life needs."""
    package = Path(__file__).resolve().parents[1]
    paths = {
        sys.prefix,
        sys.base_prefix,
        "/usr/lib",
        "/usr/share/zoneinfo",
        "/etc/localtime",
        str(package),
        "/proc/self",
        "/proc/sys/kernel/random",
        "/sys/devices/system/cpu",
    }
    return sorted(path for path in paths if os.path.exists(path))


def _in_own_user_namespace() -> bool:
    """As root the nursery put the executor into a namespace of its own, where it kept its capabilities."""
    return os.geteuid() != 0 and prctl.cap_permitted.dac_override


def _drop_capabilities() -> None:
    """Nothing is held and, with no_new_privs, nothing can be gained; the bounding set goes where it can."""
    if prctl.cap_effective.setpcap:
        kernel.drop_bounding_set()
    kernel.clear_capabilities()
    status = Path("/proc/thread-self/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    held = {name: fields[name] for name in ("CapPrm", "CapEff", "CapInh", "CapAmb") if int(fields[name], 16)}
    if held:
        raise OSError(1, f"capabilities are left: {held}")


def _hide(paths: list[str]) -> None:
    """Cover folders with empty read-only ones, in a mount namespace that we can't change afterwards."""
    uid, gid = os.geteuid(), os.getegid()
    _check(_libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNS), "unshare")
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        Path(f"/proc/self/{name}").write_text(text)
    _check(_libc.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None), "mount /")
    for path in paths:
        _check(_libc.mount(b"none", os.fsencode(path), b"tmpfs", _MS_RDONLY, b"size=4k,mode=000"), path)


def _check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
