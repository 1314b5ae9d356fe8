"""What a process has at hand, as one short text: written before a message is handled, read after a crash.

Owns: the text of every message and of every client's request, and reading it back.
Must not know: phase words, crashes, what quarantine means.
Invariant: the same message gives the same text whenever it is sent again; no text has more than 200 bytes,
    and none has a character that needs escaping.
Source: DESIGN §6 "Poison"; `supervisor.poison` counts by this text, `workers.gate.quarantine` acts on it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import msgspec

from . import messages as m, wire

LIMIT_BYTES = 200
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/+@-]{0,79}").fullmatch
_encode = msgspec.msgpack.Encoder().encode
_LONGEST_NUMBER = 20
"""Digits of 64 bits, so that a step of nonsense can't make a text too long."""


# -- words ---------------------------------------------------------------------------------------------
def _word(text: str) -> str:
    """A name as one word. One that is long or has other characters is replaced by its fingerprint."""
    if _PLAIN(text):
        return text
    return f"~{_fingerprint(text.encode(errors='surrogatepass'))}" if text else "-"


def _fingerprint(data: bytes) -> str:
    from hashlib import sha256  # noqa: PLC0415  rare, and with OpenSSL 2 MB that a supervisor never needs

    return sha256(data).hexdigest()[:32]


def _step(step: int) -> str:
    return str(step)[:_LONGEST_NUMBER]


def _tag(message: msgspec.Struct) -> str:
    return str(type(message).__struct_config__.tag)


# -- messages between processes ------------------------------------------------------------------------
def _alone(_message: Any) -> str:
    return ""


def _of_key(message: Any) -> str:
    return f" {_word(message.key)}"


def _of_task(message: Any) -> str:
    return f" {_word(message.task)}"


def _of_step(message: Any) -> str:
    return f" {_word(message.task)} {_step(message.step)}"


def _of_assign(message: m.Assign) -> str:
    return f" {_word(message.task)} {_step(message.next_step)}"


def _of_history(message: m.History) -> str:
    """Parts of a past are told apart by where they begin."""
    return f" {_word(message.task)} {_step(message.turns[0].step if message.turns else 0)}"


def _of_worker(message: Any) -> str:
    return f" {_word(message.role)}.{_step(message.index)}"


def _of_follower(message: m.Follow | m.Followed) -> str:
    return f" {_word(message.name)}"


def _of_records(message: m.Records) -> str:
    """Batches are told apart by where they begin: how far one reaches depends on when it was made."""
    return f" {_step(message.records[0].position if message.records else 0)}"


def _part(kind: Any) -> Callable[[Any], str]:
    """What a message is about, from the names of its fields: a call's key, a task and its step, a worker."""
    if kind in _OWN:
        return _OWN[kind]
    fields = frozenset(kind.__struct_fields__)
    if "key" in fields:
        return _of_key
    if "task" in fields:
        return _of_step if "step" in fields else _of_task
    return _of_worker if {"role", "index"} <= fields else _alone


_OWN: dict[type, Callable[[Any], str]] = {
    m.Assign: _of_assign,
    m.History: _of_history,
    m.Records: _of_records,
    m.Follow: _of_follower,
    m.Followed: _of_follower,
}
_OF_TASK = (_of_task, _of_step, _of_assign, _of_history)
_HANDLED = (m.Hello, m.Welcome, *get_args(m.FromWorker | m.ToWorker | m.FromSupervisor))
_KNOWN = {kind: (str(kind.__struct_config__.tag), _part(kind)) for kind in _HANDLED}


def subject_of(message: msgspec.Struct) -> str:
    """Give the text of a message: ``<tag>[ <task, key or name>[ <step>]]``. Below two microseconds."""
    known = _KNOWN.get(type(message))
    if known is None:
        return _tag(message)
    tag, part = known
    return tag + part(message)


# -- requests of clients -------------------------------------------------------------------------------
def client_subject(request: wire.Request, principal: str = "local") -> str:
    """Give the text of a client's request: ``client <type> <task or submission key>[ @<whose>]``.

    What has neither is named by the fingerprint of all that it asks for. ``principal`` is who asks: keys are
    each client's own, so a remote client's text has its fingerprint at the end.
    """
    text = f"client {_tag(request)} {_asked(request)}"
    return text if principal == "local" else f"{text} @{_fingerprint(principal.encode())[:16]}"


def _asked(request: wire.Request) -> str:
    name = request.key if isinstance(request, wire.Submit) else getattr(request, "task", "")
    if isinstance(name, str) and name:
        return _word(name)
    return f"={_fingerprint(_encode(msgspec.structs.replace(request, rid='')))}"


# -- reading -------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Subject:
    """A text taken apart. ``name`` is the task or the key; a request is known by its whole ``text``."""

    kind: Literal["task", "call", "request", "other"]
    text: str
    verb: str = ""
    name: str = ""


_TASK_TAGS = frozenset(tag for tag, part in _KNOWN.values() if part in _OF_TASK)
_KEY_TAGS = frozenset(tag for tag, part in _KNOWN.values() if part is _of_key)
TEND = "tend"
"""Verb of what a process does for a task by itself: because time has come, or somebody has."""


def tend_subject(task: str) -> str:
    """Give the text of what is done for a task without anybody's message: ``tend <task>``."""
    return f"{TEND} {_word(task)}"


def parse(subject: str) -> Subject:
    """Take a text apart; what is no text of this module has the kind ``other``."""
    words = subject.split(" ")
    if len(words) >= 3 and words[0] == "client":
        return Subject("request", subject, words[1], words[2])
    if len(words) in (2, 3) and words[1]:
        if words[0] in _TASK_TAGS or words[0] == TEND:
            return Subject("task", subject, words[0], words[1])
        if words[0] in _KEY_TAGS:
            return Subject("call", subject, words[0], words[1])
    return Subject("other", subject, words[0])
