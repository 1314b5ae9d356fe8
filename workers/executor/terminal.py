"""What a terminal would have shown: escape and control sequences taken out of a stream of bytes.

Owns: the incremental stripping of ANSI/OSC/DCS sequences, carriage returns, backspaces, bad UTF-8.
Must not know: where the bytes come from, how much of the text is kept.
Invariant: for lines up to ``_HELD_BYTES`` the text is the same however the stream is cut into chunks
           (test_stripper_gives_the_same_text_for_any_chunking); endless sequences and lines cost no memory.
Source: ECMA-48 (CSI, OSC, DCS, SOS, PM, APC), xterm ctlseqs ("OSC may end in BEL"), Unicode TR36 (bidi).
"""

from __future__ import annotations

import codecs
import re
from typing import Final

_HELD_BYTES: Final = 4_096
_SEQUENCE: Final = re.compile(
    rb"\x1b(?:\[[0-?]*[ -/]*[@-~]"  # CSI … final
    rb"|\][^\x07\x18\x1a\x1b]*(?:\x07|\x1b\\)"  # OSC … BEL or ST
    rb"|[PX^_][^\x18\x1a\x1b]*\x1b\\"  # DCS, SOS, PM, APC … ST
    rb"|[ -/]*[0-~])"  # everything shorter
)
_UNFINISHED: Final = re.compile(
    rb"\x1b(?:\[[0-?]*[ -/]*|\][^\x07\x18\x1a\x1b]*\x1b?|[PX^_][^\x18\x1a\x1b]*\x1b?|[ -/]*)\Z"
)
_STRING_BEGINS: Final = b"]PX^_"
_STRING_ENDS: Final = re.compile(rb"[\x07\x18\x1a\x1b]")
_OVERWRITTEN: Final = re.compile(
    rb"^[^\n]*\r", re.MULTILINE
)  # anchored: else a long line is tried from each byte
_RUBBED_OUT: Final = re.compile(rb"[^\n\x08]\x08")
_CONTROLS: Final = bytes(c for c in (*range(32), 127) if c not in b"\n\t")
_UNSEEN: Final = re.compile("[\x80-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""C1 controls, and marks that make text read otherwise than it is."""


class Stripper:
    """Feed bytes, get the text that a person would have read."""

    def __init__(self) -> None:
        self._held = b""
        self._line = b""
        self._in_string = False
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.replaced = False

    def feed(self, data: bytes) -> bytes:
        """Give the text, as UTF-8, of all lines that are complete with these bytes."""
        plain = self._without_sequences(self._held + data)
        return self._text(self._complete_lines(plain), final=False)

    def finish(self) -> bytes:
        """Give what is left: the last line, without an unfinished sequence."""
        line = self._line.rstrip(b"\r")
        self._held = self._line = b""
        return self._text(_overwrite(line), final=True)

    # -- sequences ------------------------------------------------------------------------------------
    def _without_sequences(self, data: bytes) -> bytes:
        self._held = b""
        if self._in_string:
            data = self._skip_string(data)
        if b"\x1b" not in data:
            return data
        last = data.rfind(b"\x1b")
        before = data.rfind(b"\x1b", 0, last)  # a string that waits for the second half of its ESC \
        if unfinished := _UNFINISHED.search(data, max(before, 0)):
            data, self._held = data[: unfinished.start()], data[unfinished.start() :]
            self._bound_held()
        return _SEQUENCE.sub(b"", data)

    def _bound_held(self) -> None:
        """A sequence that doesn't end: forget what it holds; of a string remember that we are inside one."""
        if len(self._held) <= _HELD_BYTES:
            return
        self._in_string = self._held[1:2] in _STRING_BEGINS
        self._held = b"\x1b" if self._in_string and self._held.endswith(b"\x1b") else b""

    def _skip_string(self, data: bytes) -> bytes:
        found = _STRING_ENDS.search(data)
        if not found:
            return b""
        self._in_string = False
        if found[0] != b"\x1b":
            return data[found.end() :]
        return data[found.start() :]  # ESC \ is then a sequence of its own, and any other ESC begins one

    # -- lines ----------------------------------------------------------------------------------------
    def _complete_lines(self, data: bytes) -> bytes:
        lines, newline, rest = (self._line + data).rpartition(b"\n")
        if len(rest) > _HELD_BYTES:
            # An endless line: give its beginning away; only what comes after can still be overwritten.
            ready, self._line = rest[:-1], rest[-1:]
            return _overwrite(lines + newline) + _overwrite(ready)
        self._line = rest
        return _overwrite(lines + newline)

    def _text(self, data: bytes, *, final: bool) -> bytes:
        text = self._decoder.decode(data.translate(None, _CONTROLS), final)
        if "\ufffd" in text:
            self.replaced = True
        return (_UNSEEN.sub("", text) if not text.isascii() else text).encode()


def _overwrite(data: bytes) -> bytes:
    """Play carriage returns and backspaces: what was overwritten is gone."""
    if b"\r" in data:
        while b"\r\r" in data:
            data = data.replace(b"\r\r", b"\r")
        data = _OVERWRITTEN.sub(b"", data.replace(b"\r\n", b"\n"))
    if b"\x08" in data:
        data = _RUBBED_OUT.sub(b"", data)
    return data
