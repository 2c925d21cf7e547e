"""Restate: its ingress in `PEER_RESTATE_INGRESS`, its administration in `PEER_RESTATE_ADMIN`."""

import asyncio
import os
import socket

import httpx
import restate
from common import STEPS, measure
from hypercorn.asyncio import serve
from hypercorn.config import Config

five = restate.Service("five")


async def trivial(n: int) -> int:
    return n


@five.handler()
async def start(ctx: restate.Context, n: int) -> int:
    for number in range(STEPS):
        n = await ctx.run_typed(f"s{number}", trivial, n=n)
    return n


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


async def main() -> None:
    port, stop = free_port(), asyncio.Event()
    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.h2_max_concurrent_streams = 10_000
    config.loglevel = "ERROR"
    serving = asyncio.create_task(serve(restate.app([five]), config, shutdown_trigger=stop.wait))
    async with httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=256)) as client:
        while True:  # until its own server, above, takes connections
            answer = await client.post(
                f"{os.environ['PEER_RESTATE_ADMIN']}/deployments", json={"uri": f"http://127.0.0.1:{port}"}
            )
            if answer.is_success:
                break
            await asyncio.sleep(0.2)

        async def run(name: str) -> None:
            answer = await client.post(
                f"{os.environ['PEER_RESTATE_INGRESS']}/five/start", json=1, headers={"idempotency-key": name}
            )
            answer.raise_for_status()

        await measure("Restate", run)
    stop.set()
    await serving


if __name__ == "__main__":
    asyncio.run(main())
