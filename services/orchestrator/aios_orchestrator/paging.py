"""Pages of lists that fit into one answer, however large each of what they list is."""

import itertools
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from google.protobuf.message import Message

from aios.run.v1.state_pb2 import Approval, RunHead

MAX_ANSWER: Final = 200 * 1024  # bytes of what is listed in one answer
MAX_STEPS: Final = 100  # of those that are under way in a run that is listed
LARGE: Final = 64 * 1024  # bytes of an approval that is listed without what its steps would be given

Listed = TypeVar("Listed", bound=Message)


async def page_that_fits(
    ask: Callable[[int], Awaitable[tuple[list[Listed], str]]], limit: int
) -> tuple[list[Listed], str]:
    """The longest page of at most `limit` that fits, at least one, with the token of the next. `ask` gives the page of
    a length, always from the same place on."""
    while True:
        found, token = await ask(limit)
        ends = list(itertools.accumulate(item.ByteSize() for item in found))
        fits = sum(end <= MAX_ANSWER for end in ends)
        if fits == len(found) or limit == 1:
            return found, token
        limit = max(1, min(limit // 2, limit * fits // len(found)))


def slim_run(head: RunHead, room: int = MAX_ANSWER) -> RunHead:
    """As a list has it: with the first of the steps that are under way, as many as there is room for, in bytes."""
    del head.steps[MAX_STEPS:]
    size = head.ByteSize()
    while head.steps and size > room:
        size -= head.steps[-1].ByteSize()
        del head.steps[-1]
    return head


def slim_approval(approval: Approval) -> Approval:
    """As a list has it: what is large says what it is about, and is read by itself."""
    if approval.ByteSize() > LARGE:
        for step in approval.proposed:
            step.arguments, step.original = b"", b""
            del step.changes[:]
        if approval.HasField("plan"):
            approval.plan.text, approval.plan.diff = "", ""
    return approval
