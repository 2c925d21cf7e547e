"""From an event of a run to its episode: who did what, why, and what it refers to, in a person's words. Pure."""

from typing import Final

from google.protobuf.message import DecodeError

from aios.memory.v1.memory_pb2 import Episode
from aios.run.v1 import events_pb2, state_pb2
from aios.run.v1.events_pb2 import RunEvent
from aios_core.errors import TerminalError
from aios_core.hashing import event_hash
from aios_core.wording import counted
from aios_memory.references import artifacts_in, changed, first_of

MAX_TEXT_CHARS: Final = 500  # of what and why

_DECISIONS: Final = {
    state_pb2.APPROVAL_STATE_APPROVED: "approved",
    state_pb2.APPROVAL_STATE_REJECTED: "rejected",
    state_pb2.APPROVAL_STATE_ANSWERED: "answered",
    state_pb2.APPROVAL_STATE_EXPIRED: "let expire",
    state_pb2.APPROVAL_STATE_REPLACED: "replaced",
}


def episode_of(stored: bytes) -> Episode:
    """The episode of one stored event. The same bytes give the same episode. Raises UNDECODABLE."""
    event = event_of(stored)
    episode = told(event)
    episode.workspace, episode.run_id, episode.sequence = event.workspace, event.run_id, event.sequence
    episode.event_sha256 = event_hash(stored)
    return episode


def event_of(stored: bytes) -> RunEvent:
    """A stored event. Raises UNDECODABLE."""
    try:
        return RunEvent.FromString(stored)
    except DecodeError:
        raise TerminalError("UNDECODABLE", "A filed event is not a RunEvent.") from None


def told(event: RunEvent) -> Episode:
    """The episode of an event, without its place (workspace, run and sequence) and without its evidence.

    An event of a kind that this version does not know still becomes one, so that none is missing.
    """
    kind: str = event.WhichOneof("body") or ""
    what, why, references = _TELLERS.get(kind, _something)(event)
    episode = Episode(time_ms=event.time_ms, actor=event.actor, what=_short(what), why=_short(why))
    episode.references.extend(first_of(references))
    if kind in _OF_A_STEP:
        episode.step = getattr(event, kind).step
    if kind in _COSTING:
        episode.cost_micros = getattr(event, kind).cost_micros
    return episode


def untold(event: RunEvent) -> Episode:
    """In the place of an episode that a defect keeps from being told: that there was something."""
    return Episode(time_ms=event.time_ms, actor=event.actor, what="something happened that can't be told")


_Told = tuple[str, str, list[str]]


def _something(event: RunEvent) -> _Told:
    return f"{event.WhichOneof('body') or 'something'} happened", "", []


def _run_started(event: RunEvent) -> _Told:
    body = event.run_started
    asked = (
        f"asked for by {body.trigger} with {body.request}" if body.request else f"asked for by {body.trigger}"
    )
    references = [
        f"workflow:{body.workflow}@{body.workflow_version}",
        f"request:{body.request}" if body.request else "",
        f"resolution:{body.resolution_id}" if body.resolution_id else "",
    ]
    return f"started {body.workflow}", asked, [*filter(None, references), *artifacts_in(body.input)]


def _step_scheduled(event: RunEvent) -> _Told:
    body = event.step_scheduled
    again = f" (attempt {body.attempt})" if body.attempt > 1 else ""
    return f"gave step {body.step} to {body.target}{again}", "", artifacts_in(body.input)


def _step_redispatched(event: RunEvent) -> _Told:
    body = event.step_redispatched
    return f"gave step {body.step} out again", body.why, []


def _step_succeeded(event: RunEvent) -> _Told:
    body = event.step_succeeded
    references = [*changed(body.changes), *artifacts_in(body.output)]
    return f"did step {body.step}: {body.summary or 'done'}", "", references


def _step_failed(event: RunEvent) -> _Told:
    body = event.step_failed
    return f"step {body.step} failed", body.error.message, []


def _step_retry_scheduled(event: RunEvent) -> _Told:
    body = event.step_retry_scheduled
    return f"will try step {body.step} again", body.error.message, []


def _step_skipped(event: RunEvent) -> _Told:
    return f"skipped step {event.step_skipped.step}", event.step_skipped.why, []


def _step_reused(event: RunEvent) -> _Told:
    body = event.step_reused
    return f"took step {body.step} over: {body.summary}", "", artifacts_in(body.output)


def _step_unknown(event: RunEvent) -> _Told:
    body = event.step_unknown
    what = "the undo of step" if body.undoing else "step"
    references = [f"approval:{body.approval.approval_id}"] if body.approval.approval_id else []
    return f"could not confirm {what} {body.step}: please check", body.error.message, references


