"""What an undo, or the undo of one, would do."""

from typing import Final

from rich.console import Group, RenderableType
from rich.text import Text

from aios.api.v1 import api_pb2
from aios.run.v1 import state_pb2 as st
from aios.run.v1.state_pb2 import UndoItem
from aios_cli import words
from aios_cli.views import story
from aios_core.wording import counted

_STYLE: Final = {
    st.UNDO_VERDICT_WILL: "",
    st.UNDO_VERDICT_UNASKED: "",
    st.UNDO_VERDICT_CHANGED: "yellow",
    st.UNDO_VERDICT_IMPOSSIBLE: "red",
    st.UNDO_VERDICT_UNKNOWN: "red",
}


def preview(found: api_pb2.PreviewUndoResponse, *, redo: bool) -> RenderableType:
    """One change a line, in the order in which it would be done."""
    verb = "put back" if redo else "taken back"
    able = (st.UNDO_VERDICT_WILL, st.UNDO_VERDICT_UNASKED)
    done = [item for item in found.items if item.verdict in able]
    rest = [item for item in found.items if item.verdict not in able]
    parts: list[RenderableType] = []
    first = f"{counted(len(done), 'change')} would be {verb}, in this order:"
    parts.append(Text(first if done else f"Nothing would be {verb}.", style="bold"))
    for number, item in enumerate(done, 1):
        parts += _lines(item, f"{number:>3}. ")
    if rest:
        parts += [Text(), Text(f"{counted(len(rest), 'change')} would stay as it is:", style="bold")]
        for item in rest:
            parts += _lines(item, "   - ")
    if found.more:
        parts.append(Text("There are more; these are the first.", style="dim"))
    parts.append(Text("Nothing was done.", style="dim"))
    return Group(*parts)


def _lines(item: UndoItem, mark: str) -> list[RenderableType]:
    text = Text(mark, style="dim")
    text.append(words.clean(item.step), style="bold")
    text.append(f"  {words.clean(item.summary or item.target)}", style=_STYLE.get(item.verdict, ""))
    if item.along:
        text.append("  (came of what you chose)", style="dim")
    told: list[RenderableType] = [text]
    if item.why:
        told.append(Text(f"     {words.clean(item.why)}", style="dim"))
    for change in item.changes:
        line = Text("     ")
        line.append_text(story.change_line(change))
        told.append(line)
    return told
