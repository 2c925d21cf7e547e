"""A run that failed as an object: its cause and class, what it touches, and what a person can do about it. Pure."""

from collections.abc import Iterable
from typing import Final

from aios.error.v1.error_pb2 import Error
from aios.run.v1 import state_pb2 as st
from aios.run.v1.events_pb2 import RunEvent
from aios.run.v1.state_pb2 import Failure, FailureClass, Remedy, StandingEffect
from aios.task.v1.task_pb2 import MODE_SIMULATE
from aios_core.encoding import decode_trusted
from aios_core.errors import AiosError
from aios_core.ids import derive
from aios_core.labels import OWNER, Trust
from aios_core.step_names import is_inside
from aios_core.values import Leaf, Value, label_of
from aios_orchestrator.core import undo
from aios_orchestrator.core.decide import decide
from aios_orchestrator.core.recover import Recover
from aios_orchestrator.model import Run
from aios_orchestrator.workflow import WORK, Workflow, path_of, scope_of

MAX_AGAIN: Final = 100  # steps that a remedy names
MAX_NAMED: Final = 10  # steps that a failure names
TRANSIENT, BUG = st.FAILURE_CLASS_TRANSIENT, st.FAILURE_CLASS_BUG
DATA, PERSON = st.FAILURE_CLASS_DATA, st.FAILURE_CLASS_PERSON

CLASSES: Final[dict[str, FailureClass.ValueType]] = {
    **dict.fromkeys(
        (
            "DEADLINE_EXCEEDED", "UNAVAILABLE", "STEP_TIMEOUT", "QUEUE_TIMEOUT", "TOTAL_TIMEOUT", "QUEUE_FULL",
            "LEASE_LOST", "ROUND_FAILED", "SANDBOX_TIMEOUT",
            "SANDBOX_CRASHED", "MODEL_FAILED", "BUS_FAILED", "CONFLICT",
        ),
        TRANSIENT,
    ),
    **dict.fromkeys(
        (
            "INTERNAL", "BAD_YAML", "UNKNOWN_FIELD", "BAD_RESOURCE", "BAD_EXPRESSION", "CYCLE", "REPEAT_LIMIT",
            "EXPRESSION_FAILED", "BAD_OUTPUT", "BAD_PLAN", "AGENT_FAILED", "AGENT_BAD_OUTPUT", "SANDBOX_MEMORY",
            "SANDBOX_OUTPUT_TOO_LARGE", "APPROVAL_REQUIRED", "REQUEST_ID_REUSED", "PATH_OUTSIDE_ROOT",
            "NOT_FAILED", "NOT_RECORDABLE",
        ),
        BUG,
    ),
    **dict.fromkeys(
        (
            "NOT_FOUND", "INVALID_ARGUMENT", "TOO_LARGE", "TOO_DEEP", "UNDECODABLE", "UNREADABLE", "BAD_ANSWER",
            "CORRUPT_STORE",
        ),
        DATA,
    ),
    **dict.fromkeys(
        (
            "UNAUTHENTICATED", "PERMISSION_DENIED", "RUN_CLOSED", "BUDGET_EXCEEDED", "UNPRICED", "REJECTED",
            "APPROVAL_STALE", "APPROVAL_USED", "APPROVAL_EXPIRED", "UNTRUSTED_FIELD", "OUTCOME_UNKNOWN", "DISK_FULL",
            "READ_ONLY", "ACTION_FAILED", "SANDBOX_UNAVAILABLE", "PORT_TAKEN", "ALREADY_SERVING", "DATA_DIR",
            "NEWER_STORE", "EFFECTS_STAND", "INCOMPATIBLE", "WAIT_TIMED_OUT", "BAD_BACKUP", "NEWER_BACKUP", "IN_USE",
            "NO_STORES", "RESTORE_OPEN", "NOT_AN_APPROVER", "APPROVED_ALREADY",
        ),
        PERSON,
    ),
}  # fmt: skip
_OF_DATA: Final = frozenset(
    {"EXPRESSION_FAILED", "BAD_OUTPUT", "BAD_PLAN", "AGENT_FAILED", "AGENT_BAD_OUTPUT", "REPEAT_LIMIT"}
)  # a bug, unless what was worked on came from outside


