"""Files that programs outside of the sandbox run or obey, long after the call that wrote them.

Owns: which names those are, and which settings of git run something.
Must not know: stages, diffs, what policy says of them.
Invariant: pure; a name counts wherever it lies in the workspace, since nobody knows whence it will be used.
Source: gitrepository-layout(5), git-config(1); bash(1), zsh(1) "STARTUP FILES"; direnv(1); what other
    sandboxes protect, and CVE-2026-25725 (a missing one that was made).
"""

from __future__ import annotations

import re
from typing import Final

_FILES: Final = frozenset({
    ".bashrc", ".bash_profile", ".bash_login", ".bash_logout", ".bash_aliases", ".profile", ".zshrc",
    ".zshenv", ".zprofile", ".zlogin", ".zlogout", ".kshrc", ".cshrc", ".tcshrc", ".login", ".xprofile",
    ".xinitrc", ".gitconfig", ".vimrc", ".exrc", ".nvimrc", ".gdbinit", ".lldbinit", ".inputrc",
    ".ripgreprc", ".curlrc", ".wgetrc", ".envrc", ".mcp.json", ".pdbrc", ".pythonrc.py",
    ".pre-commit-config.yaml",
})  # fmt: skip
"""Read by a shell, an editor, a debugger or a tool when it is started in or below their folder."""
_FOLDERS: Final = frozenset({
    ".ssh", ".vscode", ".idea", ".husky", ".direnv", ".devcontainer", ".claude", ".codex", ".cursor",
    ".gemini", ".gnupg",
})  # fmt: skip
"""Whatever lies in them is settings, tasks or keys."""
_CONFIGS: Final = frozenset({"config", "config.worktree"})

CONFIG_BYTES: Final = 1 << 20
"""A longer configuration of a repository is obeyed without being read."""
_HEADER: Final = re.compile(rb'\[[ \t]*([A-Za-z0-9.-]*)(?:[ \t]+"((?:[^"\\\n]|\\.)*)")?[ \t]*\][ \t\r]*')
_RUNS: Final = {
    b"core": (b"hookspath", b"fsmonitor", b"sshcommand", b"editor", b"pager", b"askpass", b"gitproxy",
              b"alternaterefscommand", b"attributesfile", b"worktree"),
    b"include": (b"path",), b"includeif": (b"path",), b"credential": (b"helper",), b"gpg": (b"program",),
    b"filter": (b"clean", b"smudge", b"process"), b"diff": (b"command", b"textconv", b"external"),
    b"merge": (b"driver",), b"sequence": (b"editor",), b"interactive": (b"difffilter",),
    b"uploadpack": (b"packobjectshook",), b"remote": (b"uploadpack", b"receivepack", b"proxy", b"vcs"),
    b"difftool": (b"cmd", b"path"), b"mergetool": (b"cmd", b"path"), b"browser": (b"cmd", b"path"),
    b"man": (b"cmd", b"path"), b"pager": (), b"alias": (), b"protocol": (), b"url": (),
    b"trailer": (b"cmd", b"command"), b"submodule": (b"update",), b"init": (b"templatedir",),
    b"sendemail": (), b"tar": (b"command",),
}  # fmt: skip
"""Settings that run a program or say where one is; none named: every setting of the section."""


def is_obeyed(path: str) -> bool:
    """Whether a changed path is such a file, or lies in such a folder; git's own settings aside."""
    names = path.split("/")
    return names[-1] in _FILES or not _FOLDERS.isdisjoint(names)


def is_git_config(path: str) -> bool:
    """Whether a path may be a repository's own configuration, which `commands_of` has to judge.

    Git takes every folder with the right names in it for a repository, so only the file's name tells.
    """
    return path.rpartition("/")[2] in _CONFIGS


def leads_elsewhere(path: str) -> bool:
    """Whether a path says where the rest of a repository lies, its configuration included."""
    names = path.split("/")
    return names[-1] == "commondir" and any(name.endswith(".git") for name in names[:-1])


def commands_of(config: bytes) -> frozenset[bytes]:
    """The settings of a git configuration that run a program, or say where hooks, settings or helpers lie.

    Each is its section and its line, so that two configurations can be compared. Read as git reads it:
    headers stand at a line's beginning or behind another header; a line that git refuses makes it refuse the
    whole file.
    """
    if len(config) > CONFIG_BYTES or b"\\\n" in config or b"\\\r\n" in config:
        return frozenset({config})  # What git reads as one line is taken for harmful rather than read.
    found: set[bytes] = set()
    wanted: tuple[bytes, ...] | None = None
    header = b""
    for line in config.removeprefix(b"\xef\xbb\xbf").split(b"\n"):
        rest = line.strip()
        while rest.startswith(b"[") and (section := _HEADER.match(rest)):
            header, rest = section[0].strip(), rest[section.end() :]
            wanted = _RUNS.get(section[1].lower().partition(b".")[0])
        if wanted is not None and _is_setting(rest, wanted):
            found.add(header + rest)
    return frozenset(found)


def _is_setting(line: bytes, wanted: tuple[bytes, ...]) -> bool:
    """Whether a line sets one of these, or, where none is named, anything."""
    name = line.partition(b"=")[0].strip().lower()
    return bool(name) and name[:1] not in b"#;[" and (not wanted or re.split(rb"[ \t#;]", name)[0] in wanted)
