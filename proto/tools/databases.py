"""The tools for databases.

Owns: their names, descriptions, effect classes and JSON Schemas.
Must not know: how they do their work, what policy says about them.
Invariant: schemas are closed, every string is bounded, every pattern is linear in time (form.py).
Source: DESIGN §3 ("Where tools run"), §4 (effect classes), §8.2.
"""

from __future__ import annotations

from typing import Final

from .form import CONTENT_CHARS, Tool, arguments, count, text

_CONNECTION = text("The database, by the name that the operator gave it.", 64, minLength=1)
_SQL = text("One statement, with :name for parameters.", CONTENT_CHARS, minLength=1)
_PARAMETERS = {
    "type": "object",
    "maxProperties": 256,
    "additionalProperties": {
        "type": ["string", "number", "integer", "boolean", "null"],
        "maxLength": CONTENT_CHARS,
    },
    "description": "Values of the parameters by name.",
}

DB_QUERY: Final = Tool(
    "db.query",
    "Ask a database with one SQL statement that only reads. Gives the rows as a table.",
    "read",
    "database",
    arguments(
        ("connection", "sql"),
        connection=_CONNECTION,
        sql=_SQL,
        parameters=_PARAMETERS,
        limit=count("How many rows at most. Default: 100.", 1, 10_000),
    ),
)

DB_EXECUTE: Final = Tool(
    "db.execute",
    "Change a database with one SQL statement, in a transaction of its own, exactly once. Gives how many "
    "rows it changed.",
    "witnessed",
    "database",
    arguments(("connection", "sql"), connection=_CONNECTION, sql=_SQL, parameters=_PARAMETERS),
)
