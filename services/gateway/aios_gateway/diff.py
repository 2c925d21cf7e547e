"""Two runs side by side, step by step, from what their events say. Pure."""

from collections.abc import Callable, Mapping
from typing import Final

from aios.api.v1.api_pb2 import StepDiff, StepFacts
from aios.value.v1.value_pb2 import Value
from aios_gateway.facts import Facts

MAX_STEPS: Final = 1000  # in one answer
MAX_OUTPUT_BYTES: Final = 16 * 1024  # of one output that is shown
MAX_ANSWER_BYTES: Final = 150 * 1024  # of all outputs that are shown


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
