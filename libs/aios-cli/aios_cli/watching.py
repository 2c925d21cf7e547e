"""What needs a person and what runs, as it changes."""

from collections.abc import Mapping
from typing import Final

from aios.api.v1 import api_pb2
from aios.run.v1.state_pb2 import ApprovalKind
from aios_cli import shapes, words

_KINDS: Final = {
    ApprovalKind.APPROVAL_KIND_GATE: "approval",
    ApprovalKind.APPROVAL_KIND_QUESTION: "question",
    ApprovalKind.APPROVAL_KIND_UNKNOWN: "unknown",
}
Thing = dict[str, str | int]
Things = Mapping[tuple[str, str], Thing]


def things(answer: api_pb2.GetStatusResponse) -> Things:
    """All that a person may want to hear of, by its kind and id: what waits for a decision (`approval`, `question`,
    `unknown`), each `failure`, each `run` that goes on and each that is `late`, and each `service` that is not well."""
    found: list[Thing] = [
        {
            **_thing(
                _KINDS.get(item.kind, "approval"),
                item.approval_id,
                item.title or item.step,
                f"aios approval show {words.short(item.approval_id)}",
                item.run_id,
                item.workflow,
            ),
            "reminders": item.reminders,
            "escalated_to": item.escalated_to,
        }
        for item in answer.needs_you
    ]
    found += [
        _thing(
            "failure",
            item.run_id,
            item.error.message,
            f"aios failure show {words.short(item.run_id)}",
            item.run_id,
            item.workflow,
        )
        for item in answer.failures
    ]
    found += [
        _thing(
            "late",
            run.run_id,
            f"{run.workflow} is late",
            f"aios run show {words.short(run.run_id)}",
            run.run_id,
            run.workflow,
        )
        for run in answer.late
    ]
    found += [
        _thing(
            "run",
            run.run_id,
            str(shapes.run(run, full=False)["state"]),
            f"aios run show {words.short(run.run_id)}",
            run.run_id,
            run.workflow,
        )
        for run in answer.running
    ]
    found += [
        _thing("service", item.service, item.detail or "no detail", "aios doctor")
        for item in answer.services
        if not item.ready
    ]
    return {(str(thing["kind"]), str(thing["id"])): thing for thing in found}


def changes(before: Things, now: Things) -> list[Thing]:
    """What is over, then what began or is otherwise than before: one flat object each, with its `change`."""
    over: list[Thing] = [{"change": "over", **thing} for key, thing in before.items() if key not in now]
    told: list[Thing] = [
        {"change": "changed" if key in before else "began", **thing}
        for key, thing in now.items()
        if before.get(key) != thing
    ]
    return over + told


def _thing(kind: str, name: str, title: str, command: str, run_id: str = "", workflow: str = "") -> Thing:
    return {
        "kind": kind,
        "id": name,
        "run_id": run_id,
        "workflow": workflow,
        "title": title,
        "command": command,
    }
