"""A statement's outside: where its literals end, what its parameters are, what kind it is.

Owns: reading SQL as far as that, and which kinds of statement either tool takes.
Must not know: connections, what a statement means.
Invariant: a colon within a literal, a name, a comment or a cast is no parameter; one statement a call. This
    is for clear words and for parameters: what holds a model back is the database's own refusal.
Source: PostgreSQL manual §4.1 (lexical structure); sqlite.org/lang.html, lang_comment.html.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sqlalchemy import TextClause, text

from .calls import Value

EFFECTS = "homeostat_effects"
"""Our own table in every database that may be written."""
_WORDS = 4
"""So many leading words tell the kind."""
_READING = frozenset({"SELECT", "WITH", "VALUES", "TABLE", "EXPLAIN"})
_READS = {"sqlite": _READING | {"PRAGMA"}, "postgresql": _READING | {"SHOW"}}
_BOTH_WRITE = frozenset({
    "SELECT", "WITH", "VALUES", "TABLE", "INSERT", "UPDATE", "DELETE", "CREATE", "ALTER", "DROP", "REINDEX",
    "ANALYZE",
})  # fmt: skip
_WRITES = {
    "sqlite": _BOTH_WRITE | {"REPLACE"},
    "postgresql": _BOTH_WRITE
    | {"MERGE", "TRUNCATE", "COMMENT", "GRANT", "REVOKE", "REFRESH", "CALL", "DO", "NOTIFY", "SECURITY"},
}
_TRANSACTIONS = frozenset({
    "BEGIN", "START", "COMMIT", "END", "ROLLBACK", "ABORT", "SAVEPOINT", "RELEASE", "PREPARE",
})  # fmt: skip
_REASONS = {
    **dict.fromkeys(_TRANSACTIONS, "a call is one statement in a transaction of its own"),
    **dict.fromkeys(("SET", "RESET", "DISCARD", "LISTEN", "UNLISTEN", "DECLARE", "EXECUTE", "DEALLOCATE",
                     "FETCH", "MOVE", "CLOSE", "LOCK"), "nothing of a session outlives a call"),
    **dict.fromkeys(("VACUUM", "CLUSTER", "CHECKPOINT"), "it can't run in a transaction"),
    **dict.fromkeys(("ATTACH", "DETACH", "COPY", "LOAD"), "it reaches files beyond the database"),
    "PRAGMA": "it changes settings, not data",
}  # fmt: skip
_APART = frozenset({
    ("CREATE", "DATABASE"), ("DROP", "DATABASE"), ("CREATE", "TABLESPACE"), ("DROP", "TABLESPACE"),
    ("ALTER", "SYSTEM"), ("CREATE", "SUBSCRIPTION"), ("DROP", "SUBSCRIPTION"), ("REINDEX", "DATABASE"),
    ("REINDEX", "SYSTEM"),
})  # fmt: skip
"""These can't run in a transaction."""

_SPECIAL = {
    dialect: re.compile(rf"""'|"|--|/\*|:|;{more}|[A-Za-z_\x80-\U0010ffff][\w$\x80-\U0010ffff]*|\d[\w.]*""")
    for dialect, more in (("sqlite", r"|`|\["), ("postgresql", r"|\$[A-Za-z_\x80-\U0010ffff]?\w*\$"))
}
_PARAMETER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_COMMENT = re.compile(r"/\*|\*/")
_ESCAPED = re.compile(r"(?:[^'\\]|\\.|'')*'", re.DOTALL)


class StatementError(Exception):
    """The statement can't be run by this tool; says why."""


@dataclass(frozen=True)
class Statement:
    """One statement: its text for SQLAlchemy, its parameters, its first words in capitals.

    ``names``: all its words and all between its quotes, in small letters.
    """

    source: str
    text: str
    parameters: frozenset[str]
    words: tuple[str, ...]
    names: frozenset[str]

    def clause(self, given: Mapping[str, Value]) -> TextClause:
        """What SQLAlchemy runs with these values; they have no types, so that a database finds its own.

        Raises StatementError when there are values for other parameters than these.
        """
        if missing := sorted(self.parameters - given.keys()):
            raise StatementError(f"no value was given for :{missing[0]}")
        if more := sorted(given.keys() - self.parameters):
            raise StatementError(f"the statement has no parameter :{more[0][:64]}")
        return text(self.text)

    def check(self, dialect: str, *, writes: bool) -> None:
        """Raise StatementError when this tool does not take such a statement."""
        if not self.words:
            raise StatementError("there is no statement")
        word = self.words[0]
        allowed = (_WRITES if writes else _READS)[dialect]
        if word in allowed and self.words[:2] not in _APART:
            if EFFECTS in self.source.lower():
                raise StatementError(f"{EFFECTS} is homeostat's own table")
            return
        if not writes and word in _WRITES[dialect]:
            raise StatementError(f"db.query only reads: {word} is for db.execute")
        name = " ".join(self.words[:2]) if self.words[:2] in _APART else word[:32]
        if writes and word in _READS[dialect]:
            raise StatementError(f"{name} is for db.query")
        reason = _REASONS.get(
            word, "it can't run in a transaction" if word in allowed else "it is not known here"
        )
        raise StatementError(f"{name} can't be run: {reason}")


