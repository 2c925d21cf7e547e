"""What a simulation found, on one page."""

from collections.abc import Sequence
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.text import Text

from aios.run.v1.state_pb2 import RunState
from aios.task.v1.task_pb2 import Change
from aios_cli import shapes, words
from aios_cli.exploring import Report, Way
from aios_cli.views import story
from aios_core.wording import counted

MAX_CHANGES: Final = 20  # of one way that are shown
MAX_WAYS: Final = 3  # that a line names


def page(found: Report) -> RenderableType:
    """For a person."""
    base, *others = found.ways
    parts: list[RenderableType] = [story.heading(base.run)]
    parts += _way(base, None)
    for way in others:
        parts += [Text(), Text(words.clean(f"If {way.name}:"), style="bold"), *_way(way, base)]
    for title, lines in _sections(found):
        if lines:
            parts += [Text(), Text(title, style="bold"), *(Text(words.clean(f"  {line}")) for line in lines)]
    parts += [Text(), *_proof(found)]
    return Group(*parts)


def _way(way: Way, base: Way | None) -> list[RenderableType]:
    """The changes of a way; of one beside the simulation those that differ."""
    parts: list[RenderableType] = []
    if way.run.error_message:
        parts.append(Text(f"{words.clean(way.run.error_message)} [{way.run.error_code}]", style="red"))
    if way.run.state == RunState.RUN_STATE_CANCELLED:
        parts.append(Text("It would stop there; what was changed before would stand."))
    before = _changes(base) if base is not None else {}
    now = _changes(way)
    own = [change for key, change in now.items() if key not in before]
    without = [change for key, change in before.items() if key not in now]
    if base is None:
        parts += _listed("It would make", own) or [Text("It would change nothing.")]
    else:
        parts += _listed("It would also make", own) + _listed("It would not make", without)
        parts += [] if own or without else [Text("It would change the same.")]
    return parts


def _listed(what: str, changes: Sequence[Change]) -> list[RenderableType]:
    if not changes:
        return []
    parts: list[RenderableType] = [Text(f"{what} {counted(len(changes), 'change')}:")]
    parts += [story.change_line(change) for change in changes[:MAX_CHANGES]]
    if len(changes) > MAX_CHANGES:
        parts.append(Text(f"and {len(changes) - MAX_CHANGES} more (all of them with --json)", style="dim"))
    return parts


def _changes(way: Way) -> dict[tuple[str, str, int], Change]:
    """Those of all steps, by what of them a person can tell apart."""
    return {
        (change.resource, change.verb, change.size): change
        for changes in way.changes.values()
        for change in changes
    }


