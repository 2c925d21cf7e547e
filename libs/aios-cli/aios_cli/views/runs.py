"""Runs in lists, and what a run leads to."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from aios.api.v1 import api_pb2
from aios.run.v1.state_pb2 import RunState
from aios.task.v1.task_pb2 import Mode
from aios_cli import words
from aios_cli.views import story
from aios_runtime.run_states import ENDED


def table(runs: Sequence[api_pb2.Run], now_ms: int) -> Table:
    """One run a line."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, style="bold")
    grid.add_column(overflow="fold")
    grid.add_column(overflow="fold")
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True, style="dim")
    grid.add_column(no_wrap=True, justify="right", style="dim")
    for run in runs:
        waits = bool(run.pending_approvals)
        late = " · late" if run.late_time_ms else ""
        state = words.run_words(run.state, waits, run.mode == Mode.MODE_SIMULATE) + late
        if run.queue_place:
            state = f"{state}, place {run.queue_place}"
        style = "yellow" if waits else "red" if run.state == RunState.RUN_STATE_FAILED else ""
        cost = f"${words.dollars(run.cost_micros)}" if run.cost_micros else ""
        grid.add_row(
            words.short(run.run_id),
            words.clean(run.workflow),
            words.clean(run.concurrency_key if run.concurrency_key != "*" else "").replace("/", " · "),
            Text(state, style=style),
            words.ago(run.create_time_ms, now_ms),
            cost,
        )
    return grid


def result(run: api_pb2.Run) -> RenderableType:
    """The results of a run that has ended, and what a person can do next."""
    parts: list[RenderableType] = []
    if run.state == RunState.RUN_STATE_SUCCEEDED and (outputs := story.outputs(run)) is not None:
        parts += [Text(), outputs]
    if todo := next_step(run):
        parts += [Text(), Text(todo, style="dim")]
    return Group(*parts)


def next_step(run: api_pb2.Run) -> str:
    """What the person may type now."""
    name = words.short(run.run_id)
    if run.pending_approvals and run.state not in ENDED:
        waiting = words.short(run.pending_approvals[0])
        return f"It waits for you: aios approval show {waiting}"
    if run.mode == Mode.MODE_SIMULATE:
        return "Nothing was written."
    if run.state == RunState.RUN_STATE_SUCCEEDED:
        return f"To take it back: aios run undo {name}"
    if run.state == RunState.RUN_STATE_FAILED:
        return f"See what you can do about it: aios failure show {name}"
    if run.state == RunState.RUN_STATE_UNDO_INCOMPLETE:
        return f"See what was left alone, and what you can do: aios failure show {name}"
    if run.state in (RunState.RUN_STATE_UNDONE, RunState.RUN_STATE_PARTLY_UNDONE):
        return f"To put back what was undone: aios run redo {name}"
    return ""
