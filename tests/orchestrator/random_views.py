"""What is shown of a run, whatever has become of it: no page fails, and what is said beforehand is what is done."""

import io
from collections.abc import Mapping, Sequence
from typing import Final

import yaml
from rich.console import Console

from aios.api.v1 import api_pb2
from aios.api.v1.api_pb2 import TimelineEntry
from aios.run.v1.events_pb2 import RunEvent
from aios.run.v1.state_pb2 import APPROVAL_KIND_BUDGET, APPROVAL_KIND_SPIKE
from aios.run.v1.state_pb2 import RunState as R
from aios.run.v1.state_pb2 import StepState as S
from aios.task.v1.task_pb2 import MODE_SIMULATE
from aios_cli.recording import recorded
from aios_cli.views import approval as approval_page
from aios_cli.views import diff as diff_page
from aios_cli.views import failure as failure_page
from aios_cli.views import preview
from aios_cli.views import story as story_page
from aios_core.errors import AiosError, TerminalError
from aios_core.step_names import renamed
from aios_gateway import diff, views
from aios_gateway.facts import Facts, facts
from aios_gateway.story import tell
from aios_gateway.story_words import worker
from aios_memory.narration import episode_of
from aios_orchestrator import drawing, failures, undo_plan
from aios_orchestrator.cases import cases_of
from aios_orchestrator.codec import head_of
from aios_orchestrator.core import undo
from aios_orchestrator.core.decide import Decision
from aios_orchestrator.core.recover import Recover
from aios_orchestrator.document import parse_plain
from aios_orchestrator.explaining import explain
from aios_orchestrator.queries import shown_of_rounds
from aios_orchestrator.rehearsing import rehearse
from aios_orchestrator.workflow import WORK, Step, Workflow
from tests.orchestrator.random_world import SEEN, World


def looked_at(run: World) -> None:
    """Every page and list on which a run stands."""
    events = [RunEvent.FromString(data) for data in run.history]
    lines = tell(events)
    assert all(line.who and line.what for line in lines)
    assert all(episode_of(data).what for data in run.history)
    shown = views.run_of(head_of(run.run))
    printed(story_page.story(shown, lines))
    _story(run, events, lines)
    _facts(run, events)
    for owner, names in shown_of_rounds(run.run).items():
        assert owner in run.run.steps or owner in run.workflow.steps, names
    explain(run.workflow)
    assert drawing.outline(run.workflow) and drawing.mermaid(run.workflow) and drawing.svg(run.workflow)
    for approval in run.run.approvals.values():
        printed(approval_page.approval(approval, (), run.now))
        assert preview.page(approval, ())
    _stands(run)
    _failure(run)
    _undo(run)


def compared(run: World, other: World) -> None:
    """A run beside its fork: what the fork took over is as it was, and what differs is told."""
    events, others = ([RunEvent.FromString(data) for data in of.history] for of in (run, other))
    for event in others:
        reused = event.step_reused
        if event.HasField("step_reused") and not reused.skipped:
            assert reused.output == run.run.at(reused.step).output, reused.step
    steps, _ = diff.steps(facts(events), facts(others))
    assert {step.step for step in steps} >= {step.name for step in other.run.steps.values() if step.end}
    shown = [views.run_of(head_of(of.run)) for of in (run, other)]
    printed(diff_page.side_by_side(api_pb2.DiffRunsResponse(run=shown[0], other=shown[1], steps=steps)))