def _run_reopened(event: RunEvent) -> _Told:
    body = event.run_reopened
    how = state_pb2.Recovery.Name(body.recovery).removeprefix("RECOVERY_").lower()
    at = f" at step {body.step}" if body.step else ""
    again = counted(len(body.again), "step")
    return f"had the run go on{at} ({how}) and begin {again} again", body.why, []


def _body_reopened(event: RunEvent) -> _Told:
    return f"step {event.body_reopened.step} goes on with its rounds", "", []


def _run_migrated(event: RunEvent) -> _Told:
    body = event.run_migrated
    names = "".join(f"; step {name} is {to} now" for name, to in sorted(body.renamed.items()))
    return f"had the run go on as version {body.to_version[:8]}{names}", body.why, []


def _plan_adopted(event: RunEvent) -> _Told:
    body = event.plan_adopted
    instead = f", in the place of {body.parent[:8]}" if body.parent else ""
    return f"step {body.step} follows plan {body.version[:8]}{instead}", "", []


def _plan_refused(event: RunEvent) -> _Told:
    body = event.plan_refused
    return f"what step {body.step} gave is no plan, so it is asked again", body.error.message, []


def _plan_revision_requested(event: RunEvent) -> _Told:
    body = event.plan_revision_requested
    return f"asked for another plan of step {body.step}", body.note, []


def _plan_revision_dropped(event: RunEvent) -> _Told:
    body = event.plan_revision_dropped
    return f"step {body.step} goes on by the plan that it has", body.error.message, []


def _step_edited(event: RunEvent) -> _Told:
    body = event.step_edited
    if not body.input:
        return f"dropped the input that was given to step {body.step}", "", []
    return f"gave step {body.step} another input", "", artifacts_in(body.input)


def _approval_requested(event: RunEvent) -> _Told:
    body = event.approval_requested
    approval = body.approval
    references = [f"approval:{approval.approval_id}"]
    for proposed in approval.proposed:
        references += changed(proposed.changes)
    question = approval.kind == state_pb2.APPROVAL_KIND_QUESTION
    return (
        f"{'asked' if question else 'asked for approval'}: {approval.title or body.step}",
        approval.why,
        references,
    )


def _approval_decided(event: RunEvent) -> _Told:
    body = event.approval_decided
    return (
        f"{body.decided_by or 'nobody'} {_DECISIONS.get(body.state, 'decided')} {body.step}",
        body.note,
        [f"approval:{body.approval_id}"],
    )


def _decision_refused(event: RunEvent) -> _Told:
    body = event.decision_refused
    return "a decision was refused", body.error.message, [f"approval:{body.approval_id}"]


def _approval_reminded(event: RunEvent) -> _Told:
    body = event.approval_reminded
    return f"nobody has decided {body.step} yet", "", [f"approval:{body.approval_id}"]


def _approval_escalated(event: RunEvent) -> _Told:
    body = event.approval_escalated
    return f"asked {body.to} as well about {body.step}", "", [f"approval:{body.approval_id}"]


def _approval_assented(event: RunEvent) -> _Told:
    body = event.approval_assented
    what = f"{body.approver} approved {body.step} as one of several"
    return what, body.note, [f"approval:{body.approval_id}"]


def _approval_edited(event: RunEvent) -> _Told:
    body = event.approval_edited
    evidence = [f"approval:{body.approval.approval_id}", *artifacts_in(body.input)]
    return f"{body.edited_by} changed what {body.edited} would do", body.note, evidence


def _wait_started(event: RunEvent) -> _Told:
    body = event.wait_started
    awaited = f" for event {body.event_type}" if body.event_type else ""
    if body.unfunded:
        awaited = " for money that others hold"
    return f"waits in step {body.step}{awaited}", "", []


def _run_admitted(event: RunEvent) -> _Told:
    return "the run's turn came", "", []


def _run_skipped(event: RunEvent) -> _Told:
    return "the run was left out", event.run_skipped.why, []


def _deadline_passed(event: RunEvent) -> _Told:
    body = event.deadline_passed
    return f"the deadline of {body.step or 'the run'} passed", body.error.message, []


def _became_late(event: RunEvent) -> _Told:
    body = event.became_late
    return f"{body.step or 'the run'} is late", body.why, []


def _body_started(event: RunEvent) -> _Told:
    body = event.body_started
    return f"began the {body.rounds} rounds of {body.step}", "", artifacts_in(body.input)


def _rounds_started(event: RunEvent) -> _Told:
    body = event.rounds_started
    return f"went on with {body.step}, {body.begun} begun", "", []


def _run_succeeded(event: RunEvent) -> _Told:
    return "the run succeeded", "", artifacts_in(event.run_succeeded.outputs)


def _run_failed(event: RunEvent) -> _Told:
    body = event.run_failed
    return f"the run failed{f' in step {body.step}' if body.step else ''}", body.error.message, []


