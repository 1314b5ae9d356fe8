"""How a call ended, in the words that the model and a person read.

Owns: every Ended that the executor says, and its bytes in the ledger.
Must not know: when a call ends (core.py).
Invariant: whatever was thrown away or is unknown is said in the text, in brackets, after the output.
Source: DESIGN §4 (classes), §13 (statuses).
"""

from __future__ import annotations

import signal
from typing import Final

import msgspec

from ...proto import messages as m
from ...proto.ids import CallStatus, Key
from ...proto.records import DiffSummary
from .calls import Call, Exited, Output

_replace = msgspec.structs.replace
_decoder: msgspec.msgpack.Decoder[m.Ended] = msgspec.msgpack.Decoder(m.Ended)

encode = msgspec.msgpack.Encoder().encode
decode = _decoder.decode

_CUT_OFF: Final[dict[CallStatus, str]] = {
    "timeout": "killed: its time was up",
    "cancelled": "killed: it was cancelled",
}
_MEMORY: Final = "all its processes together passed the memory limit (sandbox.total_memory_bytes)"
_THROWN_AWAY: Final = "its changes to files were thrown away"


def _saying(outcome: m.Ended, line: str, **changes: object) -> m.Ended:
    """With one more line in brackets."""
    text = outcome.text
    if text and not text.endswith("\n"):
        text += "\n"
    return _replace(outcome, text=f"{text}[{line}]", **changes)


def of_exit(call: Call, event: Exited, duration_s: float) -> m.Ended:
    """The end of a command, as yet without its output."""
    status: CallStatus = "ok" if event.exit_code == 0 else "error"
    if event.waiting:
        status = "waiting_for_input"
    elif event.silent_s:
        status = "timeout"
    elif event.signal is not None:
        status = "killed"
    return m.Ended(
        call.key, status, "", exit_code=event.exit_code, signal=event.signal, duration_s=round(duration_s, 6),
        protection=call.protection, note=_MEMORY if event.oom_kills else "",
    )  # fmt: skip


def with_output(outcome: m.Ended, output: Output) -> m.Ended:
    """With what it printed, and why some of its processes may have been killed."""
    printed = _replace(
        outcome,
        text=output.text,
        artifact=output.artifact,
        output_bytes=output.output_bytes,
        note="; ".join(filter(None, (outcome.note, output.note))),
    )
    killed_by_signal = outcome.status == "killed"  # then `died` says it
    return _saying(printed, _MEMORY) if outcome.note and not killed_by_signal else printed


def cut_off(outcome: m.Ended, status: CallStatus, *, staged: bool, why: str = "") -> m.Ended:
    """It was told to end."""
    took = f" after {outcome.duration_s:.1f} s" if outcome.duration_s else ""
    why = f"killed{took}: {why}" if why else f"{_CUT_OFF.get(status, 'killed')}{took}"
    return _saying(outcome, f"{why}; {_THROWN_AWAY}" if staged else why, status=status, diff=None)


def withdrawn(outcome: m.Ended, status: CallStatus) -> m.Ended:
    """It had ended by itself, and was told to end before its changes were admitted."""
    return _saying(outcome, f"ended before its changes to files were admitted; {_THROWN_AWAY}", status=status)


def died(outcome: m.Ended, *, staged: bool, silent_s: float = 0.0) -> m.Ended:
    """A signal ended it, it waited for what never comes, or it was silent for too long."""
    if outcome.status == "waiting_for_input":
        why = (
            "ended: it waited for input from its terminal, and there was none; give the answer in `stdin`, "
            "or run it with terminal.open and answer with terminal.send"
        )
    elif silent_s:
        why = f"killed: it had printed nothing for {silent_s:g} s"
    else:
        why = f"killed by {signal_name(outcome.signal)}"
        why += f": {_MEMORY}" if outcome.note.startswith(_MEMORY) else ""
    return _saying(outcome, f"{why}; {_THROWN_AWAY}" if staged else why)


