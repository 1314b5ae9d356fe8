"""What a model's statement may do in a SQLite file: asked for each action, while a statement is compiled.

Owns: the table of what is allowed.
Must not know: files, connections.
Invariant: what is not in the table is denied, with a reason that can be told.
Source: sqlite.org/c3ref/set_authorizer.html, c3ref/c_alter_table.html; sqlite.org/security.html.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from .statements import EFFECTS

_READS: Final = frozenset({
    sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE,
    sqlite3.SQLITE_PRAGMA,
})  # fmt: skip
_WRITES: Final = frozenset({
    sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE, sqlite3.SQLITE_CREATE_INDEX,
    sqlite3.SQLITE_CREATE_TABLE, sqlite3.SQLITE_CREATE_TRIGGER, sqlite3.SQLITE_CREATE_VIEW,
    sqlite3.SQLITE_DROP_INDEX, sqlite3.SQLITE_DROP_TABLE, sqlite3.SQLITE_DROP_TRIGGER,
    sqlite3.SQLITE_DROP_VIEW, sqlite3.SQLITE_ALTER_TABLE, sqlite3.SQLITE_REINDEX, sqlite3.SQLITE_ANALYZE,
    sqlite3.SQLITE_CREATE_VTABLE, sqlite3.SQLITE_DROP_VTABLE,
})  # fmt: skip
_FUNCTIONS: Final = frozenset({"load_extension", "fts3_tokenizer", "regexp", "json_patch"})
"""Native code from a file; a pointer from a blob; Python's patterns; the square of an object's size."""
_PRAGMAS: Final = frozenset({
    "table_info", "table_xinfo", "table_list", "index_list", "index_info", "index_xinfo", "foreign_key_list",
    "function_list", "collation_list", "module_list", "pragma_list", "compile_options", "data_version",
})  # fmt: skip
"""They only tell, whatever their argument is."""
_TOLD_WITHOUT_VALUE: Final = frozenset({
    "user_version", "schema_version", "application_id", "encoding", "journal_mode", "page_count", "page_size",
    "freelist_count", "foreign_keys",
})  # fmt: skip
_MODULES: Final = frozenset({"fts5", "rtree", "rtree_i32"})
_CHANGES: Final = frozenset({sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE})
_SHADOWS: Final = ("_data", "_idx", "_content", "_docsize", "_config", "_node", "_rowid", "_parent")
"""How the tables end in which fts5 and rtree keep theirs."""
_SCHEMAS: Final = frozenset({"sqlite_master", "sqlite_temp_master"})
_NAMES: Final = {
    getattr(sqlite3, f"SQLITE_{name}"): name.lower().replace("_", " ") for name in (
        "INSERT", "UPDATE", "DELETE", "CREATE_INDEX", "CREATE_TABLE", "CREATE_TRIGGER", "CREATE_VIEW",
        "DROP_INDEX", "DROP_TABLE", "DROP_TRIGGER", "DROP_VIEW", "ALTER_TABLE", "REINDEX", "ANALYZE",
        "CREATE_VTABLE", "DROP_VTABLE", "ATTACH", "DETACH", "TRANSACTION", "SAVEPOINT", "CREATE_TEMP_TABLE",
        "CREATE_TEMP_INDEX", "CREATE_TEMP_TRIGGER", "CREATE_TEMP_VIEW", "DROP_TEMP_TABLE", "DROP_TEMP_INDEX",
        "DROP_TEMP_TRIGGER", "DROP_TEMP_VIEW",
    )
}  # fmt: skip


class Authorizer:
    """The callback of one connection. While not ``strict``, our own statements are compiled."""

    def __init__(self, *, writes: bool) -> None:
        self._allowed = _READS | _WRITES if writes else _READS
        self._strict = False
        self.named: frozenset[str] = frozenset()
        """All that the model's statement names, in small letters."""
        self.virtual: frozenset[str] = frozenset()
        """The file's virtual tables, in small letters."""
        self.refused = ""
        """Why the last statement was refused, if it was refused here."""

    @property
    def strict(self) -> bool:
        """Whether the statements are a model's."""
        return self._strict

    @strict.setter
    def strict(self, is_strict: bool) -> None:
        self._strict = is_strict
        if is_strict:
            self.refused = ""

    def __call__(
        self, action: int, first: str | None, second: str | None, database: str | None, within: str | None
    ) -> int:
        """Allow or deny one action of the statement that is being compiled."""
        if not self._strict:
            return sqlite3.SQLITE_OK
        if reason := self._reason(action, first or "", second or "", database or "", within or ""):
            self.refused = self.refused or reason
            return sqlite3.SQLITE_DENY
        return sqlite3.SQLITE_OK

    def _reason(self, action: int, first: str, second: str, database: str, within: str) -> str:
        if action in _CHANGES and first.lower().endswith(_SHADOWS) and not self._is_asked(first, within):
            return ""  # A virtual table prepares this when it is first read; a file opened for that holds.
        if action == sqlite3.SQLITE_UPDATE and first.lower() in _SCHEMAS:
            return ""  # What declares tables or renames them asks so; SQLite itself keeps statements out.
        if action not in self._allowed:
            return f"{_NAMES.get(action, f'action {action}')} is not allowed"
        if EFFECTS in {first.lower(), second.lower()} and action != sqlite3.SQLITE_FUNCTION:
            return f"{EFFECTS} is homeostat's own table"
        for table in (first,) if action in _CHANGES else (first, second):
            if action in _WRITES and self._is_kept(table) and self._is_asked(table, within):
                return f"{table} is kept by its virtual table: only that can be changed"
        if action in _WRITES and database not in {"", "main"}:
            return "only the database itself can be changed"
        if action == sqlite3.SQLITE_FUNCTION and second.lower() in _FUNCTIONS:
            return f"the function {second} is not allowed"
        if action == sqlite3.SQLITE_PRAGMA:
            return _pragma(first.lower(), second)
        if action == sqlite3.SQLITE_CREATE_VTABLE and second.lower() not in _MODULES:
            return f"virtual tables of module {second[:40]} are not allowed"
        return ""

    def _is_asked(self, table: str, within: str) -> bool:
        """Whether the model's statement asks for it, or a trigger; else a virtual table does by itself."""
        return bool(within) or table.lower() in self.named

    def _is_kept(self, table: str) -> bool:
        """Whether a virtual table of the file keeps its data there."""
        name = table.lower()
        return any(name.endswith(end) and name.removesuffix(end) in self.virtual for end in _SHADOWS)


def _pragma(name: str, value: str) -> str:
    if name in _PRAGMAS or (name in _TOLD_WITHOUT_VALUE and not value):
        return ""
    return f"PRAGMA {name[:40]} is not allowed"
