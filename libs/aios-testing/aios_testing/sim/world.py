"""The world outside: a mail provider, a payment provider and a ledger of bookings, each with its own manners.

Effects are counted here, from outside, by the key of the call. A call that is on its way arrives even when its caller
has died; what is promised about look-ups is kept to the letter and no further.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final

from aios_core.errors import AiosError, RetryableError, TerminalError
from aios_testing.sim.loop import SimLoop
from aios_testing.sim.record import Record

KEY_MEMORY_MS: Final = 60_000  # the payment provider forgets keys after this
MARGIN_MS: Final = 5_000  # more than that: a call may be that long on its way
LAG_MS: Final = 2_500  # the booking ledger shows what happened at the latest after this
FLIGHT: Final = 0.02  # seconds of a call, each way
LONG_FLIGHT: Final = 1.0  # seconds of a slow one: below the lag


EFFECT, UNDO, REDO = "effect", "undo", "redo"


class Silence(Exception):
    """The call went out and no answer came."""


@dataclass(slots=True)
class Entry:
    """One effect: when it happened, and whether it was taken back."""

    key: str
    at: float
    version: int
    undone: bool = False


class World:
    """Counts every effect. `happened(key, way)` is told of each, right as it happens; a way is `effect`, `undo`
    or `redo`. An undo after a redo, and a redo, have their own number in the key: `…/undo-1`, `…/redo-1`."""

    def __init__(self, loop: SimLoop, rng: Random, record: Record, draw: Callable[[str], bool]) -> None:
        self.loop, self._rng, self._record, self._draw = loop, rng, record, draw
        self.effects: dict[str, int] = {}
        self.undos: dict[str, int] = {}
        self.redos: dict[str, int] = {}
        self.bookings: dict[str, Entry] = {}
        self._keys: dict[str, float] = {}
        self.cut: set[str] = set()
        self.happened: Callable[[str, str], None] = lambda key, way: None

    def count(self, key: str, way: str = EFFECT) -> None:
        """An effect happens."""
        self._record.transitions += 1
        self._record.tell(f"{way} {key}")
        counts = {EFFECT: self.effects, UNDO: self.undos, REDO: self.redos}[way]
        counts[key] = counts.get(key, 0) + 1
        self.happened(key, way)

    def stand(self, key: str) -> int:
        """How often an effect stands: done, less taken back, and put back."""
        undone = sum(times for other, times in self.undos.items() if _same(other, key))
        redone = sum(times for other, times in self.redos.items() if _same(other, key))
        return self.effects.get(key, 0) - undone + redone

    async def call(self, provider: str, act: Callable[[], int]) -> int:
        """A call over the network. Raises UNAVAILABLE when it surely never left, Silence when nobody knows."""
        if provider in self.cut or self._draw("call_lost"):
            await asyncio.sleep(FLIGHT)
            raise RetryableError("UNAVAILABLE", f"{provider} refused the connection; nothing was sent.")
        there = FLIGHT * (0.5 + self._rng.random())
        back = FLIGHT * (0.5 + self._rng.random())
        if self._draw("call_slow"):
            there += LONG_FLIGHT * self._rng.random()
        answer: asyncio.Future[int] = self.loop.create_future()
        silent = self._draw("call_silent")

        def arrive() -> None:
            try:
                result: int | AiosError = act()
            except AiosError as error:
                result = error
            if not silent:
                self.loop.after(back, self.loop.root, _answer, answer, result)

        self.loop.after(there, self.loop.root, arrive)
        try:
            async with asyncio.timeout(there + back + 0.5):
                return await answer
        except TimeoutError:
            raise Silence(provider) from None

    def once(self, key: str, way: str = EFFECT) -> int:
        """Mode A: the same key has the same effect, as long as it is remembered."""
        memory = f"{way} {key}"
        now = self.loop.time() * 1000
        known = self._keys.get(memory)
        if known is not None and now - known <= KEY_MEMORY_MS + MARGIN_MS:
            self._record.count("provider knew the key")
            return 1
        self._keys[memory] = now
        self.count(key, way)
        return 1

    def send(self, key: str, way: str = EFFECT) -> int:
        """Mode C: each call is an effect."""
        self.count(key, way)
        return 1

    def book(self, key: str, *, expect: int | None) -> int:
        """Mode B: each call is an effect; with `expect` only where that version stands (0: nothing), or CONFLICT."""
        entry = self.bookings.get(key)
        stands = entry.version if entry is not None and not entry.undone else 0
        if expect is not None and stands != expect:
            self._record.count("conditional write lost")
            raise TerminalError("CONFLICT", f"{key} stands at version {stands}, and not at {expect}.")
        self.count(key)
        version = (entry.version if entry is not None else 0) + 1
        self.bookings[key] = Entry(key, self.loop.time(), version)
        return version

    def unbook(self, key: str, told: str) -> int:
        """Take a booking back, if it stands; it is counted as `told`."""
        entry = self.bookings.get(key)
        if entry is None or entry.undone:
            return 0
        entry.undone = True
        self.count(told, UNDO)
        return 1

    def rebook(self, key: str, told: str) -> int:
        """Put a booking back that was taken back; it is counted as `told`."""
        entry = self.bookings.get(key)
        if entry is None or not entry.undone:
            return 0
        entry.undone = False
        self.count(told, REDO)
        return 1

    def seen(self, key: str) -> int:
        """What a look-up shows: the version, or 0; what is younger than the lag may not be there yet."""
        entry = self.bookings.get(key)
        if entry is None or entry.undone:
            return 0
        age_ms = (self.loop.time() - entry.at) * 1000
        if age_ms < LAG_MS * self._rng.random():
            self._record.count("effect not visible yet")
            return 0
        return entry.version


def _same(key: str, effect: str) -> bool:
    return key == effect or key.startswith((f"{effect}/{UNDO}-", f"{effect}/{REDO}-"))


def _answer(future: "asyncio.Future[int]", result: int | AiosError) -> None:
    if future.done():
        return
    if isinstance(result, AiosError):
        future.set_exception(result)
    else:
        future.set_result(result)
