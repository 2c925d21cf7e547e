"""The story of an undo, and of the undo of one."""

from collections.abc import Iterable

from aios.api.v1.api_pb2 import TimelineEntry
from aios.run.v1 import events_pb2
from aios.run.v1.events_pb2 import RunEvent
from aios.run.v1.state_pb2 import RunState
from aios_core.wording import counted
from aios_gateway.story_words import INFO, OK, PROBLEM, UNDONE, WORKING, named, worker


class UndoStory:
    """The part of a story that takes back and puts back."""

    def __init__(self) -> None:
        self._targets: dict[str, str] = {}
        self._at_work: dict[str, str] = {}  # the target of a step's last task, which may make it good
        self._begun: dict[str, int] = {}

    def forget(self, steps: Iterable[str]) -> None:
        """These have not begun any more; what does them next may be something else."""
        for step in steps:
            self._begun.pop(step, None)
            self._at_work.pop(step, None)

    def _worker(self, step: str) -> str:
        return worker(self._at_work.get(step, ""))

    def _since(self, step: str, now: int) -> int:
        return now - self._begun.pop(step, now)

    def _undo_requested(self, _: RunEvent, body: events_pb2.UndoRequested) -> TimelineEntry:
        self._begun.clear()
        what = f"asked to undo {counted(len(body.steps), 'step')}" if body.steps else "asked to undo it"
        if body.chosen:
            along = [step for step in body.steps if step not in body.chosen]
            what = f"asked to undo {named(body.chosen)}"
            what += f", and with it what came of it: {named(along)}" if along else ""
        if not body.steps and not body.impossible:
            what += "; nothing was left to take back"
        if body.impossible:
            what += f"; {', '.join(body.impossible)} can't be undone"
        return TimelineEntry(what=what, why=body.why, tone=INFO)

    def _undo_scheduled(self, event: RunEvent, body: events_pb2.UndoScheduled) -> TimelineEntry:
        self._begun.setdefault(body.step, event.time_ms)
        self._at_work[body.step] = body.compensation.target or self._targets.get(body.step, "")
        doing = "putting back" if body.redo else "undoing"
        doing = "making good" if body.HasField("compensation") else doing
        return TimelineEntry(
            who=self._worker(body.step), what=f"is {doing} {body.step}", step=body.step, tone=WORKING
        )

    def _redo_requested(self, _: RunEvent, body: events_pb2.RedoRequested) -> TimelineEntry:
        self._begun.clear()
        what = f"asked to put back {counted(len(body.steps), 'step')} that had been undone"
        return TimelineEntry(what=what, why=body.why, tone=INFO)

    def _step_redone(self, event: RunEvent, body: events_pb2.StepRedone) -> TimelineEntry:
        return TimelineEntry(
            who=self._worker(body.step),
            what=f"put back: {body.summary or body.step}",
            step=body.step,
            tone=OK,
            duration_ms=self._since(body.step, event.time_ms),
            changes=body.changes,
        )

    def _redo_conflicted(self, _: RunEvent, body: events_pb2.RedoConflicted) -> TimelineEntry:
        return TimelineEntry(
            who=self._worker(body.step),
            what=f"did not put {body.step} back",
            why=body.error.message,
            step=body.step,
            tone=PROBLEM,
            changes=body.changes,
        )

    def _run_redone(self, _: RunEvent, body: events_pb2.RunRedone) -> TimelineEntry:
        if body.left:
            what = f"put back, except {named(body.left)}, which stays undone"
            return TimelineEntry(who="AIOS", what=what, tone=PROBLEM)
        return TimelineEntry(who="AIOS", what="everything is as the run had made it", tone=OK)

    def _undo_accepted(self, _: RunEvent, body: events_pb2.UndoAccepted) -> TimelineEntry:
        return TimelineEntry(what="left what could not be undone as it is", why=body.why, tone=INFO)

    def _step_undone(self, event: RunEvent, body: events_pb2.StepUndone) -> TimelineEntry:
        return TimelineEntry(
            who=self._worker(body.step),
            what=body.summary or f"undid {body.step}",
            step=body.step,
            tone=UNDONE,
            duration_ms=self._since(body.step, event.time_ms),
            changes=body.changes,
        )

    def _undo_conflicted(self, _: RunEvent, body: events_pb2.UndoConflicted) -> TimelineEntry:
        since = ": it was changed since" if body.error.code == "CONFLICT" else ""
        return TimelineEntry(
            who=self._worker(body.step),
            what=f"left {body.step} as it is{since}",
            why=body.error.message,
            step=body.step,
            tone=PROBLEM,
            changes=body.changes,
        )

    def _run_undone(self, _: RunEvent, body: events_pb2.RunUndone) -> TimelineEntry:
        if body.left:
            what = f"undone, except {', '.join(body.left)}: please look at it"
            return TimelineEntry(who="AIOS", what=what, tone=PROBLEM)
        if body.state == RunState.RUN_STATE_PARTLY_UNDONE:
            return TimelineEntry(who="AIOS", what="that part is undone; the rest stands", tone=UNDONE)
        return TimelineEntry(who="AIOS", what="everything is undone", tone=UNDONE)
