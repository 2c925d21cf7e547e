"""What needs a person, as it is told outside. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from aios.run.v1.state_pb2 import Approval, ApprovalKind, Failure, RunHead

MAX_TITLE_CHARS: Final = 200

_KINDS: Final = {
    ApprovalKind.APPROVAL_KIND_QUESTION: "question",
    ApprovalKind.APPROVAL_KIND_UNKNOWN: "unknown",
}


@dataclass(frozen=True, slots=True)
class Need:
    """One thing that needs a person: an `approval`, a `question`, an `unknown` outcome, a `failure`, or a `late` run.

    The same thing has the same `id`; what needs them once more, such as by a reminder, has another. `command` shows it.
    """

    id: str
    kind: str
    title: str
    run_id: str
    workflow: str
    command: str


def needs(approvals: Iterable[Approval], failures: Iterable[Failure], late: Iterable[RunHead]) -> list[Need]:
    """All of it, as it stands."""
    return [*map(_approval, approvals), *map(_failure, failures), *_late(late)]


def _approval(approval: Approval) -> Need:
    again = f".{approval.reminders}" if approval.reminders else ""
    return Need(
        f"{approval.approval_id}{again}",
        _KINDS.get(approval.kind, "approval"),
        _short(approval.title or approval.step),
        approval.run_id,
        approval.workflow,
        f"aios approval show {approval.approval_id}",
    )


def _failure(failure: Failure) -> Need:
    where = f"{failure.step}: " if failure.step else ""
    return Need(
        f"{failure.run_id}.failed.{failure.time_ms}",
        "failure",
        _short(where + failure.error.message),
        failure.run_id,
        failure.workflow,
        f"aios failure show {failure.run_id}",
    )


def _late(runs: Iterable[RunHead]) -> Iterator[Need]:
    for run in runs:
        yield Need(
            f"{run.run_id}.late.{run.late_time_ms}",
            "late",
            _short(f"{run.workflow} is late"),
            run.run_id,
            run.workflow,
            f"aios run show {run.run_id}",
        )


def _short(text: str) -> str:
    """One line of printable characters: what a model or the outside said stands in it."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return line if len(line) <= MAX_TITLE_CHARS else line[: MAX_TITLE_CHARS - 1] + "…"