def parse(sql: str, dialect: str) -> Statement:
    """Read one statement. Raises StatementError."""
    if "\0" in sql:
        raise StatementError("the statement holds a NUL")
    scan = _Scan(sql, dialect)
    pieces = "".join(scan.pieces())
    return Statement(sql, pieces, frozenset(scan.parameters), tuple(scan.words), frozenset(scan.names))


class _Scan:
    """One pass over a statement, linear in its length."""

    def __init__(self, sql: str, dialect: str) -> None:
        self.sql, self.dialect = sql, dialect
        self.parameters: set[str] = set()
        self.words: list[str] = []
        self.names: set[str] = set()
        self._ended = False
        self._before = 0
        """Where the last word before a quote ended."""

    def pieces(self) -> Iterator[str]:
        """The text, with a backslash before each colon that is no parameter: so SQLAlchemy has it."""
        special, at, sql = _SPECIAL[self.dialect], 0, self.sql
        while (found := special.search(sql, at)) is not None:
            self._plain(sql[at : found.start()])
            yield sql[at : found.start()]
            at = self._after(found)
            piece = sql[found.start() : at]
            self.names.add(_name(piece))
            is_parameter = piece[0] == ":" and piece[1:] in self.parameters
            yield piece if is_parameter else piece.replace(":", "\\:")
        self._plain(sql[at:])
        yield sql[at:]

    def _plain(self, text: str) -> None:
        if self._ended and text.strip():
            raise StatementError("only one statement can be run a call")

    def _after(self, found: re.Match[str]) -> int:
        """Where what begins here ends. Raises StatementError."""
        token, end = found[0], found.end()
        match token[0]:
            case "-":
                return _line_end(self.sql, end)
            case "/":
                return self._comment(end)
            case ";":
                self._ended = True
                return end
        self._plain(token)
        match token[0]:
            case "'" if self._is_escape_string(found.start()):
                return self._escaped(end)
            case "'" | '"' | "`":
                return self._quoted(token, end)
            case "[":
                return self._until("]", end, "a name in brackets")
            case "$":
                return self._until(token, end, f"a text in {token}")
            case ":":
                return self._colon(found.start())
        self._before = end
        if len(self.words) < _WORDS and not token[0].isdigit():
            self.words.append(token.upper())
        return end

    def _colon(self, start: int) -> int:
        before = self.sql[start - 1] if start else " "
        name = _PARAMETER.match(self.sql, start + 1)
        after = self.sql[name.end() : name.end() + 1] if name else ""
        # SQLAlchemy's own rule: no word, colon or backslash before it, no word after it.
        if name is None or before.isalnum() or before in "_:\\" or after.isalnum():
            return start + 2 if self.sql.startswith("::", start) else start + 1
        self.parameters.add(name[0])
        return name.end()

    def _is_escape_string(self, start: int) -> bool:
        """PostgreSQL's E'…', in which a backslash escapes."""
        return (
            self.dialect == "postgresql"
            and self._before == start
            and self.sql[start - 1 : start] in {"e", "E"}
            and not (start > 1 and (self.sql[start - 2].isalnum() or self.sql[start - 2] in "_$"))
        )

    def _escaped(self, at: int) -> int:
        found = _ESCAPED.match(self.sql, at)
        if found is None:
            raise StatementError("a text in quotes does not end")
        return found.end()

    def _quoted(self, quote: str, at: int) -> int:
        while True:
            at = self._until(quote, at, "a text in quotes")
            if not self.sql.startswith(quote, at):
                return at
            at += 1

    def _until(self, end: str, at: int, what: str) -> int:
        found = self.sql.find(end, at)
        if found < 0:
            raise StatementError(f"{what} does not end")
        return found + len(end)

    def _comment(self, at: int) -> int:
        """PostgreSQL's comments nest; one of SQLite's may end with the text."""
        if self.dialect == "sqlite":
            found = self.sql.find("*/", at)
            return found + 2 if found >= 0 else len(self.sql)
        depth = 1
        while depth:
            mark = _COMMENT.search(self.sql, at)
            if mark is None:
                raise StatementError("a comment does not end")
            depth += 1 if mark[0] == "/*" else -1
            at = mark.end()
        return at


def _name(piece: str) -> str:
    """What a word or something in quotes names: SQLite takes a text for a name where it needs one."""
    quote = piece[0]
    if quote in "'\"`":
        piece = piece[1:-1].replace(quote * 2, quote)
    elif quote == "[":
        piece = piece[1:-1]
    return piece.lower()


def _line_end(sql: str, at: int) -> int:
    found = sql.find("\n", at)
    return found + 1 if found >= 0 else len(sql)
