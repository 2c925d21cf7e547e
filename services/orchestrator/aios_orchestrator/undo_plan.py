"""What an undo, or the undo of one, would do: change by change, as far as the run itself can tell. Pure."""

from collections.abc import Collection, Iterator

from aios.run.v1 import state_pb2 as st
from aios.run.v1.queries_pb2 import PlannedUndo
from aios.run.v1.state_pb2 import UndoItem
from aios_core.errors import TerminalError
from aios_orchestrator.core import compensate, undo
from aios_orchestrator.core.chosen import named
from aios_orchestrator.core.draft import Draft
from aios_orchestrator.model import Run, StepRun
from aios_orchestrator.workflow import Workflow

FINAL = {
    "irreversible": "it can't be taken back",
    "payment": "it is a payment; undo brings no money back",
    "legal": "it binds the company, and stays done",
}
MAX_CHANGES = 3  # of one step that are told


def plan(run: Run, workflow: Workflow, chosen: Collection[str], *, redo: bool) -> Iterator[PlannedUndo]:
    """In the order in which it would be done, then what can't be. Raises INVALID_ARGUMENT for a chosen step that the
    run does not have."""
    if redo:
        yield from (_planned(run, workflow, name, along=False) for name in undo.redo_preview(run))
        return
    only = undo.closure(run, workflow, chosen)
    own = set(named(run, workflow, chosen)) if chosen else set()
    steps, impossible = undo.preview(run, only)
    for name in steps:
        yield _made_good(run, workflow, _planned(run, workflow, name, along=_along(name, own)))
    for name in impossible:
        planned = _planned(run, workflow, name, along=_along(name, own))
        planned.ClearField("undo_token")
        planned.item.verdict = st.UNDO_VERDICT_IMPOSSIBLE
        grade = workflow.at(name).grade
        planned.item.why = FINAL.get(grade, "it has no inverse")
        yield planned
    for step in run.steps.values():
        unknown = step.state == st.STEP_STATE_UNKNOWN or (
            step.error is not None and step.error.code == "OUTCOME_UNKNOWN" and not step.effect_order
        )
        if unknown and workflow.at(step.name).effect and (only is None or step.name in only):
            yield _unknown(run, workflow, step, along=_along(step.name, own))


def _along(name: str, own: Collection[str]) -> bool:
    """Whether it was not chosen; what is inside of a chosen step was."""
    inside = any(name.startswith((f"{chosen}.", f"{chosen}[")) for chosen in own)
    return bool(own) and name not in own and not inside


def _planned(run: Run, workflow: Workflow, name: str, *, along: bool) -> PlannedUndo:
    step, definition = run.at(name), workflow.at(name)
    item = UndoItem(
        step=name,
        target=definition.target,
        summary=step.summary,
        verdict=st.UNDO_VERDICT_UNASKED,
        changes=step.changes[:MAX_CHANGES],
        along=along,
    )
    return PlannedUndo(item=item, lane=definition.lane, undo_token=step.undo_token)


def _made_good(run: Run, workflow: Workflow, planned: PlannedUndo) -> PlannedUndo:
    """With what is run in the place of the inverse, if the document names anything: whether the change still stands is
    not asked then."""
    item, step = planned.item, run.at(planned.item.step)
    if not step.compensates:
        return planned
    planned.ClearField("undo_token")
    try:
        instead = compensate.of(Draft(run, workflow, run.update_time, ""), step, 1)
    except TerminalError as error:
        item.verdict = st.UNDO_VERDICT_IMPOSSIBLE
        item.why = f"what would make it good can't be worked out: {error.message}"
        return planned
    if instead is not None:
        item.instead, item.instead_input = instead.target, instead.input
        item.why = f"{instead.target} makes it good"
    return planned


def _unknown(run: Run, workflow: Workflow, step: StepRun, *, along: bool) -> PlannedUndo:
    planned = _planned(run, workflow, step.name, along=along)
    planned.ClearField("undo_token")
    planned.item.verdict = st.UNDO_VERDICT_UNKNOWN
    planned.item.why = "nobody knows whether it happened; answer the question about it, or look at it"
    return planned


def refused(run: Run, *, redo: bool) -> None:
    """Raises what the request itself would be refused with: RUN_CLOSED."""
    if not run.closed:
        raise TerminalError("RUN_CLOSED", f"Run {run.run_id} is under way; there is nothing to see yet.")
    if redo and not undo.redo_preview(run):
        raise TerminalError("RUN_CLOSED", f"Nothing of run {run.run_id} is undone, so nothing is put back.")
