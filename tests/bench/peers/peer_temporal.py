"""Temporal's development server over a file: its address in `PEER_TEMPORAL`."""

import asyncio
import os
from datetime import timedelta

from common import STEPS, measure
from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.worker import Worker


@activity.defn
async def trivial(n: int) -> int:
    return n


@workflow.defn(sandboxed=False)
class Five:
    @workflow.run
    async def run(self, n: int) -> int:
        for _ in range(STEPS):
            n = await workflow.execute_activity(trivial, n, start_to_close_timeout=timedelta(seconds=30))
        return n


async def main() -> None:
    client = await Client.connect(os.environ["PEER_TEMPORAL"])
    async with Worker(client, task_queue="five", workflows=[Five], activities=[trivial]):

        async def run(name: str) -> None:
            await client.execute_workflow(Five.run, 1, id=name, task_queue="five")

        await measure("Temporal (development server)", run)


if __name__ == "__main__":
    asyncio.run(main())
