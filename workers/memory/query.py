"""A question in words → a search; what was found → text for a model.

Owns: the query's safe form, the answer's form and size.
Must not know: SQLite beyond the syntax of an FTS5 query.
Invariant: whatever the words are, the query holds quoted tokens alone; whatever a memory says stays one
quoted line.
Source: sqlite.org/fts5.html §3.1 (strings); ANCHORS "Memory" (stop words removed: .549 → .607).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated

import msgspec

from .episodes import NO_STEP, Episode

TERMS_LIMIT = 32
ANSWER_LIMIT_BYTES = 4_096
EXCERPT_CHARS = 400
NOTHING = "Nothing is remembered that fits."
_LIMIT_SHOWN = 20
_WORD = re.compile(r"\w+")
# fmt: off
STOP_WORDS = frozenset({
    "a", "about", "after", "all", "also", "an", "and", "any", "are", "as", "at", "be", "because", "been",
    "before", "but", "by", "can", "could", "did", "do", "does", "for", "from", "had", "has", "have", "he",
    "her", "him", "his", "how", "i", "if", "in", "into", "is", "it", "its", "just", "me", "more", "my",
    "no", "not", "of", "on", "or", "our", "out", "she", "so", "some", "than", "that", "the", "their",
    "them", "then", "there", "these", "they", "this", "to", "up", "was", "we", "were", "what", "when",
    "where", "which", "while", "who", "whom", "why", "will", "with", "would", "you", "your",
})
# fmt: on


class Question(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments of ``memory.recall``."""

    query: Annotated[str, msgspec.Meta(max_length=2_000)]
    limit: Annotated[int, msgspec.Meta(ge=1, le=50)] = 5

    @property
    def shown(self) -> int:
        """How many memories at most; more than a few don't fit the answer anyway."""
        return min(self.limit, _LIMIT_SHOWN)


class Found(msgspec.Struct, frozen=True):
    """An episode and the part of its text that fits the question."""

    episode: Episode
    excerpt: str


def match_expression(words: str) -> str:
    """The FTS5 expression for a question: any of its words. Empty for no word at all."""
    terms = list(dict.fromkeys(word.lower() for word in _WORD.findall(words)))
    telling = [term for term in terms if term not in STOP_WORDS] or terms
    return " OR ".join(f'"{term}"' for term in telling[:TERMS_LIMIT])


def answer(found: Sequence[Found], limit_bytes: int) -> str:
    """One line a memory, its source first, its words quoted as JSON; at most ``limit_bytes`` of UTF-8."""
    limit_bytes = min(limit_bytes, ANSWER_LIMIT_BYTES)
    lines: list[str] = []
    size = 0
    for number, one in enumerate(found, 1):
        line = f"{number}. {_source(one.episode)}: {_quoted(one.excerpt)}"
        size += len(line.encode()) + 1
        if size > limit_bytes + 1:
            break
        lines.append(line)
    return "\n".join(lines) or NOTHING


def _source(episode: Episode) -> str:
    step = "" if episode.step == NO_STEP else f" step {episode.step}"
    of_tool = f" of {_plain(episode.tool)}" if episode.tool else ""
    status = f", {episode.status}" if episode.status else ""
    return (
        f"[{episode.task}{step}, {episode.kind}{of_tool}{status}, {_time(episode.at_ns)}, by {episode.trust}]"
    )


def _plain(tool: str) -> str:
    """A model may have invented the name of a tool."""
    return re.sub(r"[^\w.-]", "?", tool)[:64]


def _quoted(text: str) -> str:
    if len(text) > EXCERPT_CHARS:
        text = text[:EXCERPT_CHARS] + "…"
    return msgspec.json.encode(text).decode()


def _time(at_ns: int) -> str:
    """UTC, to the second (RFC 3339)."""
    return datetime.fromtimestamp(at_ns // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