def failure_of(run: Run, workflow: Workflow) -> Failure | None:
    """The failure of a run; None when it has none that anybody has to deal with."""
    if run.state == st.RUN_STATE_UNDO_INCOMPLETE:
        return _undo_failure(run, workflow)
    if run.state != st.RUN_STATE_FAILED or run.mode == MODE_SIMULATE or run.error is None:
        return None
    place = path_of(run.failed)
    step = workflow.steps.get(place)
    target = step.target or step.kind if step is not None else "outputs"
    return Failure(
        run_id=run.run_id,
        workflow=run.workflow,
        workflow_version=run.workflow_version,
        step=run.failed,
        target=target,
        error=run.error,
        failure_class=class_of(run, workflow),
        cause=derive("cause", run.error.code, run.workflow, place, target),
        time_ms=run.update_time,
        concurrency_key=run.concurrency_key,
        attempts=run.at(run.failed).attempt if run.failed else 0,
    )


def _undo_failure(run: Run, workflow: Workflow) -> Failure:
    """What could not be taken back: a person looks at it, tries again, puts the rest back, or leaves it."""
    left = [s for s in reversed(run.changed_things()) if s.state != st.STEP_STATE_UNDONE]
    conflicts = [s for s in left if s.state == st.STEP_STATE_UNDO_CONFLICT]
    names = ", ".join(s.name for s in left[:MAX_NAMED]) + (" …" if len(left) > MAX_NAMED else "")
    step = (conflicts or left)[0] if left else None
    error = Error(code="ACTION_FAILED", message=f"Nothing takes back what these changed: {names}.")
    if conflicts and conflicts[0].error is not None:
        error = conflicts[0].error
    name = step.name if step is not None else ""
    target = workflow.at(name).target if name else "undo"
    return Failure(
        run_id=run.run_id,
        workflow=run.workflow,
        workflow_version=run.workflow_version,
        step=name,
        target=target,
        error=error,
        failure_class=CLASSES.get(error.code, PERSON) if not conflicts else PERSON,
        cause=derive("cause", "undo", error.code, run.workflow, path_of(name), target),
        time_ms=run.update_time,
        concurrency_key=run.concurrency_key,
        attempts=step.attempt if step is not None else 0,
    )


def class_of(run: Run, workflow: Workflow) -> FailureClass.ValueType:
    """What kind of failure it is: by its code, by what the failing side says of it, and by where its data came from."""
    assert run.error is not None
    if run.error.retryable:
        return TRANSIENT
    if run.error.code in _OF_DATA and _from_outside(run, workflow):
        return DATA
    return CLASSES.get(run.error.code, PERSON)


def _from_outside(run: Run, workflow: Workflow) -> bool:
    """Whether the failed step worked on data from outside: its input, or what it needed, or else the run's input."""
    found = [run.at(run.failed).input] if run.failed else []
    if not any(found) and path_of(run.failed) in workflow.steps:
        scope = scope_of(run.failed)
        found = [run.at(scope + need).output for need in workflow.at(run.failed).needs]
    known = [data for data in found if data] or [run.input]
    return any(label_of(decode_trusted(data)).trust <= Trust.UNTRUSTED for data in known)


def standing(run: Run, workflow: Workflow) -> list[StandingEffect]:
    """What the run has changed and what stands, the last first."""
    return [
        StandingEffect(
            run_id=run.run_id,
            step=step.name,
            target=workflow.at(step.name).target,
            summary=step.summary,
            undoable=step.undoable,
        )
        for step in reversed(run.changed_things())
        if step.state in (st.STEP_STATE_SUCCEEDED, st.STEP_STATE_UNDO_CONFLICT)
    ]


def preview(run: Run, workflow: Workflow, what: Recover, now: int) -> list[str]:
    """The steps that would run again. Raises what the recovery is refused with."""
    decision = decide(run, workflow, what, now, "person:preview")
    if decision.refusal is not None:
        raise decision.refusal
    for data in decision.events:
        event = RunEvent.FromString(data)
        if event.WhichOneof("body") == "undo_requested":
            return list(event.undo_requested.steps)
        if event.WhichOneof("body") == "run_reopened":
            skipped = event.run_reopened.step if what.recovery == st.RECOVERY_SKIP else ""
            return [name for name in event.run_reopened.again if name != skipped]
    return []


def worker_of_edit(run: Run, workflow: Workflow, what: Recover) -> str:
    """The target of the step that is given another input; empty where none is, or only the run itself takes it."""
    if what.value is None or what.recovery not in (st.RECOVERY_EDIT, st.RECOVERY_REWIND):
        return ""
    step = workflow.at(what.step or run.failed)
    return step.target if step.kind in WORK else ""


