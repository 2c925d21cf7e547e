"""Who calls the engine over the bus: commands and outcomes. Each is carried out, answered, and then acknowledged."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from aios.task.v1.task_pb2 import ReportOutcomes
from aios_core.errors import AiosError, RetryableError, TerminalError
from aios_orchestrator.commands import parse
from aios_orchestrator.routing import Report, Router
from aios_runtime.bus.port import Bus, Delivery
from aios_runtime.bus.topology import DECIDER_ACK_WAIT_SECONDS

RETRY_S: Final = 1.0
RENEW_S: Final = DECIDER_ACK_WAIT_SECONDS / 3


class Handlers:
    """The orchestrator's deliveries."""

    def __init__(self, bus: Bus, router: Router) -> None:
        self._bus = bus
        self._router = router

    async def outcomes(self, deliveries: Sequence[Delivery]) -> None:
        """`report_outcomes`: many outcomes in one commit; acknowledged once it stands."""
        reports: list[Report] = []
        good: list[Delivery] = []
        for delivery in deliveries:
            try:
                report = parse(ReportOutcomes, delivery.data)
            except TerminalError as error:
                await delivery.dead(error)
                continue
            good.append(delivery)
            reports.append((delivery.subject.split(".")[5], report.outcomes))
        with _renewed(good):
            failures = await self._router.settle(reports)
        await asyncio.gather(*(_settle(delivery, why) for delivery, why in zip(good, failures, strict=True)))

    async def commands(self, deliveries: Sequence[Delivery]) -> None:
        """Clients' commands: each is answered on its reply inbox, then acknowledged."""
        with _renewed(deliveries):
            await asyncio.gather(*(self._command(delivery) for delivery in deliveries))

    async def _command(self, delivery: Delivery) -> None:
        try:
            answer = await self._router.carry_out(delivery.subject.split(".")[4], delivery.data)
        except RetryableError as error:
            if error.code not in ("DISK_FULL", "CONFLICT"):
                await delivery.retry(error.retry_after or RETRY_S)
                return
            await self._bus.reply(delivery, error)
        except TerminalError as error:
            await self._bus.reply(delivery, error)
            if error.code == "UNDECODABLE":
                await delivery.dead(error)
                return
        else:
            await self._bus.reply(delivery, answer)
        await delivery.ack()


async def _settle(delivery: Delivery, why: AiosError | None) -> None:
    if why is None:
        await delivery.ack()
    elif isinstance(why, RetryableError):
        await delivery.retry(why.retry_after or RETRY_S)
    else:
        await delivery.dead(why)


@contextmanager
def _renewed(deliveries: Sequence[Delivery]) -> Iterator[None]:
    """Meanwhile the broker hears, from time to time, that the deliveries are still worked on."""
    loop = asyncio.get_running_loop()
    renewing: list[asyncio.Task[None]] = []
    begin = loop.call_later(RENEW_S, lambda: renewing.append(loop.create_task(_renew(deliveries))))
    try:
        yield
    finally:
        begin.cancel()
        for task in renewing:
            task.cancel()


async def _renew(deliveries: Sequence[Delivery]) -> None:
    while True:
        await asyncio.gather(*(delivery.working() for delivery in deliveries), return_exceptions=True)
        await asyncio.sleep(RENEW_S)
