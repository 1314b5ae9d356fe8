"""Attacks by what is left in the workspace, or lies in it already: somebody outside follows, runs or reads it.

Owns: numbers 4 to 7, 12, 13, 19 and 21 of the corpus as far as one sandbox shows them, and what is like them.
Must not know: how attacks are run and told.
Invariant: what an attack could write, were it let, is a canary or an empty file of its own name that it removes.
Source: the numbers of the corpus; each CVE is named at its case.
"""

# ruff: noqa: E501 (an attack is one expression a line; its paths and addresses are the point)

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from ..case import Act, Answer, Case
from ..ground import TEXT, Ground

_NO: Final = ("EACCES", "EROFS", "EPERM")
_NOT_THERE: Final = (*_NO, "ENOENT", "ENOTDIR")
_PLANTS: Final = (
    ".git/hooks/pre-commit", "sub/.git/hooks/post-checkout", ".git/config", ".gitmodules", ".mcp.json",
    ".vscode/tasks.json", ".claude/settings.json", ".codex/config.toml", ".envrc", ".bashrc", "sitecustomize.py",
)  # fmt: skip


def _own_repository(ground: Ground) -> Mapping[str, Any]:
    ground.folder(ground.workspace / ".git")
    ground.folder(ground.workspace / ".git" / "hooks")
    ground.folder(ground.workspace / "sub")
    ground.folder(ground.workspace / "sub" / ".git")
    ground.folder(ground.workspace / "sub" / ".git" / "hooks")
    return {"PLANTS": list(_PLANTS)}


def _no_plants(ground: Ground) -> Iterable[Answer]:
    for name in _PLANTS:
        there = (ground.workspace / name).exists()
        yield Answer(f"{name} in the workspace", "planted" if there else "absent", ("absent",))


def _helper_writes(ground: Ground) -> Iterable[Answer]:
    """A program outside that writes its report into the workspace, as programs do, following links."""
    (ground.workspace / "report").write_text("the helper's own words")
    whole = ground.canary.read_text() == TEXT
    yield Answer("a helper's report", "inside" if whole else "on the canary", ("inside",))


def _hard_link(ground: Ground) -> Mapping[str, Any]:
    os.link(ground.canary, ground.workspace / "hard")
    return {}


def _no_setuid(ground: Ground) -> Iterable[Answer]:
    for path in ground.workspace.iterdir():
        mode = path.lstat().st_mode
        yield Answer(path.name, "setuid" if mode & (stat.S_ISUID | stat.S_ISGID) else "plain", ("plain",))


