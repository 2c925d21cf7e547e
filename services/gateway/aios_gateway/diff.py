"""Two runs side by side, step by step, from what their events say. Pure."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from aios.api.v1.api_pb2 import StepDiff, StepFacts
from aios.error.v1.error_pb2 import Error
from aios.run.v1 import state_pb2 as st
from aios.run.v1.events_pb2 import RunEvent
from aios.run.v1.state_pb2 import StepState
from aios.task.v1.task_pb2 import Change
from aios.value.v1.value_pb2 import Value

MAX_STEPS: Final = 1000  # in one answer
MAX_OUTPUT_BYTES: Final = 16 * 1024  # of one output that is shown
MAX_ANSWER_BYTES: Final = 150 * 1024  # of all outputs that are shown


@dataclass(slots=True)
class Facts:
    """What a step gave, changed, cost and took in one run. Times in milliseconds, money in micro-dollars."""

    state: StepState.ValueType = st.STEP_STATE_PENDING
    target: str = ""
    output: bytes = b""
    changes: list[Change] = field(default_factory=list)
    cost: int = 0
    began: int = 0
    ended: int = 0
    reused: bool = False
    error: Error | None = None


def facts(events: Iterable[RunEvent]) -> dict[str, Facts]:
    """By step, in the order in which they began."""
    found: dict[str, Facts] = {}
    for event in events:
        kind = event.WhichOneof("body")
        tell = _TELL.get(kind or "")
        if tell is None:
            continue
        body = getattr(event, str(kind))
        step = found.setdefault(body.step, Facts())
        step.began = step.began or event.time_ms
        step.cost += getattr(body, "cost_micros", 0)
        tell(step, body, event.time_ms)
    return found


def _scheduled(step: Facts, body: object, _: int) -> None:
    step.state, step.target = st.STEP_STATE_DISPATCHED, getattr(body, "target", "")


def _succeeded(step: Facts, body: object, now: int) -> None:
    step.state, step.ended, step.error = st.STEP_STATE_SUCCEEDED, now, None
    step.output, step.changes = getattr(body, "output", b""), list(getattr(body, "changes", ()))


def _skipped(step: Facts, _: object, now: int) -> None:
    step.state, step.ended = st.STEP_STATE_SKIPPED, now


def _reused(step: Facts, body: object, now: int) -> None:
    _succeeded(step, body, now)
    step.reused = True
    if getattr(body, "skipped", False):
        step.state = st.STEP_STATE_SKIPPED


def _failed(step: Facts, body: object, now: int) -> None:
    step.state, step.ended, step.error = st.STEP_STATE_FAILED, now, getattr(body, "error", None)


def _waits(step: Facts, *_: object) -> None:
    step.state = st.STEP_STATE_WAITING


def _asked(step: Facts, *_: object) -> None:
    step.state = st.STEP_STATE_GATED


_TELL: Final = {
    "step_scheduled": _scheduled,
    "step_succeeded": _succeeded,
    "step_skipped": _skipped,
    "step_reused": _reused,
    "step_failed": _failed,
    "step_retry_scheduled": _waits,
    "wait_started": _waits,
    "approval_requested": _asked,
}


def steps(ones: Mapping[str, Facts], others: Mapping[str, Facts]) -> tuple[list[StepDiff], bool]:
    """The steps of either, and whether some are left out. What both gave alike is not shown; nor what is too large."""
    names = list(dict.fromkeys([*ones, *others]))
    room = MAX_ANSWER_BYTES
    found = []
    for name in names[:MAX_STEPS]:
        one, other = ones.get(name), others.get(name)
        diff = StepDiff(step=name)
        diff.same_output = _same(one, other, lambda facts: facts.output)
        diff.same_changes = _same(
            one,
            other,
            lambda facts: [change.SerializeToString(deterministic=True) for change in facts.changes],
        )
        for facts, told in ((one, diff.one), (other, diff.other)):
            if facts is None:
                continue
            told.CopyFrom(_told(facts))
            if diff.same_output or not facts.output:
                continue
            if len(facts.output) > min(room, MAX_OUTPUT_BYTES):
                told.output_left_out = True
            else:
                room -= len(facts.output)
                told.output.CopyFrom(Value.FromString(facts.output))
        found.append(diff)
    return found, len(names) > MAX_STEPS


def _same(one: Facts | None, other: Facts | None, of: Callable[[Facts], object]) -> bool:
    return (of(one) if one is not None else None) == (of(other) if other is not None else None)


def _told(facts: Facts) -> StepFacts:
    return StepFacts(
        state=facts.state,
        target=facts.target,
        changes=facts.changes,
        cost_micros=facts.cost,
        duration_ms=max(0, facts.ended - facts.began) if facts.ended else 0,
        reused=facts.reused,
        error_code=facts.error.code if facts.error is not None else "",
        error_message=facts.error.message if facts.error is not None else "",
    )
