"""The connectors of the simulated world, written with the SDK as any author would."""

from typing import Any

from aios_sdk.connector import (
    Action,
    Arguments,
    Call,
    Change,
    Conflict,
    Connector,
    Done,
    Effect,
    Inverse,
    Key,
    Looked,
    Lookup,
    NotDone,
    Predicted,
    Result,
    Undone,
    action,
)
from aios_testing.sim.world import KEY_MEMORY_MS, LAG_MS, REDO, UNDO, World


class Order(Arguments):
    n: int


class Receipt(Result):
    version: int


class Before(Result):
    version: int


def _done(call: Call, version: int) -> Done[Receipt]:
    return Done(Receipt(version=version), (Change(f"world:{call.effect_key}", "create"),), "done")


def _told(call: Call) -> str:
    """What the world calls an undo or redo: the first undo like its effect, the others by their way and number."""
    way = call.key.rpartition("/")[0].rpartition("/")[2]
    return f"{call.effect_key}/{way}" if "-" in way else call.effect_key


class _Base(Action[Order, Before, Receipt]):
    def __init__(self, world: World) -> None:
        self.world = world

    async def simulate(self, input: Order, call: Call) -> Predicted[Receipt]:
        return Predicted(Receipt(version=1), (), "would")

    async def capture(self, input: Order, call: Call) -> Before:
        return Before(version=0)


@action(
    "send",
    input=Order,
    output=Receipt,
    captured=Before,
    effect=Effect.COMPENSABLE,
    inverse=Inverse("sends a word of regret", repeatable=False),
)
class Send(_Base):
    """Mode C, back and forth."""

    async def perform(self, input: Order, captured: Before, call: Call) -> Done[Receipt]:
        return _done(call, await self.world.call("mail", lambda: self.world.send(call.key)))

    async def undo(
        self, input: Order, captured: Before, result: Receipt | None, call: Call
    ) -> Undone | Conflict:
        await self.world.call("mail", lambda: self.world.send(_told(call), UNDO))
        return Undone((), "regretted")


@action(
    "charge",
    input=Order,
    output=Receipt,
    captured=Before,
    effect=Effect.COMPENSABLE,
    inverse=Inverse("pays it back", repeatable=True, remembers_ms=KEY_MEMORY_MS),
    idempotency=Key(remembers_ms=KEY_MEMORY_MS),
)
class Charge(_Base):
    """Mode A, with a key memory that ends."""

    async def perform(self, input: Order, captured: Before, call: Call) -> Done[Receipt]:
        return _done(call, await self.world.call("pay", lambda: self.world.once(call.key)))

    async def undo(
        self, input: Order, captured: Before, result: Receipt | None, call: Call
    ) -> Undone | Conflict:
        await self.world.call("pay", lambda: self.world.once(_told(call), UNDO))
        return Undone((), "paid back")

    async def redo(
        self, input: Order, captured: Before, result: Receipt | None, call: Call
    ) -> Done[Receipt] | Conflict:
        return _done(call, await self.world.call("pay", lambda: self.world.once(_told(call), REDO)))


class _Booking(_Base):
    conditional = False

    async def perform(self, input: Order, captured: Before, call: Call) -> Done[Receipt]:
        expect = captured.version if self.conditional else None
        version = await self.world.call("book", lambda: self.world.book(call.key, expect=expect))
        return _done(call, version)

    async def lookup(self, input: Order, captured: Before, call: Call) -> Looked[Receipt]:
        version = await self.world.call("book", lambda: self.world.seen(call.key))
        return _done(call, version) if version else NotDone()

    async def undo(
        self, input: Order, captured: Before, result: Receipt | None, call: Call
    ) -> Undone | Conflict:
        await self.world.call("book", lambda: self.world.unbook(call.effect_key, _told(call)))
        return Undone((), "taken back")

    async def redo(
        self, input: Order, captured: Before, result: Receipt | None, call: Call
    ) -> Done[Receipt] | Conflict:
        await self.world.call("book", lambda: self.world.rebook(call.effect_key, _told(call)))
        return _done(call, 1)


_BOOKING: dict[str, Any] = {
    "input": Order,
    "output": Receipt,
    "captured": Before,
    "effect": Effect.REVERSIBLE,
    "inverse": Inverse("strikes it out", repeatable=True),
}


@action("book", idempotency=Lookup(lag_ms=LAG_MS), **_BOOKING)
class Book(_Booking):
    """Mode B without conditional writes."""


@action("place", idempotency=Lookup(lag_ms=LAG_MS, conditional=True), **_BOOKING)
class Place(_Booking):
    """Mode B with conditional writes."""

    conditional = True


def connector(name: str, world: World) -> Connector:
    """`mail`, `pay` or `book`."""
    actions: dict[str, list[type[_Base]]] = {"mail": [Send], "pay": [Charge], "book": [Book, Place]}
    return Connector(name, "1", [cls(world) for cls in actions[name]])
