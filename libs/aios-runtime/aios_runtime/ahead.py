"""Going on with the steps that a task names as those after it, where their work takes no time."""

import time
from collections.abc import Callable, Iterator
from typing import Final

from aios.task.v1.task_pb2 import STATUS_SUCCEEDED, Ahead, Hole, Outcome, Task
from aios_core.encoding import decode_trusted, encode
from aios_core.errors import TerminalError
from aios_core.hashing import sha256
from aios_core.ids import effect_key
from aios_core.labels import RESOURCE
from aios_core.values import Leaf, Value, follow

MAX_AHEAD: Final = 64  # steps after one task
MAX_NS: Final = 5_000_000  # after which the worker reports what it has: others wait for its turn

PerformNow = Callable[[Task], Outcome | None]


def steps_ahead(first: Task, outcome: Outcome, perform: PerformNow) -> Iterator[tuple[Task, Outcome]]:
    """Do the steps after `first`, whose outcome is given, one after the other; yields each that succeeded.

    It ends with the first that needs more than an instant, fails, or whose input can't be completed: the orchestrator
    hands that one out by itself.
    """
    end = time.perf_counter_ns() + MAX_NS
    outputs: dict[str, Value] = {}
    step = first.step
    for ahead in first.ahead[:MAX_AHEAD]:
        outputs[step] = decode_trusted(outcome.output)
        try:
            data = _complete(ahead, outputs)
        except (TerminalError, KeyError, IndexError, ValueError, TypeError):
            return
        task = _task(first, ahead, data)
        done = perform(task)
        if done is None or done.status != STATUS_SUCCEEDED:
            return
        done.ahead_sha256 = sha256(data)
        yield task, done
        if time.perf_counter_ns() > end:
            return
        step, outcome = ahead.step, done


def _task(first: Task, ahead: Ahead, data: bytes) -> Task:
    return Task(
        workspace=first.workspace,
        run_id=first.run_id,
        task_id=effect_key(first.run_id, ahead.step, 0, 1),
        dispatch=1,
        attempt=1,
        step=ahead.step,
        target=ahead.target,
        mode=first.mode,
        input=data,
        traceparent=ahead.traceparent,
        partition=first.partition,
    )


def _complete(ahead: Ahead, outputs: dict[str, Value]) -> bytes:
    """The input with its holes filled, as the orchestrator would write it."""
    value = decode_trusted(ahead.input)
    for hole in ahead.holes:
        found = follow(outputs[hole.step], hole.path)
        value = _filled(value, hole, Leaf(None, RESOURCE) if found is None else found)
    return encode(value)


def _filled(value: Value, hole: Hole, found: Value) -> Value:
    if not hole.at:
        return found
    place = value
    for key in hole.at[:-1]:
        place = _inner(place, key)
    last = hole.at[-1]
    if isinstance(place, dict):
        place[last] = found
    elif isinstance(place, list):
        place[int(last)] = found
    else:
        raise ValueError("a hole is in a leaf")
    return value


def _inner(place: Value, key: str) -> Value:
    if isinstance(place, dict):
        return place[key]
    if isinstance(place, list):
        return place[int(key)]
    raise ValueError("a hole is in a leaf")
