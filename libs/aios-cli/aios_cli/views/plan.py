"""The versions of a plan."""

from collections.abc import Sequence
from typing import Any, Final

from rich.table import Table
from rich.text import Text

from aios.api.v1.api_pb2 import PlanVersion
from aios_cli import words
from aios_cli.shapes import time_json

SHOWN: Final = 8  # characters of a version
_STYLES: Final = {"proposed": "yellow", "followed": "green", "refused": "red", "rejected": "red"}
_STATES: Final = {"proposed": "needs your approval", "refused": "was no plan"}


def listing(found: Sequence[PlanVersion], now_ms: int) -> Table:
    """One a line, as they came."""
    table = Table.grid(padding=(0, 2))
    for name in ("", "", "", ""):
        table.add_column(name, overflow="fold")
    for item in found:
        version = item.version[:SHOWN] or "-"
        told = Text(_STATES.get(item.state, item.state), style=_STYLES.get(item.state, "dim"))
        by = words.clean(item.by)
        decided = f", decided {words.by(item.decided_by)}" if item.decided_by else ""
        from_ = f" from {item.parent[:SHOWN]}" if item.parent else ""
        about = Text(f"{words.clean(item.step)}: {by}{from_}{decided}")
        if item.note:
            about.append(f"\n{words.clean(item.note)}", style="dim")
        table.add_row(Text(version, style="bold"), told, about, words.ago(item.time_ms, now_ms))
    return table


def heading(item: PlanVersion) -> str:
    """Which one it is, in a line."""
    parent = f", from {item.parent[:SHOWN]}" if item.parent else ""
    return f"# {words.clean(item.step)}: plan {item.version}{parent}, {_STATES.get(item.state, item.state)}"


def shape(item: PlanVersion) -> dict[str, Any]:
    """For JSON."""
    return {
        "step": item.step,
        "version": item.version or None,
        "parent": item.parent or None,
        "state": item.state,
        "time": time_json(item.time_ms),
        "by": item.by or None,
        "decided_by": item.decided_by or None,
        "note": item.note,
        "text": item.text,
        "diff": item.diff or None,
        "approval_id": item.approval_id or None,
    }
