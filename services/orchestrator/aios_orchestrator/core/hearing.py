"""Waits for an event: what comes under the right correlation and matches, or nothing until the time is out.

Which of the two it is, is what was decided first: both find the step waiting, or they find it done."""

from aios.run.v1 import events_pb2 as ev
from aios.run.v1 import state_pb2 as st
from aios_core.encoding import encode
from aios_core.errors import TerminalError
from aios_core.labels import RESOURCE, Label
from aios_core.values import Leaf, Value, label_of, plain, relabeled
from aios_orchestrator.core import limits, rounds
from aios_orchestrator.core.draft import Draft
from aios_orchestrator.correlation import correlation_of, seeing
from aios_orchestrator.mapping import truth
from aios_orchestrator.workflow import Hears, Step


def begin(draft: Draft, step: Step, hears: Hears) -> None:
    """Begin to wait. Raises BAD_OUTPUT when there is nothing to be found by."""
    key = plain(hears.key.evaluate(draft.look_from(step.scope))) if hears.key is not None else ""
    awaits = correlation_of(draft.run.workspace, hears.event_type, hears.side, key)
    if awaits is None:
        assert hears.key is not None
        raise TerminalError(
            "BAD_OUTPUT",
            f"Step {step.name!r} waits for an event by {hears.key.text}, which must be a text, a number or a truth"
            " value.",
        )
    due = draft.clock + hears.timeout_ms if hears.timeout_ms else 0
    draft.emit(
        wait_started=ev.WaitStarted(
            step=step.name,
            due_ms=due,
            event_type=hears.event_type,
            awaits=awaits,
            limits=limits.of_step(draft, step),
        )
    )
    draft.waiting.append(awaits)


def hear(draft: Draft, event: Value, correlations: frozenset[str]) -> None:
    """Let every step go on that waits for this event."""
    assert isinstance(event, dict)
    source, identity = plain(event["source"]), plain(event["id"])
    if draft.run.trigger != "manual" and draft.run.request == f"{source}:{identity}":
        return  # it is what the run began with
    for state in draft.run.lively():
        if state.state != st.STEP_STATE_WAITING or state.awaits not in correlations:
            continue
        step = draft.workflow.at(state.name)
        assert step.hears is not None
        label = _matches(draft, step, step.hears, event)
        if label is not None:
            value: Value = {"event": event, "timed_out": Leaf(False, label)}
            summary = f"heard {step.hears.event_type} from {source}"
            _succeed(draft, step, value, summary)


def _matches(draft: Draft, step: Step, hears: Hears, event: Value) -> Label | None:
    """What it depends on that the event is the one; None when it isn't, or its data does not allow the question."""
    if hears.match is None:
        return label_of(event)
    try:
        holds, label = truth(hears.match, seeing(event, draft.look_from(step.scope)))
    except TerminalError:
        return None
    return label if holds else None


def time_out(draft: Draft, step: Step, hears: Hears) -> None:
    """Nothing came in time."""
    if not hears.lenient:
        error = TerminalError(
            "WAIT_TIMED_OUT", f"No event {hears.event_type!r} came for step {step.name!r} in time."
        )
        rounds.fail(draft, step.name, error)
        return
    value: Value = {"event": Leaf(None, RESOURCE), "timed_out": Leaf(True, RESOURCE)}
    _succeed(draft, step, value, f"no {hears.event_type} came in time")


def _succeed(draft: Draft, step: Step, value: Value, summary: str) -> None:
    guards = [rounds.guard_of(draft, step.scope)]
    if step.when is not None:
        guards.append(truth(step.when, draft.look_from(step.scope))[1])
    for label in guards:
        if label is not None:
            value = relabeled(value, label)
    draft.emit(step_succeeded=ev.StepSucceeded(step=step.name, output=encode(value), summary=summary))
