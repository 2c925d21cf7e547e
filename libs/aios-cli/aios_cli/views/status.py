"""The first screen: what needs you, what runs, what it cost."""

from rich.console import Group, RenderableType
from rich.text import Text

from aios.api.v1 import api_pb2
from aios_cli import words
from aios_cli.views import approval, failure, runs

MAX_RECENT = 5


def overview(answer: api_pb2.GetStatusResponse, now_ms: int) -> RenderableType:
    """What a person wants to know first, in that order."""
    parts: list[RenderableType] = []
    if answer.needs_you:
        parts += [Text("Needs you", style="bold yellow"), approval.listing(list(answer.needs_you), now_ms)]
        parts.append(Text("See one: aios approval show ID", style="dim"))
    if answer.failures:
        parts += [Text("Failed", style="bold red"), failure.by_cause(list(answer.failures), now_ms)]
        parts.append(Text("See what you can do: aios failure show RUN", style="dim"))
    if answer.late:
        parts += [Text("Late", style="bold yellow"), runs.table(list(answer.late), now_ms)]
    if not (answer.needs_you or answer.failures or answer.late):
        parts.append(Text("Nothing needs you.", style="green"))
    working = [run for run in answer.running if not run.pending_approvals]
    if working:
        parts += [Text(), Text("Runs now", style="bold"), runs.table(working, now_ms)]
    recent = list(answer.recent)[:MAX_RECENT]
    if recent:
        parts += [Text(), Text("Lately", style="bold"), runs.table(recent, now_ms)]
    if not (answer.needs_you or answer.running or answer.recent):
        parts.append(Text("No runs yet. Try: aios resource list", style="dim"))
    month, total = words.dollars(answer.cost_month_micros), words.dollars(answer.cost_total_micros)
    parts += [Text(), Text(f"Cost ${month} this month, ${total} in all", style="dim")]
    untold = [item for item in answer.webhook.untold if item.attempts]
    if untold:
        sentence = f"{len(untold)} of these could not be told by the webhook (see aios notify show)"
        parts.append(Text(sentence, style="red"))
    for service in answer.services:
        if service.HasField("restore"):
            parts.append(Text(words.clean(restore_line(service.restore)), style="yellow"))
        if not service.ready:
            sentence = f"{service.service} is not well: {service.detail or 'no detail'} (see aios doctor)"
            parts.append(Text(words.clean(sentence), style="red"))
    return Group(*parts)


def restore_line(restore: api_pb2.OpenRestore, *, closed: bool = False) -> str:
    """An open restore in a sentence, or one that was closed just now."""
    made = restore.backup_time_ms
    of = f" of {words.day(made, None)}, {words.clock(made, None)}" if made else ""
    so_far = f"{restore.found} changes found done, {restore.asked} asked about, since it was started"
    if closed:
        return f"{restore.service}: the restore of the backup{of} is closed ({so_far})."
    return (
        f"{restore.service} was restored from a backup{of}: what it doesn't know it looks up first, or asks "
        f"({so_far}). Then: aios backup close"
    )
