"""What undo runs for a step in the place of the recorded inverse: an action that the document names, once, under an
effect key of its own. See docs/adr/0016-compensation-needs-its-own-consent.md for who consents to it."""

from aios.run.v1 import state_pb2 as st
from aios.run.v1.state_pb2 import Compensation
from aios.task.v1.task_pb2 import MODE_EXECUTE, ApprovalBinding, Outcome, Task
from aios_core.encoding import encode
from aios_core.hashing import sha256
from aios_core.ids import effect_key
from aios_orchestrator.core.draft import Draft
from aios_orchestrator.model import Run, StepRun
from aios_orchestrator.workflow import Step, Workflow


def of(draft: Draft, step: StepRun, attempt: int) -> Compensation | None:
    """What is to be run to take a step back; None: its inverse. Raises what its expressions get wrong.

    Attempts share one; a new undo has the same one again unless it is sure that the one before was not made."""
    declared = draft.workflow.at(step.name).compensate
    if declared is None or not step.compensates:
        return None
    known = step.compensation
    if known is None:
        value = declared.input.evaluate(draft.look_from(draft.workflow.at(step.name).scope))
        return Compensation(
            number=1, target=declared.target, input=encode(value), attempt_group=step.attempt_group
        )
    if attempt > 1 or not _surely_open(step):
        return known
    other = Compensation()
    other.CopyFrom(known)
    other.number += 1
    return other


def _surely_open(step: StepRun) -> bool:
    """Whether the compensation before was surely not made: it failed, or a person saw that it had not happened."""
    if step.state == st.STEP_STATE_UNDO_CONFLICT:
        return step.error is None or step.error.code != "OUTCOME_UNKNOWN"
    return step.state == st.STEP_STATE_PENDING


def running(step: StepRun) -> Compensation | None:
    """The compensation of a step that is being undone, if it is undone by one."""
    under_way = step.state in (st.STEP_STATE_UNDOING, st.STEP_STATE_UNKNOWN)
    return step.compensation if under_way and step.compensates else None


def key_of(run: Run, step: StepRun, compensation: Compensation) -> str:
    """The effect key of a compensation: apart from that of the step's own effect."""
    return effect_key(run.run_id, step.effect_name, compensation.number, compensation.attempt_group)


def is_of(run: Run, outcome: Outcome) -> bool:
    """Whether an outcome is that of a compensation that is awaited."""
    step = run.steps.get(outcome.step)
    compensation = running(step) if step is not None else None
    return (
        step is not None and compensation is not None and outcome.task_id == key_of(run, step, compensation)
    )


def bind(task: Task, run: Run, step: StepRun, compensation: Compensation) -> None:
    """Make the task of an undo that of a compensation. A person who asked for the undo consents to it; an undo that
    began by itself brings no consent."""
    task.task_id, task.mode = key_of(run, step, compensation), MODE_EXECUTE
    task.target, task.input, task.undo_token = compensation.target, compensation.input, b""
    if run.undo_by.startswith("person:"):
        task.approval.CopyFrom(
            ApprovalBinding(
                approval_id=f"undo-{run.run_id}-{run.undo_group}",
                arguments_sha256=sha256(compensation.input),
                policy_version=run.workflow_version,
                approver=run.undo_by,
            )
        )


def lane_of(run: Run, workflow: Workflow, name: str) -> str:
    """Where the present task of a step goes."""
    step: Step = workflow.at(name)
    if step.compensate is None:
        return step.lane
    return step.compensate.lane if running(run.at(name)) is not None else step.lane
