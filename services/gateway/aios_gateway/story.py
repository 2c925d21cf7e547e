"""The story of a run: its events in plain words. Pure; the words are for a person, the events are for a program."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from aios.api.v1.api_pb2 import TimelineEntry
from aios.run.v1 import events_pb2
from aios.run.v1.events_pb2 import RunEvent
from aios.run.v1.state_pb2 import (
    Approval,
    ApprovalKind,
    ApprovalState,
    Recovery,
    StepChange,
    Supposed,
    SupposedEnd,
)
from aios.task.v1.task_pb2 import Change, Mode
from aios.value.v1.value_pb2 import Value
from aios_core.step_names import renamed
from aios_core.wording import counted
from aios_gateway import approval_story, plan_story
from aios_gateway.evidence import evidence
from aios_gateway.story_undo import UndoStory
from aios_gateway.story_words import INFO, OK, PROBLEM, WAITING, WORKING, who, worker

Known = TypeVar("Known")
NOT_NEEDED: Final = "not needed"  # how the reason begins of a step whose condition did not hold
MAX_ANSWER_CHARS: Final = 200
_ASIDE: Final = ("step_redispatched", "became_late", "deadline_passed")  # it is worked on all the same
_ENDS: Final = ("run_succeeded", "run_failed", "run_cancelled", "run_undone", "run_redone")


class Story(UndoStory):
    """Tells a run event by event; it has to hear them from the first one on, since later ones build on earlier."""

    def __init__(self) -> None:
        super().__init__()
        self._asked: dict[str, tuple[int, Approval]] = {}
        self._decided: dict[str, int] = {}
        self._refused = 0
        # For the task of a step that is out: what is lost with it has cost that.
        self._held: dict[str, int] = {}
        self._started = 0

    def tell(self, event: RunEvent) -> TimelineEntry | None:
        """The line for this event; None when there is nothing to tell."""
        kind = event.WhichOneof("body")
        teller = _TELLERS.get(kind) if kind else None
        if teller is None:
            return None
        entry: TimelineEntry | None = teller(self, event, getattr(event, str(kind)))
        if entry is None:
            return None
        entry.time_ms = event.time_ms
        entry.sequence = event.sequence
        entry.who = entry.who or who(event.actor)
        return entry

    def _run_started(self, event: RunEvent, body: events_pb2.RunStarted) -> TimelineEntry:
        self._started = event.time_ms
        what = f"started {body.workflow}"
        if body.mode == Mode.MODE_SIMULATE:
            what = f"simulated {body.workflow}: nothing is written"
        if body.HasField("fork"):
            begins = f", from {body.fork.step} on" if body.fork.step else ""
            what = f"forked run {body.fork.run_id[-6:]} of {body.workflow}{begins}: nothing is written"
            return TimelineEntry(what=what, why=_changed(body.fork.changes), tone=INFO)
        kind, _, name = body.trigger.partition(":")
        why = {"intent": f"an event meant {name}", "schedule": f"schedule {name}: {body.request}"}.get(
            kind, ""
        )
        if body.HasField("concurrency"):
            what += ", which waits for its turn"
        return TimelineEntry(what=what, why=why, tone=INFO)

    def _run_admitted(self, _: RunEvent, body: events_pb2.RunAdmitted) -> TimelineEntry:
        return TimelineEntry(who="AIOS", what="its turn has come", tone=INFO)

    def _run_skipped(self, _: RunEvent, body: events_pb2.RunSkipped) -> TimelineEntry:
        return TimelineEntry(who="AIOS", what="left it out", why=body.why, tone=PROBLEM)

    def _step_scheduled(self, event: RunEvent, body: events_pb2.StepScheduled) -> TimelineEntry:
        self._targets[body.step] = self._at_work[body.step] = body.target
        self._begun.setdefault(body.step, event.time_ms)
        self._held[body.step] = body.hold_micros
        what = f"is working on {body.step}" if body.attempt <= 1 else f"tries {body.step} again"
        return TimelineEntry(who=worker(body.target), what=what, step=body.step, tone=WORKING)

    def _step_redispatched(self, _: RunEvent, body: events_pb2.StepRedispatched) -> TimelineEntry:
        what = f"gave {body.step} out again"
        return TimelineEntry(who="AIOS", what=what, why=body.why, step=body.step, tone=INFO)

    def _step_succeeded(self, event: RunEvent, body: events_pb2.StepSucceeded) -> TimelineEntry | None:
        if self._decided.get(body.step) == event.time_ms:
            return None  # the decision said so
        if body.step not in self._begun and not body.summary:
            return None  # a value was put in another form; nobody did anything
        return TimelineEntry(
            who=self._worker(body.step),
            what=body.summary or f"finished {body.step}",
            step=body.step,
            tone=OK,
            why=f"first given at {_at(body.cached.time_ms)}" if body.HasField("cached") else "",
            cost_micros=body.cost_micros,
            duration_ms=self._since(body.step, event.time_ms),
            changes=body.changes,
            evidence=evidence(body.output, body.changes),
        )

    def _step_failed(self, event: RunEvent, body: events_pb2.StepFailed) -> TimelineEntry | None:
        if self._decided.get(body.step) == event.time_ms:
            return None  # the decision said so
        return TimelineEntry(
            who=self._worker(body.step),
            what=f"could not do {body.step}",
            why=body.error.message,
            step=body.step,
            tone=PROBLEM,
            cost_micros=body.cost_micros,
            duration_ms=self._since(body.step, event.time_ms),
        )

    def _step_retry_scheduled(self, event: RunEvent, body: events_pb2.StepRetryScheduled) -> TimelineEntry:
        wait = max(0, body.due_ms - event.time_ms) / 1000
        return TimelineEntry(
            who=self._worker(body.step),
            what=f"had trouble with {body.step}, tries again in {wait:.0f} s",
            why=body.error.message,
            step=body.step,
            tone=PROBLEM,
            cost_micros=body.cost_micros,
        )

    def _step_reused(self, _: RunEvent, body: events_pb2.StepReused) -> TimelineEntry | None:
        if body.skipped:
            return None
        return TimelineEntry(who="AIOS", what=f"took {body.step} over", step=body.step, tone=OK)

    def _step_skipped(self, _: RunEvent, body: events_pb2.StepSkipped) -> TimelineEntry | None:
        if body.why.startswith(NOT_NEEDED):
            return None
        return TimelineEntry(
            who="AIOS", what=f"left out {body.step}", why=body.why, step=body.step, tone=INFO
        )

    def _step_unknown(self, event: RunEvent, body: events_pb2.StepUnknown) -> TimelineEntry:
        self._asked[body.approval.approval_id] = (event.time_ms, body.approval)
        doing = "undoing " if body.undoing else ""
        return TimelineEntry(
            who=self._worker(body.step),
            what=f"could not confirm {doing}{body.step}, please check",
            why=body.error.message,
            step=body.step,
            tone=WAITING,
            cost_micros=0 if body.undoing else self._held.get(body.step, 0),
            changes=_proposed(body.approval),
        )

    def _approval_requested(self, event: RunEvent, body: events_pb2.ApprovalRequested) -> TimelineEntry:
        approval = body.approval
        self._asked[approval.approval_id] = (event.time_ms, approval)
        asks = _ASKS.get(approval.kind, "needs your approval")
        subject = approval.title or "; ".join(question.text for question in approval.questions)
        return TimelineEntry(
            who="AIOS",
            what=f"{asks}: {subject}" if subject else asks,
            why=approval.why,
            step=body.step,
            tone=WAITING,
            changes=_proposed(approval),
            evidence=evidence(b"", _proposed(approval)),
        )

    def _approval_decided(self, event: RunEvent, body: events_pb2.ApprovalDecided) -> TimelineEntry:
        asked, approval = self._asked.get(body.approval_id, (event.time_ms, Approval()))
        self._decided[body.step] = event.time_ms
        if body.state in (ApprovalState.APPROVAL_STATE_REJECTED, ApprovalState.APPROVAL_STATE_EXPIRED):
            self._refused = event.time_ms
        unknown = approval.kind == ApprovalKind.APPROVAL_KIND_UNKNOWN
        asked_for = {question.id: question.text for question in approval.questions}
        what, tone = _decision(body.state, body.answers, unknown, asked_for)
        return TimelineEntry(
            who=who(body.decided_by or event.actor),
            what=what,
            why=body.note,
            step=body.step,
            tone=tone,
            duration_ms=event.time_ms - asked,
        )

    def _wait_started(self, event: RunEvent, body: events_pb2.WaitStarted) -> TimelineEntry:
        self._begun.setdefault(body.step, event.time_ms)
        why = f"until {_at(body.due_ms)}" if body.due_ms else ""
        awaited = f" for event {body.event_type}" if body.event_type else ""
        if body.unfunded:
            why, awaited = f"looks again by {_at(body.due_ms)}", " for money that others hold"
        what = f"waits at {body.step}{awaited}"
        return TimelineEntry(who="AIOS", what=what, why=why, step=body.step, tone=WORKING)

    def _deadline_passed(self, _: RunEvent, body: events_pb2.DeadlinePassed) -> TimelineEntry:
        what, tone = (
            f"saw the deadline of {body.step or 'the run'} pass",
            PROBLEM if body.error.code else INFO,
        )
        return TimelineEntry(who="AIOS", what=what, why=_at(body.deadline_ms), step=body.step, tone=tone)

    def _became_late(self, _: RunEvent, body: events_pb2.BecameLate) -> TimelineEntry:
        what = f"is late with {body.step or 'the run'}"
        return TimelineEntry(who="AIOS", what=what, why=body.why, step=body.step, tone=PROBLEM)

    def _body_started(self, event: RunEvent, body: events_pb2.BodyStarted) -> TimelineEntry:
        self._begun.setdefault(body.step, event.time_ms)
        over = {entry.key for entry in Value.FromString(body.input).root.map.entries}
        times = f", up to {body.rounds} times" if body.rounds > 1 else ""
        times = f": {counted(body.rounds, 'item')}" if "items" in over else times
        return TimelineEntry(who="AIOS", what=f"began {body.step}{times}", step=body.step, tone=WORKING)

    def _run_succeeded(self, event: RunEvent, _: events_pb2.RunSucceeded) -> TimelineEntry:
        return TimelineEntry(who="AIOS", what="finished", tone=OK, duration_ms=event.time_ms - self._started)

    def _run_failed(self, event: RunEvent, body: events_pb2.RunFailed) -> TimelineEntry:
        what = f"the run failed at {body.step}" if body.step else "the run failed"
        duration = event.time_ms - self._started
        return TimelineEntry(
            who="AIOS", what=what, why=body.error.message, tone=PROBLEM, duration_ms=duration
        )

    def _cancel_requested(self, event: RunEvent, body: events_pb2.CancelRequested) -> TimelineEntry | None:
        if event.time_ms == self._refused:
            return None  # the rejection said so
        what = "asked to stop"
        if body.superseded_by:
            what = f"asked to stop: {body.superseded_by} takes its place"
        return TimelineEntry(what=what, why=body.why, tone=INFO)

    def _run_cancelled(self, event: RunEvent, _: events_pb2.RunCancelled) -> TimelineEntry:
        duration = event.time_ms - self._started
        return TimelineEntry(
            who="AIOS", what="stopped; what was done before stays", tone=INFO, duration_ms=duration
        )

    def _run_reopened(self, event: RunEvent, body: events_pb2.RunReopened) -> TimelineEntry:
        self.forget(body.again)
        self._begun.update(dict.fromkeys(body.bodies, event.time_ms))
        what = _RECOVERED.get(body.recovery, "had it go on from {step}").format(step=body.step or "its end")
        more = "" if not body.cap_micros else f"; it may spend ${body.cap_micros / 1_000_000:.2f} now"
        return TimelineEntry(what=what + more, why=body.why, step=body.step, tone=INFO)

    def _body_reopened(self, event: RunEvent, body: events_pb2.BodyReopened) -> TimelineEntry:
        self._begun[body.step] = event.time_ms
        return TimelineEntry(who="AIOS", what=f"goes on with {body.step}", step=body.step, tone=WORKING)

    def _run_migrated(self, _: RunEvent, body: events_pb2.RunMigrated) -> TimelineEntry:
        self._begun = _moved(self._begun, body.renamed)
        self._targets = _moved(self._targets, body.renamed)
        self._at_work = _moved(self._at_work, body.renamed)
        self.forget(body.again)
        names = "".join(f"; {name} is {to} now" for name, to in sorted(body.renamed.items()))
        asked = f"; asks anew for {counted(len(body.again), 'approval')}" if body.again else ""
        why = " ".join(part for part in (body.why, *body.accepted) if part)
        what = f"had it go on as version {body.to_version[:8]}{names}{asked}"
        return TimelineEntry(what=what, why=why, tone=INFO)

    def _step_edited(self, _: RunEvent, body: events_pb2.StepEdited) -> TimelineEntry:
        what = (
            f"gave {body.step} another input" if body.input else f"let {body.step} have its own input again"
        )
        return TimelineEntry(what=what, step=body.step, tone=INFO, evidence=evidence(body.input, ()))

    def _decision_refused(self, _: RunEvent, body: events_pb2.DecisionRefused) -> TimelineEntry:
        return TimelineEntry(what="decided, but it did not count", why=body.error.message, tone=PROBLEM)


_BODIES: Final = RunEvent.DESCRIPTOR.oneofs_by_name["body"].fields
_TELLERS: Final[Mapping[str, Any]] = {
    **approval_story.TELLERS,
    **plan_story.TELLERS,
    **{
        name.removeprefix("_"): teller
        for name, teller in {**vars(UndoStory), **vars(Story)}.items()
        if name.removeprefix("_") in {field.name for field in _BODIES}
    },
}


def _at(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"


_RECOVERED: Final = {
    Recovery.RECOVERY_RETRY: "had {step} tried again",
    Recovery.RECOVERY_SKIP: "went on without {step}",
    Recovery.RECOVERY_EDIT: "had {step} tried again with another input",
    Recovery.RECOVERY_REWIND: "went back to {step}",
    Recovery.RECOVERY_REPLAN: "had it planned around {step}",
}


def tell(events: Iterable[RunEvent]) -> list[TimelineEntry]:
    """The whole story so far. "Is working on" stays only where nothing came of it yet; nothing is under way in a run
    that has ended."""
    story = Story()
    lines: list[TimelineEntry] = []
    working: dict[str, int] = {}  # places of lines, by step
    over: set[int] = set()
    for event in events:
        line, kind = story.tell(event), event.WhichOneof("body")
        if kind == "run_migrated":
            working = _moved(working, event.run_migrated.renamed)
        if kind in _ENDS:
            for at in working.values():
                lines[at].tone = INFO
        if line is None:
            continue
        if kind not in _ASIDE and line.step in working:
            over.add(working.pop(line.step))
        if line.tone == WORKING:
            working[line.step] = len(lines)
        lines.append(line)
    return [line for at, line in enumerate(lines) if at not in over]


def _moved(known: Mapping[str, Known], names: Mapping[str, str]) -> dict[str, Known]:
    """What is known of steps, under the names that they have now."""
    return {renamed(name, names): value for name, value in known.items()}


def _changed(changes: Iterable[StepChange]) -> str:
    """What is different in a fork, in words."""
    words = []
    for change in changes:
        words += [f"{change.step} by {change.agent}"] if change.agent else []
        words += [f"{change.step} with {change.model}"] if change.model else []
        words += [f"{change.step} with another prompt"] if change.prompt else []
        words += [f"{change.step} on another input"] if change.input else []
        words += [f"{change.step} takes {change.take}"] if change.take else []
        held = "holds" if change.supposed == Supposed.SUPPOSED_HOLDS else "does not hold"
        words += [f"the condition of {change.step} {held}"] if change.supposed else []
        rejected = change.ends == SupposedEnd.SUPPOSED_END_REJECTED
        words += [f"{change.step} {'is rejected' if rejected else 'fails'}"] if change.ends else []
    return ", ".join(words)


def _proposed(approval: Approval) -> Sequence[Change]:
    return [change for step in approval.proposed for change in step.changes]


def _decision(
    state: ApprovalState.ValueType, answers: bytes, unknown: bool, questions: Mapping[str, str]
) -> tuple[str, str]:
    if state == ApprovalState.APPROVAL_STATE_APPROVED:
        return "approved", OK
    if state == ApprovalState.APPROVAL_STATE_REJECTED:
        return "rejected it", PROBLEM
    if state == ApprovalState.APPROVAL_STATE_EXPIRED:
        return "gave no answer in time", PROBLEM
    if state == ApprovalState.APPROVAL_STATE_REPLACED:
        return "no longer need to decide", INFO
    texts = _texts(answers)
    if unknown and texts in ([("happened", "yes")], [("happened", "no")]):
        return ("checked: it happened" if texts[0][1] == "yes" else "checked: it did not happen"), OK
    words = "; ".join(f"{questions.get(name) or f'{name}:'} {text}" for name, text in texts)
    return (f"answered: {words[:MAX_ANSWER_CHARS]}" if words else "answered"), OK


def _texts(answers: bytes) -> list[tuple[str, str]]:
    """(question's id, what was said) of each answer."""
    if not answers:
        return []
    texts = []
    for entry in Value.FromString(answers).root.map.entries:
        kind = entry.value.WhichOneof("kind") or "null"
        plain = getattr(entry.value, kind)
        texts.append((entry.key, "yes" if plain is True else "no" if plain is False else str(plain)))
    return texts


_ASKS = {
    ApprovalKind.APPROVAL_KIND_QUESTION: "needs your answer",
    ApprovalKind.APPROVAL_KIND_UNKNOWN: "could not confirm, please check",
    ApprovalKind.APPROVAL_KIND_BUDGET: "waits for money",
    ApprovalKind.APPROVAL_KIND_SPIKE: "costs more than usual",
}