def remedies(run: Run, workflow: Workflow, now: int) -> list[Remedy]:
    """What a person can do about a failed run, and what each would do; the suggested one first."""
    if run.state == st.RUN_STATE_UNDO_INCOMPLETE:
        return _undo_remedies(run, workflow, now)
    failed = run.failed
    found = [_remedy(run, workflow, now, "retry", Recover(st.RECOVERY_RETRY))]
    if failed:
        step = workflow.at(failed)
        if step.kind != "gate":
            found.append(_remedy(run, workflow, now, "skip", Recover(st.RECOVERY_SKIP)))
        if step.kind in (*WORK, "workflow"):
            given = _input(run)
            found.append(_remedy(run, workflow, now, "edit", Recover(st.RECOVERY_EDIT, value=given)))
        before = [step.scope + need for need in step.needs]
        begun = next((name for name in before if name in run.steps), "")
        if begun:
            found.append(_remedy(run, workflow, now, "rewind", Recover(st.RECOVERY_REWIND, begun)))
        if any(is_inside(failed, planned) for planned in run.plans):
            found.append(_remedy(run, workflow, now, "replan", Recover(st.RECOVERY_REPLAN, failed)))
    found.append(_undo(run))
    wanted = _wanted(run, workflow)
    open_ = [remedy for remedy in found if not remedy.refused]
    best = next((remedy for remedy in open_ if remedy.action == wanted), open_[-1])
    best.suggested = True
    return sorted(found, key=lambda remedy: not remedy.suggested)


def _undo_remedies(run: Run, workflow: Workflow, now: int) -> list[Remedy]:
    """Of an undo that could not take everything back."""
    retry = _remedy(run, workflow, now, "retry", Recover(st.RECOVERY_RETRY))
    retry.what = f"Try again to take back what was left alone: {', '.join(retry.again) or 'nothing'}."
    left = [s.name for s in run.changed_things() if s.state != st.STEP_STATE_UNDONE]
    skip = Remedy(action="skip", what=f"Leave it: {', '.join(left[:MAX_AGAIN])} stays as it is now.")
    redo = Remedy(action="redo")
    again = undo.redo_preview(run)
    redo.what = f"Put back what was taken away: {', '.join(again[:MAX_AGAIN]) or 'nothing'}."
    redo.again.extend(again[:MAX_AGAIN])
    if not again:
        redo.refused = "Nothing was taken away."
    (skip if retry.refused else retry).suggested = True
    return sorted([retry, skip, redo], key=lambda remedy: not remedy.suggested)


def _wanted(run: Run, workflow: Workflow) -> str:
    assert run.error is not None
    if run.error.code == "OUTCOME_UNKNOWN":
        return "skip"
    return "edit" if class_of(run, workflow) == DATA else "retry"


def _input(run: Run) -> Value:
    data = run.at(run.failed).input
    return decode_trusted(data) if data else Leaf({}, OWNER)


def _remedy(run: Run, workflow: Workflow, now: int, action: str, what: Recover) -> Remedy:
    remedy = Remedy(action=action)
    try:
        again = preview(run, workflow, what, now)
    except AiosError as error:
        again, remedy.refused = [], error.message
    remedy.again.extend(again[:MAX_AGAIN])
    remedy.what = _words(run, workflow, action, what.step or run.failed, again)
    return remedy


def _words(run: Run, workflow: Workflow, action: str, step: str, again: Iterable[str]) -> str:
    asks = any(workflow.at(name).kind == "gate" for name in again)
    approval = " It asks for your approval again." if asks else ""
    if action == "skip":
        return f"Go on without {step}: what reads its result reads null, or a value that you give.{approval}"
    if action == "edit":
        return f"Try {step} again with an input that you give.{approval}"
    if action == "replan":
        return "Ask the planner for another plan, which keeps what is finished; you approve it before it is followed."
    if action == "rewind":
        return f"Go back to {step} and run it and what came of it again, with another input if you give one.{approval}"
    money = " Allow it to spend more with --budget." if _no_money(run) else ""
    what = f"Try {step} again" if step else "Compute again what the run gives"
    return f"{what}; what was done before is not repeated.{money}{approval}"


def _no_money(run: Run) -> bool:
    return run.error is not None and run.error.code == "BUDGET_EXCEEDED"


def _undo(run: Run) -> Remedy:
    steps, impossible = undo.preview(run)
    what = (
        f"Take back what the run changed: {', '.join(steps)}." if steps else "Close it: it changed nothing."
    )
    if impossible:
        what = f"{what if steps else ''} Can't be taken back: {', '.join(impossible)}.".strip()
    return Remedy(action="undo", what=what, again=[])
