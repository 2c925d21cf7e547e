"""What waits for a person: why, what could go wrong, and the exact bytes that would be written."""

import difflib
from collections.abc import Iterator, Sequence
from typing import Final

from rich.console import Group, RenderableType
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from aios.run.v1.state_pb2 import Approval, ApprovalKind, ApprovalState, PlanProposal
from aios_cli import shapes, words
from aios_cli.documents import Document
from aios_core.wording import counted

MAX_LINES: Final = 120  # of one document, unless all are asked for
_DIFF_STYLES: Final = {"+": "green", "-": "red", "@": "cyan"}
_PAGES: Final = ("text/html", "image/", "application/pdf")


def approval(
    item: Approval, documents: Sequence[Document], now_ms: int, max_lines: int = MAX_LINES
) -> RenderableType:
    """The whole of an approval, or the questions that it asks."""
    parts: list[RenderableType] = [_heading(item), *_reasons(item, now_ms)]
    if item.modes:
        told = ", ".join(
            f"{words.clean(each.step)} ({shapes.work_mode(each.work_mode)})" for each in item.modes
        )
        parts.append(Text(f"made by agents in declared modes: {told}", style="dim"))
    if item.HasField("plan"):
        parts += [Text(), *plan(item.plan, max_lines)]
    parts += _would(item)
    for document in documents:
        parts += [Text(), *shown(document, max_lines)]
    answers = shapes.bytes_json(item.answers) or {}
    for question in item.questions:
        name = question.id if len(item.questions) > 1 else ""
        parts += [Text(), *_question(name, question.text, question.why, list(question.options))]
        if question.id in answers:
            parts.append(Text(f"answered: {words.clean(str(answers[question.id]))}", style="green"))
    return Group(*parts)


def _would(item: Approval) -> Iterator[RenderableType]:
    """What each step would change, as whoever would do it sees it now."""
    for step in item.proposed:
        if step.no_preview:
            yield Text(
                f"{words.clean(step.step)}: no preview: {words.clean(step.no_preview)}", style="yellow"
            )
        elif step.summary or step.changes:
            yield Text(f"{words.clean(step.step)} would: {words.clean(step.summary)}")
        for made in step.changes:
            note = f" ({words.clean(made.note)})" if made.note else ""
            yield Text(f"  {words.clean(made.verb)} {words.clean(made.resource)}{note}", style="dim")


def next_steps(item: Approval) -> str:
    """What the person can type now."""
    name = words.short(item.approval_id)
    if item.state != ApprovalState.APPROVAL_STATE_OPEN:
        return f"aios run show {words.short(item.run_id)}"
    if item.kind == ApprovalKind.APPROVAL_KIND_GATE:
        return f"aios approval approve {name}   ·   aios approval reject {name} --note WHY   ·   show {name} --open"
    if len(item.questions) == 1:
        return f"aios approval answer {name} ANSWER"
    pairs = " ".join(f"--answer {question.id}=…" for question in item.questions)
    return f"aios approval answer {name} {pairs}"