def _sections(found: Report) -> list[tuple[str, list[str]]]:
    several = len(found.ways) > 1
    asked = []
    for step, ways, stand in found.gates():
        what = f"to approve {', '.join(step.gate.approves) or 'going on'}" if step.gate else "to answer"
        stops = f"; {counted(stand, 'change')} would stand by then" if stand else ""
        asked.append(f"{step.name}: {what}{stops}{_on(ways, several)}")
    final = [f"{step.name}: {step.target}{_on(ways, several)}" for step, ways in found.final()]
    low, high = found.cost
    cost = [
        f"${words.dollars(low)} to ${words.dollars(high)}; never more than ${words.dollars(found.workflow.cap)}"
    ]
    if found.history:
        middle = found.history[len(found.history) // 2]
        cost.append(
            f"{counted(len(found.history), 'earlier run')}: ${words.dollars(found.history[0])} to "
            f"${words.dollars(found.history[-1])}, half of them at most ${words.dollars(middle)}"
        )
    return [
        ("It would ask you:", asked),
        ("Undo could not take back:", final),
        ("It would cost:", cost),
        ("By plans, of whose own decisions one way is walked:", _plans(found)),
        ("Decided by this input alone:", found.by_input if several else []),
        ("It was walked:", _walked(found) if several or found.left else []),
        ("Taken on no way, there were too many:", found.left),
    ]


def _plans(found: Report) -> list[str]:
    run = words.short(found.ways[0].run.run_id)
    return [
        f"{step}: plan {version[:8]}; see it with aios plan show {run}"
        for step, version in found.ways[0].plans.items()
    ]


def _walked(found: Report) -> list[str]:
    """How much of what could be decided was."""
    known = len(found.taken)
    lines = [
        f"{counted(len(found.ways), 'way')}; {known - len(found.left)} of {known} decisions are taken on one"
    ]
    if found.combinations:
        more = counted(found.combinations, "combination")
        lines.append(f"not walked: {more} of them at least; --max-ways walks more")
    if found.apart:
        apart = "; ".join(", ".join(names) for names in found.apart)
        lines.append(f"not combined, since nothing uses what comes of both: {apart}")
    return lines


def _on(ways: list[str], several: bool) -> str:
    if not several:
        return ""
    more = f" and {len(ways) - MAX_WAYS} more" if len(ways) > MAX_WAYS else ""
    return f" ({'; '.join(ways[:MAX_WAYS])}{more})"


def _proof(found: Report) -> list[RenderableType]:
    proof = found.proof
    lines: list[RenderableType] = [
        Text(f"Asked of every connector's ledger about {counted(len(proof.runs), 'simulated run')}:")
    ]
    for service, before, after, error in proof.ledgers:
        if error:
            lines.append(Text(words.clean(f"  {service} could not be asked: {error}"), style="red"))
        else:
            recorded = f"{before} effects recorded before, {after} after"
            lines.append(Text(f"  {service}: {recorded}", style="red" if after or before else "dim"))
    if proof.nothing_written:
        lines.append(Text("Nothing was written.", style="dim"))
    else:
        lines.append(Text("It is NOT proven that nothing was written.", style="bold red"))
    return lines


def shape(found: Report) -> dict[str, Any]:
    """For JSON: the simulated run as any run, and beside it what was found."""
    low, high = found.cost
    return {
        **shapes.run(found.ways[0].run),
        "ways": [_way_shape(way) for way in found.ways],
        "not_walked": found.left,
        "decisions": [{"decision": one.words(), "ways": ways} for one, ways in found.taken.items()],
        "combinations_not_walked": found.combinations,
        "not_combined": found.apart,
        "decided_by_input": found.by_input,
        "plans": found.ways[0].plans,
        "asks": [
            {
                "step": step.name,
                "kind": "gate" if step.gate else "ask",
                "approves": list(step.gate.approves) if step.gate else [],
                "changes_before": stand,
                "ways": ways,
            }
            for step, ways, stand in found.gates()
        ],
        "cannot_be_undone": [
            {"step": step.name, "target": step.target, "grade": step.grade, "ways": ways}
            for step, ways in found.final()
        ],
        "estimate": {
            "low": words.dollars(low),
            "high": words.dollars(high),
            "cap": words.dollars(found.workflow.cap),
            "budgets": words.dollars(found.ceiling),
            "earlier_runs": [words.dollars(cost) for cost in found.history],
        },
        "proof": {
            "runs": list(found.proof.runs),
            "ledgers": [
                {"service": service, "before": before, "after": after, "error": error}
                for service, before, after, error in found.proof.ledgers
            ],
            "nothing_written": found.proof.nothing_written,
        },
    }


def _way_shape(way: Way) -> dict[str, Any]:
    return {
        "way": way.name,
        "run_id": way.run.run_id,
        "state": shapes.run_state(way.run.state),
        "error": {"code": way.run.error_code, "message": way.run.error_message}
        if way.run.error_code
        else None,
        "ran": way.ran(),
        "predicted": {
            name: [shapes.change(item) for item in changes]
            for name, changes in way.changes.items()
            if changes
        },
        "cost": words.dollars(way.cost),
    }
