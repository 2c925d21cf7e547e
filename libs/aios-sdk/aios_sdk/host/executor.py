"""Tasks of one connector, in any mode: receive ▸ ledger ▸ admit ▸ capture ▸ INTENT ▸ perform ▸ OUTCOME ▸ answer."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

from aios.effect.v1.effect_pb2 import LedgerEntry, UndoCheck
from aios.task.v1.task_pb2 import MODE_EXECUTE, MODE_REDO, MODE_SIMULATE, MODE_UNDO, Outcome, Task
from aios_core.errors import AiosError, RetryableError, TerminalError
from aios_runtime.crashpoints import crash, point
from aios_runtime.lanes import UnansweredError
from aios_runtime.task_time import too_late
from aios_sdk.connector.actions import Action
from aios_sdk.connector.answers import Done
from aios_sdk.connector.artifacts import Artifacts
from aios_sdk.connector.connector import Connector
from aios_sdk.connector.dry import dry_run
from aios_sdk.host import codec
from aios_sdk.host.check import check_undo
from aios_sdk.host.effects import Effects
from aios_sdk.host.flight import Flight, Rules, StillOpen
from aios_sdk.host.ledger import Ledger

RECEIVED: Final = point("connector.received", "a task has arrived, nothing is written")

_DEFAULT_RULES: Final = Rules()


class Executor:
    """Carries out the tasks of one connector. Tasks with one effect key run one after the other."""

    def __init__(
        self,
        connector: Connector,
        ledger: Ledger,
        artifacts: Artifacts,
        now_ms: Callable[[], int],
        rules: Rules = _DEFAULT_RULES,
    ) -> None:
        self._connector = connector
        self.ledger = ledger
        self._now_ms = now_ms
        self._effects = Effects(connector, ledger, artifacts, now_ms, rules)
        self.restores = self._effects.restores
        # At most as many as the lane has slots, and those whose time ran out while they were under way.
        self._running: dict[str, asyncio.Task[Outcome]] = {}

    async def perform(self, task: Task) -> Outcome:
        """The outcome of a task. Expected failures are outcomes; only a defect before the effect began is raised.

        An effect that has begun runs to its end even if the caller's time is over; then the outcome is UNKNOWN here,
        and the ledger's is what the same task gets when it comes again.
        """
        crash(RECEIVED)
        clock = asyncio.get_running_loop().time
        started = clock()
        flight = Flight()
        try:
            outcome = codec.answering(await self._dispatch(task, flight), task)
        except AiosError as error:
            outcome = codec.failed(task, error)
        except StillOpen as error:
            why = f"{task.target} may have happened: {error}"
            outcome = codec.unknown(task, why)
        except asyncio.CancelledError:
            if not self._out_of_time(task, clock() - started):
                raise
            outcome = self._late(task, flight)
        outcome.usage.wall_us = int((clock() - started) * 1e6)
        return outcome

    async def recover(self) -> int:
        """After a start: settle what was interrupted, where a look-up can tell that it happened, and clean up behind
        it. The rest waits for its task to come again. Returns how many stood open."""
        entries = await self.ledger.open_intents()
        await asyncio.gather(*(self._recover(entry) for entry in entries if entry.mode == MODE_EXECUTE))
        return len(entries)

    async def _recover(self, entry: LedgerEntry) -> None:
        with suppress(AiosError, StillOpen, UnansweredError):  # its task will come again and say why
            await self._effects.settle_if_done(entry)

    def check_input(self, target: str, data: bytes) -> None:
        """Raises NOT_FOUND, INVALID_ARGUMENT or UNDECODABLE for what an action would not take."""
        codec.arguments(target, self._connector.find(target).spec, data)

    async def preview(self, task: Task) -> Outcome:
        """What a task would change, which is not done. Raises what makes it impossible."""
        action = self._connector.find(task.target)
        if not action.spec.changes_something:
            return Outcome(summary="it reads, and changes nothing")
        return await self._simulate(task, action)

    async def check_undo(self, token: bytes, *, redo: bool) -> UndoCheck:
        """What an undo (or redo) of one effect would find now. Nothing is changed."""
        return await check_undo(self._connector, self.ledger, self._effects, token, redo=redo)

    async def close(self) -> None:
        """Wait for the effects that are under way."""
        await asyncio.gather(*self._running.values(), return_exceptions=True)

    def _out_of_time(self, task: Task, seconds: float) -> bool:
        """Whether it was one of the task's own limits that cancelled it, and not the end of the service."""
        limit_ms = task.timeout_ms
        if limit_ms and seconds * 1000 >= limit_ms - 1:
            return True
        return bool(task.deadline_ms) and self._now_ms() >= task.deadline_ms - 1

    def _late(self, task: Task, flight: Flight) -> Outcome:
        """The outcome of a task whose time is over. Raises UnansweredError where the ledger is about to have it: that
        nothing was done is true only once the ledger says that nothing will be."""
        if flight.begun:
            return codec.unknown(task, f"{task.target} did not end in its time and may still happen.")
        if task.mode != MODE_SIMULATE and self._connector.find(task.target).spec.changes_something:
            raise UnansweredError(f"{task.target} did not begin in its time")
        error = RetryableError("STEP_TIMEOUT", f"{task.target} did not end in its time; nothing was done.")
        return codec.failed(task, error)

    async def _dispatch(self, task: Task, flight: Flight) -> Outcome:
        if task.mode in (MODE_UNDO, MODE_REDO):
            effect_key = codec.effect_of_token(task.undo_token)
            return await self._alone(effect_key, flight, lambda: self._effects.undo(task, effect_key, flight))
        if task.mode not in (MODE_EXECUTE, MODE_SIMULATE):
            raise TerminalError(
                "INVALID_ARGUMENT", "The task's mode is not execute, simulate, undo or redo.", field="mode"
            )
        action = self._connector.find(task.target)
        if not action.spec.changes_something:
            return await self._read(task, action)
        if task.mode == MODE_SIMULATE:
            return await self._simulate(task, action)
        return await self._alone(task.task_id, flight, lambda: self._effects.execute(task, action, flight))

    async def _alone(self, key: str, flight: Flight, work: Callable[[], Awaitable[Outcome]]) -> Outcome:
        while (before := self._running.get(key)) is not None:
            await asyncio.wait([before])

        async def run() -> Outcome:
            try:
                return await work()
            except RetryableError as error:
                # What is refused is recorded. Here the ledger could not be asked, or another worker may be at it: an
                # earlier dispatch may have done it, so "failed" would be a guess.
                raise UnansweredError(error.message) from error

        running = asyncio.create_task(run(), name=f"effect {key}")
        self._running[key] = running
        running.add_done_callback(lambda _: self._running.pop(key, None))
        running.add_done_callback(_seen)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            flight.abandoned = True
            raise

    async def _read(self, task: Task, action: Action[Any, Any, Any]) -> Outcome:
        late = too_late(task, self._now_ms())
        if late is not None:
            raise late
        value, input = codec.arguments(task.target, action.spec, task.input)
        self._effects.admit(task, action, value)
        await self._effects.limiter.take()
        done: Done[Any] = await action.perform(
            input, None, self._effects.call(task, task.task_id, task.task_id)
        )
        output = codec.output_bytes(done.result, value, self._connector.name)
        return codec.succeeded(task, output, done.changes, done.summary)

    async def _simulate(self, task: Task, action: Action[Any, Any, Any]) -> Outcome:
        value, input = codec.arguments(task.target, action.spec, task.input)
        await self._effects.limiter.take()
        with dry_run():
            predicted = await action.simulate(input, self._effects.call(task, task.task_id, task.task_id))
        output = codec.output_bytes(predicted.result, value, self._connector.name)
        return codec.succeeded(task, output, predicted.changes, predicted.summary)


def _seen(done: "asyncio.Task[Outcome]") -> None:
    """What it raises after its time is over nobody waits for any more: its task comes again and says why."""
    if not done.cancelled():
        done.exception()
