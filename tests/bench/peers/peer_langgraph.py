"""LangGraph with its checkpoints in PostgreSQL, each durable before the next step: the address in `PEER_POSTGRES`."""

import asyncio
import os
from typing import TypedDict

from common import STEPS, measure
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.graph import END, START, StateGraph
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool


class State(TypedDict):
    n: int


async def trivial(state: State) -> State:
    return {"n": state["n"]}


async def main() -> None:
    options = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
    async with AsyncConnectionPool(
        os.environ["PEER_POSTGRES"], min_size=4, max_size=20, kwargs=options
    ) as pool:
        saver = AsyncPostgresSaver(pool)
        await saver.setup()
        builder = StateGraph(State)
        names = [f"s{number}" for number in range(STEPS)]
        for name in names:
            builder.add_node(name, trivial)
        for one, other in zip([START, *names], [*names, END], strict=True):
            builder.add_edge(one, other)
        graph = builder.compile(checkpointer=saver)

        async def run(name: str) -> None:
            await graph.ainvoke({"n": 1}, {"configurable": {"thread_id": name}}, durability="sync")

        await measure("LangGraph on PostgreSQL", run)


if __name__ == "__main__":
    asyncio.run(main())
