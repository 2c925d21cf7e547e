"""DBOS on PostgreSQL: the address in `PEER_POSTGRES`."""

import asyncio
import os

from common import STEPS, measure
from dbos import DBOS, DBOSConfig, SetWorkflowID


@DBOS.step()
async def trivial(n: int) -> int:
    return n


@DBOS.workflow()
async def five(n: int) -> int:
    for _ in range(STEPS):
        n = await trivial(n)
    return n


async def run(name: str) -> None:
    with SetWorkflowID(name):
        handle = await DBOS.start_workflow_async(five, 1)
    await handle.get_result()


async def main() -> None:
    config: DBOSConfig = {
        "name": "peer",
        "system_database_url": os.environ["PEER_POSTGRES"],
        "log_level": "ERROR",
        "run_admin_server": False,
        "sys_db_pool_size": 20,
    }
    DBOS(config=config)
    DBOS.launch()
    try:
        await measure("DBOS on PostgreSQL", run)
    finally:
        DBOS.destroy()


if __name__ == "__main__":
    asyncio.run(main())
