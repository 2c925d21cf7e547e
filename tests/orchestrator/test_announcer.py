"""Announcements of filed events: in order, together, without a gap inside one, and not without bound."""

import asyncio
from collections.abc import Callable, Sequence

from aios.bus.v1.bus_pb2 import EventsFiled
from aios_core.errors import RetryableError
from aios_orchestrator import announcer
from aios_orchestrator.announcer import Announcer
from aios_runtime.bus.port import Message
from aios_runtime.store.port import Filed


class Wire:
    """Where announcements go; closed, it takes none."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.open = True
        self.refused = 0

    async def publish(self, messages: Sequence[Message]) -> None:
        await asyncio.sleep(0)
        if not self.open:
            self.refused += 1
            raise RetryableError("BUS_FAILED", "The bus is away.")
        self.messages += messages

    def parts(self) -> list[tuple[int, int, int]]:
        """(partition, first position, how many) of all that came."""
        filed = [EventsFiled.FromString(message.data) for message in self.messages]
        return [
            (part.partition, part.first_position, len(part.events))
            for body in filed
            for part in (body, *body.more)
        ]


def filed(partition: int, *positions: int, size: int = 10) -> list[Filed]:
    return [Filed(partition, position, bytes(size)) for position in positions]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


def make(wire: Wire) -> Announcer:
    return Announcer(wire, "main")  # type: ignore[arg-type]


async def test_what_nobody_waits_for_goes_with_what_somebody_waits_for() -> None:
    wire = Wire()
    told = make(wire)
    told.announce(filed(1, 1, 2), urgent=False)
    told.announce([*filed(1, 3), *filed(4, 9)], urgent=True)
    await until(lambda: bool(wire.messages))
    assert len(wire.messages) == 1
    assert wire.parts() == [(1, 1, 3), (4, 9, 1)]
    await told.stop()


async def test_a_gap_and_a_full_message_begin_another_part() -> None:
    wire = Wire()
    told = make(wire)
    told.announce([*filed(2, 5, 6), *filed(2, 9)], urgent=True)
    told.announce(filed(3, *range(1, 8), size=60_000), urgent=True)
    await until(lambda: sum(count for *_, count in wire.parts()) == 10)
    assert wire.parts()[:2] == [(2, 5, 2), (2, 9, 1)]
    assert all(len(message.data) <= announcer.MAX_MESSAGE + 1000 for message in wire.messages)
    await told.stop()


async def test_past_its_bound_only_the_last_of_each_partition_is_announced() -> None:
    wire = Wire()
    wire.open = False
    told = make(wire)
    told.announce(filed(0, 1), urgent=True)
    await until(lambda: wire.refused == 1)
    told.announce(filed(1, *range(1, announcer.MAX_WAITING + 2), size=1), urgent=True)
    told.announce(filed(0, 2), urgent=True)
    wire.open = True
    await until(lambda: len(wire.parts()) >= 3)
    assert wire.parts()[0] == (0, 1, 1)
    assert sorted(wire.parts()[1:]) == [(0, 2, 1), (1, announcer.MAX_WAITING + 1, 1)]
    await told.stop()


async def test_a_stop_announces_what_waits_and_ends_whether_or_not_it_is_gone_by_then() -> None:
    wire = Wire()
    told = make(wire)
    told.announce(filed(1, 1), urgent=False)  # it would wait for others
    await told.stop()
    assert wire.parts() == [(1, 1, 1)]
    await told.stop()
