"""What failed: by cause in a list, and one of them whole."""

from collections.abc import Sequence
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from aios.run.v1.state_pb2 import Failure, Remedy
from aios_cli import words
from aios_core.wording import counted

MAX_RUNS: Final = 5  # of one cause that a list names
_ACTION: Final = {
    "retry": "aios failure retry {run}",
    "skip": "aios failure skip {run}",
    "edit": "aios failure edit {run} --input KEY=VALUE",
    "rewind": "aios failure rewind {run} --to STEP",
    "replan": "aios plan revise {run} --note WHY",
    "undo": "aios failure undo {run}",
    "redo": "aios run redo {run}",
}


def by_cause(found: Sequence[Failure], now_ms: int) -> RenderableType:
    """One cause a line, the newest first."""
    causes: dict[str, list[Failure]] = {}
    for item in found:
        causes.setdefault(item.cause, []).append(item)
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, style="bold")
    for _ in range(3):
        grid.add_column(overflow="fold")
    grid.add_column(no_wrap=True, style="dim")
    for cause, items in causes.items():
        first = items[0]
        runs = ", ".join(words.short(item.run_id) for item in items[:MAX_RUNS])
        more = f" and {len(items) - MAX_RUNS} more" if len(items) > MAX_RUNS else ""
        where = f"{first.workflow} · {_where(first)}"
        what = (
            f"{words.FAILURES.get(first.failure_class, 'failed')}: {first.error.message} [{first.error.code}]"
        )
        grid.add_row(
            words.short(cause),
            words.clean(where),
            Text(words.clean(what), style="red"),
            f"{counted(len(items), 'run')}: {runs}{more}",
            words.ago(first.time_ms, now_ms),
        )
    return grid


def failure(item: Failure, now_ms: int) -> RenderableType:
    """Why, how far, and what can be done."""
    remedies = {remedy.action for remedy in item.remedies}
    failed = "could not be undone at" if "redo" in remedies else "failed at"
    where = f"{item.workflow} {failed} {_where(item)}"
    parts: list[RenderableType] = [
        Text(words.clean(where), style="bold red"),
        Text(words.clean(f"{item.error.message} [{item.error.code}]")),
        Text(
            f"{words.FAILURES.get(item.failure_class, 'failed')} · {words.ago(item.time_ms, now_ms)} · "
            f"cause {words.short(item.cause)}",
            style="dim",
        ),
    ]
    others = len(item.blast.runs) - 1
    if others > 0:
        more = "more than " if item.blast.more else ""
        parts += [Text(), Text(f"The same failed {more}{counted(others, 'other run')}.")]
    for effect in item.blast.effects:
        stays = "" if effect.undoable else ", can't be taken back"
        line = f"  stands: {effect.summary or effect.step} ({words.short(effect.run_id)}{stays})"
        parts.append(Text(words.clean(line), style="yellow"))
    parts += [Text(), Text("What you can do", style="bold")]
    for remedy in item.remedies:
        parts += _remedy(remedy, words.short(item.run_id))
    if others > 0:
        parts.append(Text(f"For all of them: --all-of {words.short(item.cause)}", style="dim"))
    return Group(*parts)


def _remedy(remedy: Remedy, run: str) -> list[RenderableType]:
    command = _ACTION.get(remedy.action, remedy.action).format(run=run)
    mark = "→" if remedy.suggested else " "
    if remedy.refused:
        return [Text(words.clean(f"  {remedy.action}: not now. {remedy.refused}"), style="dim")]
    style = "green" if remedy.suggested else ""
    return [Text(f"{mark} {command}", style=style), Text(words.clean(f"    {remedy.what}"))]


def _where(item: Failure) -> str:
    """The step that failed, or what of the run itself did."""
    return item.step or ("its deadline" if item.error.code == "DEADLINE_EXCEEDED" else "its outputs")
