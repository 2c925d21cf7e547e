"""Like requests to a model that come at the same time are asked in one call, and its answer is divided among them."""

import asyncio
import logging
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from aios_agent_runner.contract import Batch
from aios_agent_runner.models.port import ModelPort, ModelReply, ModelRequest
from aios_core.errors import AiosError, RetryableError, TerminalError
from aios_core.json_values import loads
from aios_core.money import Micros

FRAME: Final = (
    'Do each task by itself. Answer only with a JSON list, [{"task": 1, "text": "..."}, ...], one for each.'
)
"""Short, so that two tasks together cost no more than each by itself."""

log = logging.getLogger(__name__)


class NotAnsweredError(RetryableError):
    """The call was made and has no answer for this request. `reply` has its share of the tokens and the cost."""

    def __init__(self, reply: ModelReply, count: int) -> None:
        super().__init__("MODEL_FAILED", f"{reply.model} left this one of {count} tasks without an answer.")
        self.reply = reply


@dataclass(frozen=True, slots=True)
class _Item:
    request: ModelRequest
    bound: Micros
    answer: "asyncio.Future[ModelReply]"


class _Gathering:
    def __init__(self) -> None:
        self.items: list[_Item] = []
        self.full = asyncio.Event()


class Batches:
    """Gathers requests of one key until there are `max` or `wait` is over, and asks them together.

    A call never costs more than its requests by themselves might: where it could, each is asked alone.
    """

    def __init__(self) -> None:
        self._open: dict[Hashable, _Gathering] = {}
        self._calls: set[asyncio.Task[None]] = set()

    async def complete(
        self, key: Hashable, batch: Batch, model: ModelPort, request: ModelRequest
    ) -> ModelReply:
        """The answer to one request, with its share of what the call cost. `key` is equal where requests may share a
        call. Raises what the model raises, and NotAnsweredError."""
        gathering = self._open.get(key)
        if gathering is None:
            gathering = self._open[key] = _Gathering()
            call = asyncio.create_task(self._call(key, batch, model, gathering), name="model batch")
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)
        item = _Item(request, model.bound(request), asyncio.get_running_loop().create_future())
        gathering.items.append(item)
        if len(gathering.items) >= batch.max:
            del self._open[key]
            gathering.full.set()
        return await item.answer

    async def _call(self, key: Hashable, batch: Batch, model: ModelPort, gathering: _Gathering) -> None:
        try:
            async with asyncio.timeout(batch.wait_s):
                await gathering.full.wait()
        except TimeoutError:
            if self._open.get(key) is gathering:
                del self._open[key]
        items = [item for item in gathering.items if not item.answer.done()]  # some are not wanted any more
        try:
            if len(items) < 2 or not await self._together(model, items):
                await asyncio.gather(*(_alone(model, item) for item in items))
        except Exception as error:
            log.exception("a batch failed by a defect")
            for item in items:
                _fail(item, RetryableError("INTERNAL", f"A batch failed ({type(error).__name__})."))

    async def _together(self, model: ModelPort, items: Sequence[_Item]) -> bool:
        """Whether a call was made for all; where there is none, nothing was charged."""
        request = joined([item.request for item in items])
        if model.bound(request) > sum(item.bound for item in items):
            return False
        try:
            reply = await model.complete(request)
        except AiosError as error:
            log.warning("a batch of %d was not answered, each is asked alone: %s", len(items), error.message)
            return False
        texts = answers(reply.text, len(items))
        for item, text, share in zip(items, texts, shares(reply, [i.bound for i in items]), strict=True):
            if item.answer.done():
                continue
            if text is None:
                item.answer.set_exception(NotAnsweredError(share, len(items)))
            else:
                item.answer.set_result(replace(share, text=text))
        return True


async def _alone(model: ModelPort, item: _Item) -> None:
    try:
        reply = await model.complete(item.request)
    except Exception as error:
        _fail(item, error)
    else:
        if not item.answer.done():
            item.answer.set_result(reply)


def _fail(item: _Item, error: Exception) -> None:
    if not item.answer.done():
        item.answer.set_exception(error)


def joined(requests: Sequence[ModelRequest]) -> ModelRequest:
    """One request for all: they have the agent, its words and the temperature in common."""
    parts = [FRAME]
    parts += [f"--- Task {at} ---\n{request.prompt}" for at, request in enumerate(requests, 1)]
    return replace(
        requests[0],
        prompt="\n\n".join(parts),
        max_tokens=sum(request.max_tokens for request in requests),
        literal=True,
    )


def answers(text: str, count: int) -> list[str | None]:
    """The text of each task; None for one that is not there, is there twice or is no text."""
    found: dict[int, str | None] = {}
    body = text.strip().removeprefix("```json").removeprefix("```").removesuffix("```")
    try:
        entries = loads(body)
    except TerminalError:
        return [None] * count
    for entry in entries if isinstance(entries, list) else []:
        if not isinstance(entry, dict):
            continue
        at, said = entry.get("task"), entry.get("text")
        if isinstance(at, int) and not isinstance(at, bool):
            found[at] = said.strip() if isinstance(said, str) and at not in found else None
    return [found.get(at) for at in range(1, count + 1)]


def divided(total: int, weights: Sequence[int]) -> list[int]:
    """Whole parts in proportion to the weights whose sum is the total; none is above its weight if the total is not
    above theirs."""
    whole = sum(weights)
    if not whole:
        weights, whole = [1] * len(weights), len(weights)
    parts = [total * weight // whole for weight in weights]
    by_rest = sorted(range(len(parts)), key=lambda at: (-(total * weights[at] % whole), at))
    for at in by_rest[: total - sum(parts)]:
        parts[at] += 1
    return parts


def shares(reply: ModelReply, bounds: Sequence[int]) -> list[ModelReply]:
    """What each request has of the call's tokens and cost; they add up to the reply's."""
    divisions = [divided(total, bounds) for total in (reply.input_tokens, reply.output_tokens, reply.cost)]
    return [
        ModelReply("", reply.model, read, written, Micros(cost))
        for read, written, cost in zip(*divisions, strict=True)
    ]
