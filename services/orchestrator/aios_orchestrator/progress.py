"""How far the rounds of a step with steps of its own are, counted as its steps move. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from immutables import Map

from aios.run.v1 import state_pb2 as st
from aios.run.v1.state_pb2 import StepState
from aios_core.step_names import home_of

if TYPE_CHECKING:
    from aios_orchestrator.model import StepRun

DONE_STEP: Final = frozenset({st.STEP_STATE_SUCCEEDED, st.STEP_STATE_SKIPPED})
OPEN_STEP: Final = frozenset({st.STEP_STATE_DISPATCHED, st.STEP_STATE_UNDOING, st.STEP_STATE_REDOING})
LIVE_STEP: Final = OPEN_STEP | {
    st.STEP_STATE_WAITING,
    st.STEP_STATE_GATED,
    st.STEP_STATE_UNKNOWN,
    st.STEP_STATE_RUNNING,
}
ROUND_FAILED: Final = "ROUND_FAILED"  # of a step that is given up since another one of its round failed


@dataclass(frozen=True, slots=True)
class Begun:
    """What a step with steps of its own has begun: `rounds` in all or at most, `steps` in each, `begun` so far."""

    rounds: int
    steps: int
    begun: int = 0


@dataclass(frozen=True, slots=True)
class Round:
    """A round that has begun and not ended: how many of its steps are done, and how many have begun and not ended."""

    done: int = 0
    live: int = 0

    def ended(self, steps: int, failed: bool) -> bool:
        """Whether it has, being of so many steps: all are done, or one failed and nothing is under way."""
        return self.done == steps or (failed and not self.live)


@dataclass(frozen=True, slots=True)
class Rounds:
    """How far the rounds of a step are: `failed` has what failed in a round, by the round's number: whether it was
    given up for another failure, and the step. Of several in one round it is the least."""

    ended: int = 0
    failed: "Map[int, tuple[bool, str]]" = field(default_factory=Map)
    open: "Map[int, Round]" = field(default_factory=Map)

    def moved(self, step: "StepRun", index: int, before: StepState.ValueType, steps: int) -> "Rounds":
        """After a step of a round went from one state to another; the round has so many steps."""
        known = self.open.get(index, Round())
        done = known.done + (step.state in DONE_STEP) - (before in DONE_STEP)
        live = known.live + _active(step, step.state) - _active(step, before)
        failed = self.failed
        if step.state == st.STEP_STATE_FAILED:
            told = _failure(step)
            failed = failed.set(index, min(told, failed.get(index, told)))
        now = Round(done, live)
        if now.ended(steps, index in failed):
            return Rounds(
                self.ended + 1, failed, self.open.delete(index) if index in self.open else self.open
            )
        return Rounds(self.ended, failed, self.open.set(index, now))


def _active(step: "StepRun", state: StepState.ValueType) -> bool:
    """Whether a step in that state has begun and not ended; after a person said what nobody knew it is pending."""
    return state in LIVE_STEP or (state == st.STEP_STATE_PENDING and bool(step.approval_id))


def _failure(step: "StepRun") -> tuple[bool, str]:
    return step.error is not None and step.error.code == ROUND_FAILED, step.name


def rounds_of(steps: "Mapping[str, StepRun]") -> "Map[str, Rounds]":
    """How far the bodies that are gone through are, as it is after their steps have moved one by one."""
    homes: dict[str, dict[int, list[StepRun]]] = {
        name: {} for name, step in steps.items() if step.state == st.STEP_STATE_RUNNING
    }
    if not homes:
        return Map()
    for step in steps.values():
        owner, index = home_of(step.name)
        if owner in homes:
            homes[owner].setdefault(index, []).append(step)
    found = {}
    for owner, rounds in homes.items():
        found[owner] = _told(rounds, steps[owner].begun.steps)
    return Map(found)


def _told(rounds: "Mapping[int, list[StepRun]]", size: int) -> Rounds:
    ended, failed, still = 0, {}, {}
    for index, steps in rounds.items():
        broken = [_failure(step) for step in steps if step.state == st.STEP_STATE_FAILED]
        if broken:
            failed[index] = min(broken)
        done = sum(step.state in DONE_STEP for step in steps)
        live = sum(_active(step, step.state) for step in steps)
        now = Round(done, live)
        if not (done or live or broken):
            continue  # after the run was reopened: it has not begun
        if now.ended(size, bool(broken)):
            ended += 1
        else:
            still[index] = now
    return Rounds(ended, Map(failed), Map(still))
