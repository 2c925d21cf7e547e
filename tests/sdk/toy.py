"""A connector whose outside world is a folder: each effect is one file. How it is called again, the test chooses."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from aios_sdk.connector import (
    Action,
    Arguments,
    Call,
    CannotTell,
    Change,
    Conflict,
    Connector,
    Done,
    Effect,
    Idempotency,
    Inverse,
    Looked,
    NotDone,
    Predicted,
    Result,
    Undone,
    action,
)


class Send(Arguments):
    to: str
    text: str = ""


class Sent(Result):
    number: int


class Before(Result):
    count: int


Hook = Callable[[], None]


class World:
    """What happened outside: a file per call that got through, under the key that was given."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(exist_ok=True)
        self.before_perform: Hook = lambda: None
        self.after_perform: Hook = lambda: None
        self.look: Callable[[], Any] | None = None

    def happen(self, key: str) -> None:
        number = len(list(self.path.iterdir()))
        (self.path / f"{number}").write_text(key)

    def happened(self) -> list[str]:
        return [file.read_text() for file in sorted(self.path.iterdir(), key=lambda file: int(file.name))]


class SendBase(Action[Send, Before, Sent]):
    def __init__(self, world: World) -> None:
        self.world = world

    async def simulate(self, input: Send, call: Call) -> Predicted[Sent]:
        return Predicted(Sent(number=1), (_change(input),), "would send")

    async def capture(self, input: Send, call: Call) -> Before:
        return Before(count=len(self.world.happened()))

    async def perform(self, input: Send, captured: Before, call: Call) -> Done[Sent]:
        self.world.before_perform()
        if call.key not in self.world.happened():  # as a provider does that takes a key
            self.world.happen(call.key)
        self.world.after_perform()
        return Done(Sent(number=1), (_change(input),), f"sent to {input.to}")


class WithLookup(SendBase):
    async def lookup(self, input: Send, captured: Before, call: Call) -> Looked[Sent]:
        if self.world.look is not None:
            found: Looked[Sent] = self.world.look()
            return found
        if call.key in self.world.happened():
            return Done(Sent(number=1), (_change(input),), f"sent to {input.to}")
        return NotDone()

    async def undo(self, input: Send, captured: Before, result: Sent | None, call: Call) -> Undone | Conflict:
        self.world.before_perform()
        self.world.happen(f"undo of {call.effect_key}")
        self.world.after_perform()
        return Undone((), "called back")


def _change(input: Send) -> Change:
    return Change(f"message:{input.to}", "create", "", "1")


def connector(world: World, idempotency: Idempotency, *, lookup: bool, repeatable: bool = True) -> Connector:
    """A connector `toy` with the one action `send`."""
    base: type[SendBase] = WithLookup if lookup else SendBase

    class Declared(base):  # type: ignore[valid-type, misc]
        pass

    effect = Effect.COMPENSABLE if lookup else Effect.IRREVERSIBLE
    inverse = Inverse("calls it back", repeatable) if lookup else None
    declare = action(
        "send",
        input=Send,
        output=Sent,
        captured=Before,
        effect=effect,
        inverse=inverse,
        idempotency=idempotency,
        steering=("to",),
    )
    return Connector("toy", "1", [declare(Declared)(world)])


UNCLEAR = CannotTell("Look into the mailbox.")
