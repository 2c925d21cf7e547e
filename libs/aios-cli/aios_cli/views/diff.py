"""Two runs side by side, as a person reads it in a terminal."""

import difflib
import json
from collections.abc import Iterable
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from aios.api.v1 import api_pb2
from aios.run.v1.state_pb2 import StepState
from aios_cli import shapes, words
from aios_cli.views import story
from aios_core.wording import counted

MAX_LINES: Final = 40  # of one output's difference


def side_by_side(answer: api_pb2.DiffRunsResponse) -> RenderableType:
    """How each step went in one and in the other; below it what is different in what they gave and changed."""
    one, other = answer.run, answer.other
    parts: list[RenderableType] = [story.heading(one), story.heading(other), Text()]
    grid = Table.grid(padding=(0, 2))
    grid.add_column(overflow="fold", style="bold")
    for _ in range(2):
        grid.add_column(overflow="fold")
    grid.add_column(overflow="fold", style="dim")
    grid.add_row("", words.short(one.run_id), words.short(other.run_id), "")
    for step in answer.steps:
        grid.add_row(
            words.clean(step.step), *(_cell(step, side) for side in ("one", "other")), _verdict(step)
        )
    grid.add_row("in all", _total(one), _total(other), "")
    parts.append(grid)
    for step in answer.steps:
        parts += _detail(step)
    if answer.cut:
        parts += [Text(), Text("There are more steps; --json of each run has them all.", style="dim")]
    return Group(*parts)


def _cell(step: api_pb2.StepDiff, side: str) -> Text:
    if not step.HasField(side):  # type: ignore[arg-type]
        return Text("–", style="dim")
    facts: api_pb2.StepFacts = getattr(step, side)
    if facts.reused:
        return Text("taken over", style="dim")
    what = [_STATES[facts.state]]
    what += [f"${words.dollars(facts.cost_micros)}"] if facts.cost_micros else []
    what += [words.duration(facts.duration_ms)] if facts.duration_ms else []
    what += [counted(len(facts.changes), "change")] if facts.changes else []
    return Text(", ".join(filter(None, what)), style="red" if facts.state in _BAD else "")


def _verdict(step: api_pb2.StepDiff) -> str:
    different = [] if step.same_output else ["output"]
    different += [] if step.same_changes else ["changes"]
    return f"other {' and '.join(different)}" if different else "same"


def _total(run: api_pb2.Run) -> str:
    took = words.duration(run.update_time_ms - run.create_time_ms)
    return ", ".join(filter(None, [f"${words.dollars(run.cost_micros)}", took]))


def _detail(step: api_pb2.StepDiff) -> Iterable[RenderableType]:
    """What is different in a step, line by line."""
    lines: list[Text] = []
    for facts in (step.one, step.other):
        if facts.error_message:
            lines.append(Text(f"  {words.clean(facts.error_message)} [{facts.error_code}]", style="red"))
    if not step.same_output:
        lines += _output_lines(step)
    if not step.same_changes:
        for sign, facts in (("−", step.one), ("+", step.other)):
            lines += [Text(f"  {sign} ").append_text(story.change_line(change)) for change in facts.changes]
    return [Text(), Text(words.clean(step.step), style="bold"), *lines] if lines else []


def _output_lines(step: api_pb2.StepDiff) -> list[Text]:
    if step.one.output_left_out or step.other.output_left_out:
        return [Text("  what it gave is too large to be shown here", style="dim")]
    before, after = (_lines(facts) for facts in (step.one, step.other))
    lines = [
        line
        for line in difflib.unified_diff(before, after, lineterm="", n=1)
        if line[:3] not in ("---", "+++")
    ]
    shown = [
        Text(f"  {words.clean(line)}", style={"-": "red", "+": "green"}.get(line[:1], "dim"))
        for line in lines[:MAX_LINES]
        if not line.startswith("@@")
    ]
    return [*shown, Text("  …", style="dim")] if len(lines) > MAX_LINES else shown


def _lines(facts: api_pb2.StepFacts) -> list[str]:
    if not facts.HasField("output"):
        return []
    data = shapes.value_json(facts.output)
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False, indent=1)
    return [part for line in text.split("\n") for part in line.replace("\\n", "\n").split("\n")]


_STATES: Final = {
    StepState.STEP_STATE_PENDING: "has not begun",
    StepState.STEP_STATE_DISPATCHED: "under way",
    StepState.STEP_STATE_RUNNING: "under way",
    StepState.STEP_STATE_WAITING: "waits",
    StepState.STEP_STATE_GATED: "asked a person",
    StepState.STEP_STATE_SUCCEEDED: "done",
    StepState.STEP_STATE_SKIPPED: "left out",
    StepState.STEP_STATE_FAILED: "failed",
    StepState.STEP_STATE_UNKNOWN: "nobody knows",
    StepState.STEP_STATE_CANCELLED: "stopped",
    StepState.STEP_STATE_UNDOING: "is being undone",
    StepState.STEP_STATE_UNDONE: "undone",
    StepState.STEP_STATE_UNDO_CONFLICT: "could not be undone",
    StepState.STEP_STATE_REDOING: "is being put back",
}
_BAD: Final = (
    StepState.STEP_STATE_FAILED,
    StepState.STEP_STATE_UNKNOWN,
    StepState.STEP_STATE_UNDO_CONFLICT,
)