PURE: Final = ("transform", "branch")  # nobody does them
QUIET: Final = (S.STEP_STATE_PENDING, S.STEP_STATE_SKIPPED, S.STEP_STATE_CANCELLED)
NOT_BACK: Final = ("undo_conflicted", "redo_conflicted")
DID: Final = (
    *NOT_BACK,
    "step_succeeded",
    "step_failed",
    "step_retry_scheduled",
    "step_undone",
    "step_redone",
)
BESIDE: Final = ("deadline_passed", "became_late", "step_redispatched", "plan_revision_dropped")
HOW: Final[dict[int, tuple[str, ...]]] = {
    S.STEP_STATE_PENDING: ("ok", "info", "problem", "undone", "waiting"),
    S.STEP_STATE_DISPATCHED: ("working",),
    S.STEP_STATE_RUNNING: ("working", "info", "problem"),
    S.STEP_STATE_WAITING: ("working", "problem"),
    S.STEP_STATE_GATED: ("waiting", "problem", "info", "ok"),  # decided, and the run stops
    S.STEP_STATE_SUCCEEDED: ("ok",),
    S.STEP_STATE_FAILED: ("problem", "ok"),  # ok: a person saw that it did not happen
    S.STEP_STATE_UNKNOWN: ("waiting",),
    S.STEP_STATE_UNDOING: ("working", "problem"),
    S.STEP_STATE_REDOING: ("working", "problem"),
    S.STEP_STATE_UNDONE: ("undone",),
    S.STEP_STATE_UNDO_CONFLICT: ("problem",),
}


def _story(run: World, events: list[RunEvent], lines: list[TimelineEntry]) -> None:
    """What a story tells last of a step is how it stands and who did that; what it says that was paid was paid."""
    for said in (lines, [episode_of(data) for data in run.history]):
        assert sum(line.cost_micros for line in said) == run.run.settled
    kinds = {event.sequence: event.WhichOneof("body") for event in events}
    names = [
        (event.sequence, event.run_migrated.renamed) for event in events if event.HasField("run_migrated")
    ]
    last = dict[str, TimelineEntry]()
    for line in lines:
        if line.step and kinds[line.sequence] not in BESIDE:
            last[now_called(line, names)] = line
    for name, step in run.run.steps.items():
        line, kind = last.get(name), run.workflow.at(name).kind
        if kind in PURE or name.endswith((".draft", ".approve")):
            continue
        if line is None:
            assert kind not in WORK or step.state in QUIET, (
                f"{name}: {S.Name(step.state)}, and nothing is told"
            )
            continue
        how = HOW.get(step.state, ("ok", "info", "problem", "undone", "waiting"))
        how += (
            ("problem",) if kinds[line.sequence] in NOT_BACK else ()
        )  # it stood, or was undone, and so it does again
        if kinds[line.sequence] in DID and run.run.fork is None:
            nobody = ("AIOS",) * (kinds[line.sequence] == "step_failed")  # it failed before it began
            assert line.who in (*doers(run.workflow.at(name)), *nobody), (
                f"{name}: it is told that {line.who} did it"
            )
        assert line.tone in how, f"{name}: {S.Name(step.state)}, and it is told that {line.who} {line.what}"


def doers(step: Step) -> list[str]:
    """Who does a step, or makes it good."""
    if step.kind not in WORK:
        return ["AIOS"]
    return [worker(step.target), *([worker(step.compensate.target)] if step.compensate is not None else [])]


def now_called(line: TimelineEntry, names: Sequence[tuple[int, Mapping[str, str]]]) -> str:
    name = line.step
    for at, renamings in names:
        name = renamed(name, renamings) if line.sequence < at else name
    return name


def _facts(run: World, events: list[RunEvent]) -> None:
    """What a comparison shows of a run is how the run stands."""
    found = facts(events)
    assert all(step.same_output and step.same_changes for step in diff.steps(found, found)[0])
    assert len(diff.steps(found, {})[0]) == len(found)
    for name, step in run.run.steps.items():
        shown = found.get(name, Facts())
        stands = (step.state, step.cost, step.output if step.state == S.STEP_STATE_SUCCEEDED else b"")
        told = (shown.state, shown.cost, shown.output if shown.state == S.STEP_STATE_SUCCEEDED else b"")
        assert stands == told, f"{name}: {stands}, and {told} is shown"
    pending = [name for name in found if name not in run.run.steps]
    assert all(found[name].state == S.STEP_STATE_PENDING for name in pending), pending


