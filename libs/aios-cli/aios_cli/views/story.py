"""The story of a run as a person reads it in a terminal."""

from collections.abc import Sequence
from datetime import tzinfo
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from aios.api.v1 import api_pb2
from aios.run.v1.state_pb2 import RunState
from aios.task.v1.task_pb2 import Change, Mode
from aios_cli import shapes, words
from aios_core.wording import counted

MAX_CHANGES: Final = 12  # changes that one line of the story lists
MAX_WHY_CHARS: Final = 400
MAX_INPUT_CHARS: Final = 40

_ICONS: Final = {
    "ok": ("✓", "green"),
    "waiting": ("●", "yellow"),
    "working": ("→", "cyan"),
    "problem": ("✗", "red"),
    "undone": ("↶", "blue"),
    "info": ("·", "dim"),
}
_SIGNS: Final = {
    "create": ("+", "green"),
    "update": ("~", "yellow"),
    "delete": ("-", "red"),
    "append": ("+", "green"),
}
_STATE_STYLES: Final = {
    RunState.RUN_STATE_SUCCEEDED: "green",
    RunState.RUN_STATE_FAILED: "red",
    RunState.RUN_STATE_UNDONE: "blue",
    RunState.RUN_STATE_PARTLY_UNDONE: "blue",
    RunState.RUN_STATE_UNDO_INCOMPLETE: "red",
}


def story(
    run: api_pb2.Run, entries: Sequence[api_pb2.TimelineEntry], zone: tzinfo | None = None
) -> RenderableType:
    """The run from its beginning: who did what and why, what changed, how long it took and what it cost."""
    parts: list[RenderableType] = [heading(run), Text()]
    today = ""
    for item in entries:
        day = words.day(item.time_ms, zone)
        if day != today:
            parts.append(Text(day, style="dim"))
            today = day
        parts.append(line(item, zone))
    parts += [Text(), footing(run)]
    return Group(*parts)


def heading(run: api_pb2.Run) -> Text:
    """Which run, for what, and how it stands."""
    waits = bool(run.pending_approvals)
    simulated = run.mode == Mode.MODE_SIMULATE
    text = Text(words.clean(run.workflow), style="bold")
    if inputs := _inputs(run):
        text.append(f"  {inputs}", style="not bold")
    text.append(f"  run {words.short(run.run_id)}  ", style="not bold dim")
    style = "yellow" if waits else _STATE_STYLES.get(run.state, "cyan")
    text.append(words.run_words(run.state, waits, simulated), style=f"not bold {style}")
    if mode := shapes.work_mode(run.work_mode):
        text.append(f"  {mode}", style="not bold dim")
    if run.late_time_ms:
        text.append("  late", style="not bold red")
    return text


def line(item: api_pb2.TimelineEntry, zone: tzinfo | None = None) -> Table:
    """One line of the story with its reasons and changes below it."""
    icon, style = _ICONS.get(item.tone, ("·", "dim"))
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(width=8, no_wrap=True, style="dim")
    table.add_column(width=1, no_wrap=True)
    table.add_column(ratio=1, overflow="fold")
    table.add_column(justify="right", no_wrap=True, style="dim")
    what = Text(words.clean(item.who), style="bold")
    what.append(
        " " + words.clean(item.what), style="not bold" if item.tone not in ("problem", "waiting") else style
    )
    table.add_row(words.clock(item.time_ms, zone), Text(icon, style=style), what, _spent(item))
    if item.why:
        table.add_row("", "", Text(_shortened(words.clean(item.why), MAX_WHY_CHARS), style="dim"), "")
    for change in item.changes[:MAX_CHANGES]:
        table.add_row("", "", change_line(change), "")
    if len(item.changes) > MAX_CHANGES:
        table.add_row("", "", Text(f"and {len(item.changes) - MAX_CHANGES} more changes", style="dim"), "")
    return table


def change_line(change: Change) -> Text:
    """One change: its sign, its place, its size."""
    sign, style = _SIGNS.get(change.verb, ("~", "yellow"))
    text = Text(f"{sign} ", style=style)
    text.append(words.clean(change.resource.removeprefix("file:")), style="default")
    if change.size:
        text.append(f"  {words.size(change.size)}", style="dim")
    if change.note:
        text.append(f"  {words.clean(change.note)}", style="dim")
    return text


def footing(run: api_pb2.Run) -> Text:
    """What it took and cost, and how to find its trace."""
    text = Text(style="dim")
    spent = words.duration(run.update_time_ms - run.create_time_ms)
    text.append(f"took {spent or 'no time'} · cost ${words.dollars(run.cost_micros)}")
    if deadline := run.limits.deadline_ms:
        passed = ", which has passed" if run.overdue else ""
        text.append(f"\ndeadline {words.day(deadline, None)}, {words.clock(deadline, None)}{passed}")
    if run.error_message:
        text.append(f"\n{words.clean(run.error_message)} [{run.error_code}]", style="not dim red")
    if run.superseded_by:
        text.append(f"\nrun {words.short(run.superseded_by)} took its place")
    if run.trace_id:
        text.append(f"\ntrace {run.trace_id}")
    return text


def outputs(run: api_pb2.Run) -> Table | None:
    """The results of a run, one a line; long ones are shortened."""
    if not run.HasField("outputs"):
        return None
    data = shapes.value_json(run.outputs)
    if not isinstance(data, dict) or not data:
        return None
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in data.items():
        table.add_row(words.clean(name), _shortened(words.clean(_in_words(value)), 200))
    return table


def _in_words(value: object) -> str:
    if isinstance(value, dict):
        if "$artifact" in value:
            return f"{value.get('name') or 'a document'} ({words.size(int(value.get('size') or 0))})"
        return ", ".join(f"{key} {_in_words(item)}" for key, item in value.items()) or "none"
    if isinstance(value, list):
        return counted(len(value), "entry").replace("entrys", "entries") if value else "none"
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    return str(value)


def _inputs(run: api_pb2.Run) -> str:
    if not run.HasField("input"):
        return ""
    data = shapes.value_json(run.input)
    if not isinstance(data, dict):
        return ""
    plain = [
        str(value) for value in data.values() if isinstance(value, str | int) and not isinstance(value, bool)
    ]
    return _shortened(words.clean(" · ".join(plain)), MAX_INPUT_CHARS)


def _spent(item: api_pb2.TimelineEntry) -> str:
    parts = [words.duration(item.duration_ms)]
    if item.cost_micros:
        parts.append(f"${words.dollars(item.cost_micros)}")
    return " ".join(part for part in parts if part)


def _shortened(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