def _device(ground: Ground) -> Mapping[str, Any]:
    os.mknod(ground.workspace / "zero", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    (ground.workspace / "zero").chmod(0o666)
    return {}


def _setuid_copy(ground: Ground) -> Mapping[str, Any]:
    copy = ground.workspace / "id"
    copy.write_bytes(Path("/usr/bin/id").read_bytes())
    os.chown(copy, 0, 0)
    copy.chmod(0o6755)
    return {}


def _untouched(ground: Ground) -> Iterable[Answer]:
    left = sorted(os.listdir(ground.workspace))
    yield Answer("the workspace after a command that did nothing", ",".join(left) or "empty", ("empty",))


def _opaque(ground: Ground) -> Answer:
    """A marker that a command set must not be one of the stage's own: the merge would follow it."""
    folder = ground.written / "folder"
    try:
        value = os.getxattr(folder, "user.overlay.opaque")
    except OSError:
        value = b""
    return Answer("opaque in the stage", value.decode(errors="replace") or "none", ("none",))


CASES: Final = (
    Case(
        "rename-parent", (4,), "rename what the sandbox rests on", "mounts",
        acts=(
            Act("the workspace", "os.rename(WORKSPACE, WORKSPACE + '2')", (*_NO, "EBUSY", "EXDEV")),
            Act("a parent of a shown file", "os.rename(os.path.dirname(SHOWN), OUTSIDE + '2')", (*_NOT_THERE, "EBUSY")),
            Act("a shown file", "os.rename(SHOWN, os.path.join(WORKSPACE, 'x'))", (*_NO, "EXDEV", "EBUSY")),
            Act("unlink a shown file", "os.unlink(SHOWN)", (*_NO, "EBUSY")),
        ),
    ),
    Case(
        "plant-config", (5, 7), "plant hooks and settings for tools outside",
        "stage", like="CVE-2026-25725",
        prepare=_own_repository,
        setup="""
for name in PLANTS:
    try:
        if os.path.dirname(name):
            os.makedirs(os.path.dirname(name), exist_ok=True)
        with open(name, "w") as file:
            file.write("#!/bin/sh\\nexit 0\\n")
        os.chmod(name, 0o755)
    except OSError:
        pass  # refused or over: the examination tells
""",
        examine=_no_plants,
        vehicles=("command", "builtin"),
    ),
    Case(
        "symlink-for-a-helper", (6,), "a symlink for a helper outside to follow",
        "stage", like="CVE-2026-39861",
        acts=(Act("plant it", "os.symlink(CANARY, 'report')", ("OK",)),),
        examine=_helper_writes,
    ),
    Case(
        "planted-device", (12,), "a device node that lies in the workspace", "nodev",
        prepare=_device, staged=False, needs=frozenset({"root"}),
        acts=(Act("open it", "opening('zero', os.O_RDONLY)", ("EACCES", "EPERM")),),
    ),
    Case(
        "planted-setuid", (13,), "a setuid program of root's in the workspace", "no_new_privs, nosuid",
        prepare=_setuid_copy, staged=False, needs=frozenset({"root"}),
        acts=(Act("run it", "os.popen('./id -u').read().strip() == str(os.getuid()) and 'same' or 'root'", ("same",)),),
    ),
    Case(
        "leave-setuid", (67,), "leave a setuid program behind for others", "stage",
        setup="""
for name in ("s", "g"):
    try:
        os.close(os.open(name, os.O_CREAT | os.O_WRONLY, 0o755)); os.chmod(name, 0o6755)
    except OSError:
        pass  # refused or over: the examination tells
""",
        examine=_no_setuid,
    ),
    Case(
        "overlay-markers", (19,), "plant overlay markers in the stage", "seccomp, overlayfs",
        needs=frozenset({"elsewhere"}),
        setup="os.mkdir('folder')",
        acts=(
            Act("opaque", "os.setxattr('folder', 'user.overlay.opaque', b'y') or os.getxattr('folder', "
                "'user.overlay.opaque') and 'planted'", ("EPERM", "EOPNOTSUPP", "ENODATA", "planted")),
            Act("trusted", "os.setxattr('folder', 'trusted.overlay.opaque', b'y')", ("EPERM", "EOPNOTSUPP")),
            Act("a whiteout by mknod", "os.mknod('gone', 0o20000, 0)"),
            Act("a capability", "os.setxattr('folder', 'security.capability', bytes(20))", ("EPERM", "EINVAL", "EOPNOTSUPP")),
        ),
        examine=lambda ground: [_opaque(ground)],
    ),
    Case(
        "hard-link", (68,), "a hard link to a file outside", "stage",
        prepare=_hard_link,
        acts=(
            Act("write to it", "writing('hard')", ("OK", *_NO)),
            Act("its mode", "os.chmod('hard', 0o600)", ("OK", *_NO)),
            Act("link a shown file", "os.link(SHOWN, 'mine')", (*_NO, "EXDEV")),
            Act("link a system file", "os.link('/usr/bin/env', 'mine')", (*_NO, "EXDEV")),
        ),
    ),
    Case(
        "odd-names", (21,), "names with newlines, no text, 255 bytes", "stage",
        setup="""
def name(raw):
    os.close(os.open(raw, os.O_CREAT | os.O_WRONLY, 0o600))
    return "made" if raw in os.listdir(b".") else "lost"
""",
        acts=(
            Act("a newline", "name(b'a\\n@forged\\tOK')", ("made",)),
            Act("no UTF-8", "name(b'\\xff\\xfe')", ("made", "EINVAL")),
            Act("255 bytes", "name(b'n' * 255)", ("made",)),
            Act("256 bytes", "name(b'n' * 256)", ("ENAMETOOLONG",)),
            Act("an escape sequence", "name(b'\\x1b]0;owned\\x07')", ("made",)),
        ),
    ),
    Case(
        "ghosts", (71,), "files left behind by the sandbox itself", "own root",
        acts=(Act("nothing", "None", ("OK",)),),
        examine=_untouched,
    ),
)  # fmt: skip
