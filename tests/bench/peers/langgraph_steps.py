"""LangGraph's durable steps on the same disk: prints one JSON line {sequential, concurrent} in steps a second."""

import asyncio
import json
import sqlite3
import sys
import tempfile
import time
from typing import TypedDict

import aiosqlite
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph

STEPS, TASKS, EACH = 1_000, 200, 20


class State(TypedDict):
    n: int


def _graph(saver, node, limit):
    builder = StateGraph(State)
    builder.add_node("step", node)
    builder.add_edge(START, "step")
    builder.add_conditional_edges("step", lambda state: END if state["n"] >= limit else "step")
    return builder.compile(checkpointer=saver)


def _sequential(folder):
    connection = sqlite3.connect(f"{folder}/one.db", check_same_thread=False)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    saver = SqliteSaver(connection)
    saver.setup()
    graph = _graph(saver, lambda state: {"n": state["n"] + 1}, STEPS)
    began = time.perf_counter()
    graph.invoke(
        {"n": 0}, {"configurable": {"thread_id": "1"}, "recursion_limit": STEPS + 10}, durability="sync"
    )
    return STEPS / (time.perf_counter() - began)


async def _concurrent(folder):
    async with aiosqlite.connect(f"{folder}/many.db") as connection:
        await connection.execute("PRAGMA journal_mode=WAL")
        await connection.execute("PRAGMA synchronous=FULL")
        saver = AsyncSqliteSaver(connection)
        await saver.setup()

        async def node(state):
            return {"n": state["n"] + 1}

        graph = _graph(saver, node, EACH)
        began = time.perf_counter()
        await asyncio.gather(
            *[
                graph.ainvoke(
                    {"n": 0},
                    {"configurable": {"thread_id": str(i)}, "recursion_limit": EACH + 10},
                    durability="sync",
                )
                for i in range(TASKS)
            ]
        )
        return TASKS * EACH / (time.perf_counter() - began)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=sys.argv[1]) as place:
        print(json.dumps({"sequential": _sequential(place), "concurrent": asyncio.run(_concurrent(place))}))