def listing(items: Sequence[Approval], now_ms: int) -> Table:
    """What waits, one a line."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    table.add_column(no_wrap=True, style="dim")
    for item in items:
        open_now = item.state == ApprovalState.APPROVAL_STATE_OPEN
        title = Text(words.clean(item.title or item.step))
        title.append(f"\n{words.approval_words(item)}", style="yellow" if open_now else "dim")
        table.add_row(words.short(item.approval_id), title, words.ago(item.create_time_ms, now_ms))
    return table


def shown(document: Document, max_lines: int) -> Iterator[RenderableType]:
    """A document: a diff when it replaces another, else its text as it is; what is no text is named."""
    title = f"{document.verb} {words.clean(document.place)} ({words.size(len(document.content))})"
    yield Rule(Text(title, style="bold"), align="left", style="dim")
    text = document.text
    if text is None or document.media_type.startswith(_PAGES):
        yield Text(f"{document.media_type or 'binary'}: to see it, add --open", style="dim")
        return
    if document.before is None:
        yield Text(
            "Another file stands there that AIOS did not write. It would be replaced; undo brings it back.",
            style="yellow",
        )
    before = _decoded(document.before)
    lines = list(_diff(before, text)) if before else [Text(words.clean(line)) for line in text.splitlines()]
    yield from lines[:max_lines]
    if len(lines) > max_lines:
        yield Text(f"… {counted(len(lines) - max_lines, 'more line')}; add --all to see them", style="yellow")


def plan(item: PlanProposal, max_lines: int) -> Iterator[RenderableType]:
    """A plan; in which lines it differs from the one before, where there is one."""
    instead = f", in the place of {item.parent[:8]}" if item.parent else ""
    yield Rule(Text(f"follow plan {item.version[:8]}{instead}", style="bold"), align="left", style="dim")
    if item.parent:
        lines = [diff_line(line) for line in item.diff.splitlines()]
    else:
        lines = [Text(words.clean(line)) for line in item.text.splitlines()]
    yield from lines[:max_lines] or [Text("the same steps as before", style="dim")]
    if len(lines) > max_lines:
        yield Text(f"… {counted(len(lines) - max_lines, 'more line')}; add --all to see them", style="yellow")


def diff_line(line: str) -> Text:
    """A line of a unified diff."""
    return Text(words.clean(line), style=_DIFF_STYLES.get(line[:1], ""))


def _heading(item: Approval) -> Text:
    open_now = item.state == ApprovalState.APPROVAL_STATE_OPEN
    text = Text(words.clean(item.title or item.step), style="bold")
    text.append(f"  {words.approval_words(item)}", style="not bold yellow" if open_now else "not bold dim")
    return text


def _reasons(item: Approval, now_ms: int) -> Iterator[RenderableType]:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    said = {wording.field: ", ".join(wording.origins) for wording in item.wordings}
    if "title" in said:
        table.add_row("title", _marked("", said["title"]))
    if item.why:
        table.add_row("why", _marked(item.why, said.get("why")))
    if item.risk:
        table.add_row("what could go wrong", _marked(item.risk, said.get("risk")))
    table.add_row("for", f"{words.clean(item.workflow)}, run {words.short(item.run_id)}")
    if item.expire_time_ms and item.state == ApprovalState.APPROVAL_STATE_OPEN:
        table.add_row("decide", words.until(item.expire_time_ms, now_ms))
    if item.decided_by:
        table.add_row("decided", f"{words.ago(item.decide_time_ms, now_ms)} {words.by(item.decided_by)}")
    if item.note:
        table.add_row("note", words.clean(item.note))
    if item.arguments_sha256 and item.kind == ApprovalKind.APPROVAL_KIND_GATE:
        bound = (
            f"{item.arguments_sha256.hex()[:16]}…, policy {item.policy_version[:16]}, this run and step, once"
        )
        table.add_row("bound to", bound)
    for name, text in _terms(item):
        table.add_row(name, words.clean(text))
    yield table


def _marked(text: str, origins: str | None) -> Text:
    """Words of a person or of the document; or such as nobody vouches for, with who said them."""
    shown = Text(words.clean(text))
    if origins is not None:
        shown.append(f"{' ' if text else ''}(not checked: said by {words.clean(origins)})", style="yellow")
    return shown


def _terms(item: Approval) -> Iterator[tuple[str, str]]:
    """Who may decide, what happened so far, and what happens when nobody does."""
    if item.approvers:
        names = ", ".join(name.removeprefix("person:") for name in item.approvers)
        yield "approvers", f"{item.need or 1} of {names}"
    for assent in item.assents:
        yield "approved", f"{words.by(assent.approver)}{f': {assent.note}' if assent.note else ''}"
    if item.HasField("confidence"):
        sure = item.confidence
        why = f" ({sure.why})" if sure.why else ""
        yield "confidence", f"{sure.value or 'none'}, {sure.at_least} would pass{why}"
    if item.reminders:
        yield "reminders", str(item.reminders)
    if item.escalated_to:
        yield "asked as well", item.escalated_to.removeprefix("person:")
    if item.fails_open and item.state == ApprovalState.APPROVAL_STATE_OPEN:
        yield "if nobody decides", "it counts as approved"
    for step in item.proposed:
        if step.edited_by:
            yield "edited", f"{step.step}, {words.by(step.edited_by)}"
    for refusal in item.refusals:
        told = f"{refusal.error.message} [{refusal.error.code}]"
        yield "did not count", f"a decision {words.by(refusal.decided_by)}: {told}"


def _question(identifier: str, text: str, why: str, options: Sequence[str]) -> Iterator[RenderableType]:
    named = f"  ({words.clean(identifier)})" if identifier else ""
    yield Text.assemble((words.clean(text), "bold"), (named, "dim"))
    if why:
        yield Text(words.clean(why), style="dim")
    for option in options:
        yield Text(f"  {words.clean(option)}")


def _decoded(before: bytes | None) -> str:
    try:
        return (before or b"").decode()
    except UnicodeDecodeError:
        return ""


def _diff(before: str, after: str) -> Iterator[Text]:
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), "now", "then", lineterm="", n=3)
    changed = False
    for line in lines:
        if line.startswith(("---", "+++")) and not changed:
            continue
        changed = True
        yield diff_line(line)
    if not changed:
        yield Text("the same as now", style="dim")
