"""What a program prints, without what must not reach an emulator or a person's own terminal.

Owns: which escape sequences pass.
Must not know: what they do (screen.py).
Invariants: what is not known to be harmless and understood is dropped, whole, however the stream is cut;
            what passes is UTF-8 in which every ESC begins a sequence that may pass, so that nothing dropped
            can make a sequence of what was around it, and sifting again changes nothing; an endless sequence
            costs a bounded memory; text is never dropped.
    # INVARIANT: test_sifting_again_changes_nothing_however_the_stream_is_cut
Source: ECMA-48; xterm's ctlseqs: DCS, APC and OSC strings (a clipboard by OSC 52, files by OSC 1337), and
        CSI with a private prefix, which pyte 0.8 takes for others (adr/0019).
"""

from __future__ import annotations

import codecs
import re
from typing import Final

_HELD_BYTES: Final = 4_096
_CONTROLS: Final = bytes(set(range(32)) - set(b"\a\b\t\n\v\f\r\x1b")) + b"\x7f"
_C1: Final = re.compile("[\x80-\x9f]")
"""U+009B is CSI to an emulator, U+009D OSC."""
_NO_CHARACTER: Final = "\ufffd"
_SEQUENCE: Final = re.compile(
    rb"\x1b(?:\[(?P<csi>[0-?]*[ -/]*[@-~])"
    rb"|\](?P<osc>[^\x07\x18\x1a\x1b]*)(?:\x07|\x1b\\)"
    rb"|[PX^_][^\x18\x1a\x1b]*\x1b\\"
    rb"|(?P<short>[ -/]*[0-OQ-WYZ`-~\\])"
    rb"|)"  # begins nothing, yet; left there, it would when what is behind it is dropped
)
_UNFINISHED: Final = re.compile(
    rb"\x1b(?:\[[0-?]*[ -/]*|\][^\x07\x18\x1a\x1b]*\x1b?|[PX^_][^\x18\x1a\x1b]*\x1b?|[ -/]*)\Z"
)
_STRINGS: Final = b"]PX^_"
_STRING_ENDS: Final = re.compile(rb"[\x07\x18\x1a\x1b]")
_CSI: Final = re.compile(
    rb"[0-9]{0,5}[@A-GLMPXSTa`dben]"  # one number
    rb"|[0-3]?J|[0-2]?K|0?c|[03]?g"
    rb"|(?:[0-9]{0,5};)?[0-9]{0,5}[Hfr]"
    rb"|(?:[0-9]{0,5}(?:;[0-9]{0,5}){0,31})?m"
    rb"|\??[0-9]{1,5}(?:;[0-9]{1,5}){0,15}[hl]"
    rb"|[su]"
)
_OSC: Final = re.compile(rb"[02];[^\x00-\x1f\x7f]{0,256}")
_SHORT: Final = re.compile(rb"[cDEHMZ78=>]|#8|\([0AB]|\)[0AB]")


class Sifter:
    """Feed bytes, get those that may pass."""

    def __init__(self) -> None:
        self._held = b""
        self._in_string = False
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, data: bytes) -> bytes:
        """What of this, and of what was held back before, may pass."""
        data = self._held + self._characters(data.translate(None, _CONTROLS))
        self._held = b""
        if self._in_string:
            data = self._after_string(data)
        if b"\x1b" not in data:
            return data
        last = data.rfind(b"\x1b")
        before = data.rfind(b"\x1b", 0, last)
        if unfinished := _UNFINISHED.search(data, max(before, 0)):
            data, self._held = data[: unfinished.start()], data[unfinished.start() :]
            self._bound_held()
        return _SEQUENCE.sub(_passes, data)

    def _characters(self, data: bytes) -> bytes:
        """The same in whole characters; before sequences are dropped, else two halves could meet."""
        if data.isascii() and not self._decoder.getstate()[0]:
            return data
        return _C1.sub(_NO_CHARACTER, self._decoder.decode(data)).encode()

    def _bound_held(self) -> None:
        """Of a sequence that doesn't end only is remembered that we are inside one."""
        if len(self._held) <= _HELD_BYTES:
            return
        self._in_string = self._held[1:2] in _STRINGS
        self._held = b"\x1b" if self._in_string and self._held.endswith(b"\x1b") else b""

    def _after_string(self, data: bytes) -> bytes:
        found = _STRING_ENDS.search(data)
        if not found:
            return b""
        self._in_string = False
        return data[found.start() if found[0] == b"\x1b" else found.end() :]


def _passes(found: re.Match[bytes]) -> bytes:
    for name, allowed in (("csi", _CSI), ("osc", _OSC), ("short", _SHORT)):
        part = found[name]
        if part is not None and allowed.fullmatch(part):
            return found[0]
    return b""