def signal_name(number: int | None) -> str:
    """``SIGTERM``, or its number where it has no name."""
    try:
        return signal.Signals(number or 0).name
    except ValueError:
        return f"signal {number}"


def refused(outcome: m.Ended, reason: str, diff: DiffSummary | None) -> m.Ended:
    """The gate refused what it did."""
    line = f"what it did was refused and {_THROWN_AWAY.removeprefix('its changes to files were ')}: {reason}"
    return _saying(outcome, line, status="refused", diff=diff)


def unkeepable(outcome: m.Ended, reason: str, diff: DiffSummary) -> m.Ended:
    """What it did can't be merged, whatever the gate would say."""
    return _saying(outcome, f"{_THROWN_AWAY}, they can't be kept: {reason}", status="error", diff=diff)


def not_merged(outcome: m.Ended, trouble: str, *, partly: bool) -> m.Ended:
    """The merge was not done, or stopped where no one knows."""
    if partly:
        line = (
            f"merging its changes stopped midway: {trouble}. Nothing of others was overwritten; what is left "
            f"waits in its stage, and is tried again when the executor starts or the doubt is resolved"
        )
        return _saying(outcome, line, status="in_doubt")
    return _saying(outcome, f"{trouble}; nothing was merged", status="error", diff=None)


def anew(key: Key, doubtful: m.Ended | None) -> m.Ended:
    """The outcome of a call whose merge had stopped midway, as it is once it is complete."""
    if doubtful is None:
        return lost_text(key)
    status: CallStatus = "error" if doubtful.exit_code else "ok"
    return _saying(doubtful, "it was looked into, and decided anew", status=status)


def in_doubt(key: Key) -> m.Ended:
    """It may have been done, and must not be done twice."""
    return m.Ended(
        key, "in_doubt",
        "outcome unknown: this call was under way when its executor or the machine stopped, and it may have "
        "taken effect. It was not run again.",
    )  # fmt: skip


def lost_text(key: Key) -> m.Ended:
    """It was done and counts, but what it printed is gone."""
    return m.Ended(key, "ok", "[done; what it printed was lost when the machine stopped]")


def not_run(key: Key, status: CallStatus, waited_for: str = "") -> m.Ended:
    """It ended before it began."""
    why = "its time was up before it could begin" if status == "timeout" else "ended before it began"
    why = f"{why}: {waited_for}" if waited_for else why
    return m.Ended(key, status, f"[{why}; nothing was done]")


def of_rest(call: Call, text: str, now: float) -> m.Ended:
    """What a terminal shows, as the end of a call."""
    duration_s = now - (call.launched_at if call.launched_at is not None else now)
    return m.Ended(
        call.key, "ok", text, output_bytes=len(text.encode()), duration_s=round(duration_s, 6),
        protection=call.protection,
    )  # fmt: skip


def stopped_waiting(outcome: m.Ended, status: CallStatus) -> m.Ended:
    """It was told to end while it waited for a terminal to come to rest."""
    why = "its time was up" if status == "timeout" else "it was ended"
    return _saying(
        outcome, f"{why} before the terminal came to rest; what was typed was typed", status=status
    )


def terminal_refused(key: Key, reason: str, status: CallStatus) -> m.Ended:
    """It can't have the terminal that it wants."""
    return m.Ended(key, status, f"[{reason}; nothing was done]")


def terminal_gone(key: Key, words: str, status: CallStatus) -> m.Ended:
    """It was under way when its terminal died, and nothing of it can have stayed."""
    return m.Ended(key, status, f"[{words}]")


def not_launched(key: Key, text: str, ending: CallStatus | None) -> m.Ended:
    """No sandbox could be made for it."""
    return not_run(key, ending) if ending else m.Ended(key, "error", f"{text}\n[nothing was run]")


def crowded(key: Key, waiting: int) -> m.Ended:
    """Too many wait already."""
    return m.Ended(key, "refused", f"[refused: {waiting} calls wait already; ask again later]")