def _stands(run: World) -> None:
    """What is told to stand is what stands in the world, where anybody knows."""
    told = {effect.step for effect in failures.standing(run.run, run.workflow)}
    unknown = {*run.left, *run.unsure, *(outcome.step for outcome in run.flying)}
    under_way = {step.name for step in run.run.lively()}
    stands = {name for name, times in run.stands.items() if times}
    assert told - unknown - under_way == stands - unknown - under_way, told ^ stands


def _failure(run: World) -> None:
    failed = failures.failure_of(run.run, run.workflow)
    if failed is None:
        return
    SEEN["showed a failure"] += 1
    failed.blast.effects.extend(failures.standing(run.run, run.workflow))
    failed.remedies.extend(failures.remedies(run.run, run.workflow, run.now))
    assert [remedy.suggested for remedy in failed.remedies].count(True) == 1
    assert all(remedy.what for remedy in failed.remedies)
    printed(failure_page.failure(failed, run.now))


def _undo(run: World) -> None:
    if not run.run.closed or run.run.mode == MODE_SIMULATE:
        return
    SEEN["showed an undo"] += 1
    steps, impossible = undo.preview(run.run)
    planned = [item.item.step for item in undo_plan.plan(run.run, run.workflow, (), redo=False)]
    assert planned[: len(steps) + len(impossible)] == [*steps, *impossible]
    again = [item.item.step for item in undo_plan.plan(run.run, run.workflow, (), redo=True)]
    assert again == undo.redo_preview(run.run)


def recovered(run: World, what: Recover) -> Decision:
    """Has the run go on, as the preview said, or is refused as it was."""
    before, again = "", list[str]()
    try:
        again = failures.preview(run.run, run.workflow, what, run.now)
    except AiosError as error:
        before = error.code
    decision = run.give(what)
    assert before == (decision.refusal.code if decision.refusal is not None else "")
    done = set[str]()
    for data in decision.events:
        event = RunEvent.FromString(data)
        done.update(event.run_reopened.again, event.undo_requested.steps)
    assert set(again) <= done
    return decision


# What a run can't be recorded for: what somebody did to it, what took time, money, and what nobody knew.
NOT_IN_A_TEST: Final = {
    *("run_reopened", "run_migrated", "plan_revision_requested", "redo_requested", "approval_edited"),
    *("deadline_passed", "step_retry_scheduled", "step_unknown", "wait_started"),
}
ENDED: Final = (R.RUN_STATE_SUCCEEDED, R.RUN_STATE_FAILED, R.RUN_STATE_CANCELLED)


def written_down(run: World, of: Workflow) -> None:
    """A run of a workflow is a test of it, unless there is a reason why it can't be one."""
    events = [RunEvent.FromString(data) for data in run.history]
    shown = api_pb2.Run(run_id=run.run.run_id, state=run.run.state)
    excused = not_in_a_test(events)
    try:
        test = recorded(events, of, shown)
    except TerminalError as error:
        if error.code != "NOT_RECORDABLE" or (run.run.state in ENDED and not excused):
            raise
        SEEN["could not be recorded"] += 1
        return
    SEEN["recorded"] += 1
    (case,) = cases_of(parse_plain(yaml.safe_dump([test], sort_keys=False).encode(), "t.yaml"))
    told = rehearse(of, case)
    assert not told.problems, told.problems
    if run.run.state == R.RUN_STATE_SUCCEEDED and not excused:
        ran = {name: step["gave"] for name, step in told.steps.items()}
        assert set(ran) == set(run.run.steps), set(ran) ^ set(run.run.steps)


def not_in_a_test(events: list[RunEvent]) -> bool:
    before = ""
    for event in events:
        kind = event.WhichOneof("body") or ""
        cancelled = kind == "cancel_requested" and before != "approval_decided"
        undone = kind == "undo_requested" and not event.undo_requested.HasField("cause")
        asked = event.approval_requested.approval.kind in (APPROVAL_KIND_BUDGET, APPROVAL_KIND_SPIKE)
        if kind in NOT_IN_A_TEST or cancelled or undone or asked:
            return True
        before = kind
    return False


def printed(page: object) -> str:
    out = io.StringIO()
    Console(file=out, width=100, highlight=False, markup=False, emoji=False).print(page)
    return out.getvalue()