def _cancel_requested(event: RunEvent) -> _Told:
    body = event.cancel_requested
    references = [f"run:{body.superseded_by}"] if body.superseded_by else []
    return "asked to cancel the run", body.why, references


def _run_cancelled(event: RunEvent) -> _Told:
    return "the run was cancelled", "", []


def _undo_requested(event: RunEvent) -> _Told:
    body = event.undo_requested
    return f"asked to undo {', '.join(body.steps) or 'the run'}", body.why, []


def _undo_scheduled(event: RunEvent) -> _Told:
    doing = "putting" if event.undo_scheduled.redo else "taking"
    return f"is {doing} step {event.undo_scheduled.step} back", "", []


def _step_undone(event: RunEvent) -> _Told:
    body = event.step_undone
    return f"took step {body.step} back: {body.summary or 'done'}", "", changed(body.changes)


def _undo_conflicted(event: RunEvent) -> _Told:
    body = event.undo_conflicted
    since = ": it was changed since" if body.error.code == "CONFLICT" else ""
    return f"left step {body.step} as it is{since}", body.error.message, changed(body.changes)


def _run_undone(event: RunEvent) -> _Told:
    left = ", ".join(event.run_undone.left)
    if event.run_undone.state == state_pb2.RUN_STATE_PARTLY_UNDONE:
        return "a part of the run was undone", "", []
    return "the run was undone" + (f" but for {left}" if left else ""), "", []


def _redo_requested(event: RunEvent) -> _Told:
    body = event.redo_requested
    return f"asked to put {', '.join(body.steps)} back", body.why, []


def _step_redone(event: RunEvent) -> _Told:
    body = event.step_redone
    return f"put step {body.step} back: {body.summary or 'done'}", "", changed(body.changes)


def _redo_conflicted(event: RunEvent) -> _Told:
    body = event.redo_conflicted
    return f"did not put step {body.step} back", body.error.message, changed(body.changes)


def _run_redone(event: RunEvent) -> _Told:
    left = ", ".join(event.run_redone.left)
    return "what was undone was put back" + (f" but for {left}" if left else ""), "", []


def _undo_accepted(event: RunEvent) -> _Told:
    return "left what could not be undone as it is", event.undo_accepted.why, []


_TELLERS: Final = {
    "run_started": _run_started,
    "run_admitted": _run_admitted,
    "run_skipped": _run_skipped,
    "run_reopened": _run_reopened,
    "run_migrated": _run_migrated,
    "body_reopened": _body_reopened,
    "step_edited": _step_edited,
    "plan_adopted": _plan_adopted,
    "plan_refused": _plan_refused,
    "plan_revision_requested": _plan_revision_requested,
    "plan_revision_dropped": _plan_revision_dropped,
    "step_scheduled": _step_scheduled,
    "step_redispatched": _step_redispatched,
    "step_succeeded": _step_succeeded,
    "step_failed": _step_failed,
    "step_retry_scheduled": _step_retry_scheduled,
    "step_skipped": _step_skipped,
    "step_reused": _step_reused,
    "step_unknown": _step_unknown,
    "approval_requested": _approval_requested,
    "approval_decided": _approval_decided,
    "decision_refused": _decision_refused,
    "approval_reminded": _approval_reminded,
    "approval_escalated": _approval_escalated,
    "approval_assented": _approval_assented,
    "approval_edited": _approval_edited,
    "wait_started": _wait_started,
    "deadline_passed": _deadline_passed,
    "became_late": _became_late,
    "body_started": _body_started,
    "rounds_started": _rounds_started,
    "run_succeeded": _run_succeeded,
    "run_failed": _run_failed,
    "cancel_requested": _cancel_requested,
    "run_cancelled": _run_cancelled,
    "undo_requested": _undo_requested,
    "undo_scheduled": _undo_scheduled,
    "step_undone": _step_undone,
    "undo_conflicted": _undo_conflicted,
    "run_undone": _run_undone,
    "redo_requested": _redo_requested,
    "step_redone": _step_redone,
    "redo_conflicted": _redo_conflicted,
    "run_redone": _run_redone,
    "undo_accepted": _undo_accepted,
}
_BODIES: Final = events_pb2.RunEvent.DESCRIPTOR.oneofs_by_name["body"].fields
KINDS: Final = frozenset(field.name for field in _BODIES)
_OF_A_STEP: Final = frozenset(field.name for field in _BODIES if "step" in field.message_type.fields_by_name)
_COSTING: Final = frozenset(
    field.name for field in _BODIES if "cost_micros" in field.message_type.fields_by_name
)


def _short(text: str) -> str:
    return text if len(text) <= MAX_TEXT_CHARS else text[: MAX_TEXT_CHARS - 1] + "…"
