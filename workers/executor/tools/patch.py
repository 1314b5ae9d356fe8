"""file.patch: run within the sandbox; a unified diff applied to files, all of it or nothing.

Owns: what it does and says.
Must not know: how a diff is read (unidiff.py), stages, the ledger, the gate.
Invariant: nothing is written before every file's new content is known; encodings and line ends stay.
Source: issue 4, Build 6; patch(1), of which it has neither the fuzz nor the guessing.
"""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass
from typing import Any, Final

from . import unidiff
from .builtin import LARGEST_FILE_BYTES, Failure, open_file, place, put, read_all, set_executable, shown
from .encodings import UTF_8, Encoding, UnwritableError, of

FILES_LIMIT: Final = 1_000
_Originals = dict[str, tuple[bytes, int]]
"""What files held before, and their modes."""


@dataclass
class _State:
    """A file as it will be: its text, how it is bytes; no text when it is not there."""

    text: str | None
    encoding: Encoding = UTF_8
    mode: int = 0o644
    executable: bool | None = None
    existed: bool = False


def patch(arguments: dict[str, Any]) -> str:
    """Apply a patch; say what became of each file."""
    try:
        changes = unidiff.parse(arguments["patch"])
    except unidiff.PatchError as error:
        raise Failure(f"{error}; nothing was changed") from None
    if len(changes) > FILES_LIMIT:
        raise Failure(f"the patch has more than {FILES_LIMIT} files; nothing was changed")
    states: dict[str, _State] = {}
    originals: _Originals = {}
    said: list[str] = []
    for change in changes:
        try:
            said.append(_plan(states, originals, change))
        except (unidiff.PatchError, UnwritableError) as error:
            raise Failure(f"{shown(change.target or change.source)}: {error}; nothing was changed") from None
    _check_places(states)
    data = {path: _data(path, state) for path, state in states.items()}
    _write(states, data, originals)
    return "".join(f"{line}\n" for line in said)


def _plan(states: dict[str, _State], originals: _Originals, change: unidiff.Change) -> str:
    """Work out what a change makes of its file. Raises PatchError, Failure."""
    source, target = place(change.source or change.target), place(change.target or change.source)
    before = states.get(source) or _load(change.source or change.target, source, originals)
    if not change.source and before.text is not None:
        raise unidiff.PatchError("it is there already, and the patch makes it")
    if change.source and before.text is None:
        raise unidiff.PatchError("no such file")
    if target != source and (states.get(target) or _load(change.target, target, originals)).text is not None:
        raise unidiff.PatchError("it is there already, and the patch renames another to it")
    text = _applied(before.text or "", change.hunks)
    if not change.target:
        if text:
            raise unidiff.PatchError("the patch removes it, but not all of its lines")
        states[source] = _State(None, before.encoding, before.mode, existed=before.existed)
        return f"removed {shown(change.source)}"
    executable = before.executable if change.executable is None else change.executable
    existed = before.existed if target == source else False
    states[target] = _State(text, before.encoding, before.mode, executable, existed)
    if target != source:
        states[source] = _State(None, existed=before.existed)
        states[target].executable = bool(before.mode & 0o100) if executable is None else executable
        return f"renamed {shown(change.source)} to {shown(change.target)}"
    hunks = len(change.hunks)
    said = f"{hunks} {'hunk' if hunks == 1 else 'hunks'}"
    return f"{'patched' if change.source else 'made'} {shown(change.target)}: {said}"


def _load(name: str, whole: str, originals: _Originals) -> _State:
    """A file as it is. Raises Failure for what is no text file, or lies behind a link."""
    try:
        mode = os.lstat(whole).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return _State(None)
    if stat.S_ISLNK(mode):
        raise Failure(f"{shown(name)}: it is a link; patch the file that it leads to; nothing was changed")
    fd = open_file(name)
    try:
        if os.fstat(fd).st_size > LARGEST_FILE_BYTES:
            raise Failure(f"{shown(name)}: too large to patch (over {LARGEST_FILE_BYTES} bytes)")
        data = read_all(fd)
    finally:
        os.close(fd)
    originals[whole] = data, stat.S_IMODE(mode)
    encoding = of(data)
    if encoding is None:
        raise Failure(f"{shown(name)}: it is a binary file; nothing was changed")
    return _State(encoding.text(data), encoding, stat.S_IMODE(mode), existed=True)


def _applied(text: str, hunks: list[unidiff.Hunk]) -> str:
    """The text after all hunks; one with Windows line ends takes a patch that has none. Raises PatchError."""
    lines = _lines(text)
    try:
        return "".join(unidiff.apply(lines, hunks))
    except unidiff.PatchError:
        if "\r\n" not in text or any("\r" in line for hunk in hunks for line in (*hunk.old, *hunk.new)):
            raise
    returned = [
        unidiff.Hunk(hunk.line, hunk.start, _returned(hunk.old), _returned(hunk.new)) for hunk in hunks
    ]
    return "".join(unidiff.apply(lines, returned))


def _returned(lines: list[str]) -> list[str]:
    return [line.replace("\n", "\r\n") for line in lines]


def _lines(text: str) -> list[str]:
    """Cut after newlines and nowhere else."""
    lines = [f"{line}\n" for line in text.split("\n")]
    lines[-1] = lines[-1][:-1]
    return lines if lines[-1] else lines[:-1]


def _check_places(states: dict[str, _State]) -> None:
    """No file may come to lie in what is, or becomes, a file. Raises Failure."""
    files = {path for path, state in states.items() if state.text is not None}
    for path in files:
        if os.path.isdir(path) and not os.path.islink(path):
            raise Failure(f"{shown(path)}: it is a folder; nothing was changed")
        above = os.path.dirname(path)
        while len(above) > 1:
            gone = above in states and states[above].text is None
            if above in files or (not gone and os.path.lexists(above) and not os.path.isdir(above)):
                raise Failure(
                    f"{shown(path)}: a part of this path is a file, not a folder; nothing was changed"
                )
            above = os.path.dirname(above)


def _data(path: str, state: _State) -> bytes | None:
    if state.text is None:
        return None
    try:
        return state.encoding.data(state.text)
    except UnwritableError as error:
        raise Failure(f"{shown(os.path.basename(path))}: {error}; nothing was changed") from None


def _write(states: dict[str, _State], data: dict[str, bytes | None], originals: _Originals) -> None:
    """Removals first: a name may become a folder. What can't be finished is taken back. Raises OSError."""
    begun: list[str] = []
    order = sorted(states, key=lambda path: data[path] is not None)
    try:
        for path in order:
            begun.append(path)
            _settle(path, states[path], data[path])
    except OSError:
        for path in reversed(begun):
            _restore(path, originals.get(path))
        raise


def _settle(path: str, state: _State, content: bytes | None) -> None:
    if content is None:
        if state.existed:
            os.unlink(path)
        return
    os.makedirs(os.path.dirname(path), exist_ok=True)
    put(path, content)
    if state.executable is not None:
        set_executable(path, executable=state.executable)


def _restore(path: str, original: tuple[bytes, int] | None) -> None:
    """As it was; what was never touched, for it may not be, is left."""
    with contextlib.suppress(OSError):
        if original is None:
            os.unlink(path)
        else:
            put(path, original[0])
            os.chmod(path, original[1])
