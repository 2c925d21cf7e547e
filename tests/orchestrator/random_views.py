"""What is shown of a run, whatever has become of it: no page fails, and what is said beforehand is what is done."""

import io

from rich.console import Console

from aios.run.v1.events_pb2 import RunEvent
from aios.task.v1.task_pb2 import MODE_SIMULATE
from aios_cli.views import approval as approval_page
from aios_cli.views import failure as failure_page
from aios_cli.views import preview
from aios_cli.views import story as story_page
from aios_core.errors import AiosError
from aios_gateway import diff, views
from aios_gateway.story import tell
from aios_memory.narration import episode_of
from aios_orchestrator import drawing, failures, undo_plan
from aios_orchestrator.codec import head_of
from aios_orchestrator.core import undo
from aios_orchestrator.core.decide import Decision
from aios_orchestrator.core.recover import Recover
from aios_orchestrator.explaining import explain
from aios_orchestrator.queries import shown_of_rounds
from tests.orchestrator.random_world import SEEN, World


def looked_at(run: World) -> None:
    """Every page and list on which a run stands."""
    events = [RunEvent.FromString(data) for data in run.history]
    lines = tell(events)
    assert all(line.who and line.what for line in lines)
    assert all(episode_of(data).what for data in run.history)
    shown = views.run_of(head_of(run.run))
    printed(story_page.story(shown, lines))
    facts = diff.facts(events)
    assert all(step.same_output and step.same_changes for step in diff.steps(facts, facts)[0])
    assert len(diff.steps(facts, {})[0]) == len(facts)
    for owner, names in shown_of_rounds(run.run).items():
        assert owner in run.run.steps or owner in run.workflow.steps, names
    explain(run.workflow)
    assert drawing.outline(run.workflow) and drawing.mermaid(run.workflow) and drawing.svg(run.workflow)
    for approval in run.run.approvals.values():
        printed(approval_page.approval(approval, (), run.now))
        assert preview.page(approval, ())
    _failure(run)
    _undo(run)


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


def printed(page: object) -> str:
    out = io.StringIO()
    Console(file=out, width=100).print(page)
    return out.getvalue()
