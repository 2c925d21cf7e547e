"""A workflow in plain words: what it does, what it asks a person for, what it may change and spend, and what of that
can't be taken back. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from aios_core.money import format_usd
from aios_core.values import plain
from aios_orchestrator.drawing import words_of
from aios_orchestrator.mapping import Constant, Expression, Mapped, Path, Text
from aios_orchestrator.modes import word_of
from aios_orchestrator.workflow import Gate, Planning, Step, Workflow

_FINAL: Final = {
    "irreversible": "can't be taken back",
    "payment": "spends money, which undo does not bring back",
    "legal": "binds the company, which undo does not take back",
}

_EFFECTS: Final = {
    "read": "reads from outside",
    "write": "changes something outside",
    "irreversible": "does something outside that can't be taken back",
    "payment": "spends money",
    "legal": "binds the company",
}


@dataclass(frozen=True, slots=True)
class Told:
    """One step: how deep it stands in others, its name, what it does, and when."""

    depth: int
    name: str
    what: str
    when: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """A workflow in words. `person`, `changes` and `final` are what it asks for, may change and can't take back; money
    is in micro-dollars: the cap, and what one attempt of every step holds (in a round: of one round)."""

    name: str
    version: str
    steps: tuple[Told, ...]
    person: tuple[str, ...]
    changes: tuple[str, ...]
    final: tuple[str, ...]
    cap_micros: int
    holds_micros: int
    times: tuple[str, ...] = ()
    """By when what has to be done."""
    customer: str = ""
    """Whom a run is for, as an expression."""
    undone_if_it_fails: bool = False

    def shape(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "name": self.name,
            "version": self.version,
            "steps": [{"name": s.name, "depth": s.depth, "what": s.what, "when": s.when} for s in self.steps],
            "asks_a_person": list(self.person),
            "may_change": list(self.changes),
            "cannot_be_undone": list(self.final),
            "times": list(self.times),
            "customer": self.customer,
            "undone_if_it_fails": self.undone_if_it_fails,
            "cap_micros": self.cap_micros,
            "holds_micros": self.holds_micros,
        }

    def lines(self) -> Iterator[str]:
        """For a person."""
        yield f"{self.name} ({self.version}), step by step:"
        yield ""
        for step in self.steps:
            when = f" Only when {step.when}." if step.when else ""
            yield f"{'  ' * step.depth}- {step.name}: {step.what}.{when}"
        for title, rows, none in (
            ("It asks a person:", self.person, "It asks nobody."),
            ("It may change:", self.changes, "It changes nothing outside."),
            (
                "Undo can't take back:",
                self.final,
                "Undo can take back all that it changes, unless somebody changed it since.",
            ),
        ):
            yield ""
            yield title if rows else none
            yield from (f"- {row}" for row in rows)
        if self.times:
            yield from ("", "By when:", *(f"- {row}" for row in self.times))
        yield ""
        holds = (
            f"; one attempt of each step holds {format_usd(self.holds_micros)}" if self.holds_micros else ""
        )
        yield f"A run may spend at most {format_usd(self.cap_micros)}{holds}."
        if self.customer:
            yield f"What it spends counts for the customer {self.customer} too."
        if self.undone_if_it_fails:
            yield "If it fails, what it changed is undone by itself."


def explain(workflow: Workflow) -> Explanation:
    """A workflow in words."""
    person, changes, final = [], [], []
    for step in workflow.ordered:
        rounds = " for each item" if "[]" in step.scope else ""
        if step.gate is not None:
            what = ", ".join(step.gate.approves) or "going on"
            within = words_of(step.gate.expires_ms)
            person.append(f"{step.name}: to approve {what}{rounds}, within {within}{_terms(step.gate)}")
        if step.ask is not None:
            person.append(f"{step.name}: to answer questions{rounds}, within {words_of(step.ask.expires_ms)}")
        if step.planning is not None and step.kind == "planned" and step.own.child is None:
            planned = [(step.name, *item) for item in step.planning.actions.items() if item[1] != "read"]
            changes += [f"{name}: {action}, where the plan says so" for name, action, _ in planned]
            final += [
                f"{name}: {action} {_FINAL[grade]}" for name, action, grade in planned if grade in _FINAL
            ]
        if step.effect:
            gate = workflow.approved_by.get(step.name)
            with_ = f", after {workflow.steps[gate].name} is approved" if gate else ", without asking"
            changes.append(f"{step.name}: {step.target}{rounds}{with_}")
            if step.compensate is not None:
                changes[-1] += f"; undo makes it good by {step.compensate.target}"
            elif step.grade in _FINAL:
                final.append(f"{step.name}: {step.target} {_FINAL[step.grade]}")
    if workflow.spike is not None:
        least = format_usd(workflow.spike.at_least)
        person.append(f"the run: whether to go on, when it costs much more than earlier ones, and {least}")
    told = tuple(
        Told(step.scope.count("."), step.local, _what(step), step.when.text if step.when else "")
        for step in workflow.ordered
    )
    return Explanation(
        workflow.name,
        workflow.version,
        told,
        tuple(person),
        tuple(changes),
        tuple(final),
        workflow.cap,
        sum(step.hold for step in workflow.ordered),
        tuple(_times(workflow)),
        _shown(workflow.customer),
        workflow.undo_on_failure,
    )


def _times(workflow: Workflow) -> Iterator[str]:
    """What is said of time, of the run and of each step."""
    for name, bounds in (("the run", workflow.bounds), *((s.name, s.bounds) for s in workflow.ordered)):
        if bounds is None:
            continue
        parts = []
        if bounds.queued_ms:
            parts.append(f"a worker begins within {words_of(bounds.queued_ms)}")
        if bounds.total_ms:
            parts.append(f"all attempts within {words_of(bounds.total_ms)}")
        if bounds.deadline_ms or bounds.deadline is not None:
            by = (
                f"within {words_of(bounds.deadline_ms)}"
                if bounds.deadline_ms
                else f"by {_shown(bounds.deadline)}"
            )
            parts.append(f"done {by}, {'else it is noted' if bounds.note else 'else it fails'}")
        if bounds.service_level_ms:
            parts.append(f"late after {words_of(bounds.service_level_ms)}")
        yield f"{name}: {'; '.join(parts)}"


def _terms(gate: Gate) -> str:
    """Who may decide, and when a gate passes without a person."""
    terms = []
    if gate.approvers:
        terms.append(f"{gate.need} of {', '.join(gate.approvers)}")
    if gate.confidence is not None:
        terms.append(f"nobody where {_shown(gate.confidence.of)} is at least {gate.confidence.at_least}")
    if gate.remind:
        terms.append(f"reminded after {', '.join(map(words_of, gate.remind))}")
    if gate.escalate_to:
        terms.append(f"after {words_of(gate.escalate_ms)} {gate.escalate_to} as well")
    if gate.fails_open:
        terms.append("approved when nobody decides")
    return f" ({'; '.join(terms)})" if terms else ""


def _what(step: Step) -> str:
    """What a step does, as a sentence without its end."""
    match step.kind:
        case "agent":
            mode = f", in {word_of(step.mode)} mode" if step.mode else ""
            return f"the agent {step.target} works on it{mode}"
        case "connector":
            return f"{step.target} {_EFFECTS[step.grade]}"
        case "memory":
            return "writes into memory" if step.effect else "reads from memory"
        case "gate" if step.gate is not None:
            asked = f" ({text})" if (text := _shown(step.gate.title)) else ""
            return f"a person approves {', '.join(step.gate.approves) or 'going on'}{asked}"
        case "ask" if step.ask is not None:
            asked = f" ({text})" if (text := _shown(step.ask.title)) else ""
            return f"a person answers questions{asked}"
        case "branch":
            cases = "; ".join(f"{name} when {condition.text}" for name, condition in step.cases)
            return f"chooses: {cases}{f'; else {step.otherwise}' if step.otherwise else ''}"
        case "wait" if step.hears is not None:
            which = f" for which {step.hears.match.text}" if step.hears.match is not None else ""
            then = "goes on" if step.hears.lenient else "fails"
            end = (
                f", for at most {words_of(step.hears.timeout_ms)}, then {then}"
                if step.hears.timeout_ms
                else ""
            )
            return f"waits for an event {step.hears.event_type}{which}{end}"
        case "wait":
            return f"waits until {_shown(step.until)}" if step.until else f"waits {words_of(step.wait_ms)}"
        case "map":
            after = "; what fails is left out" if step.own.collect else ""
            return f"for each of {_shown(step.own.over)}, {step.own.at_once} at once{after}"
        case "repeat" if step.own.until is not None:
            else_ = "then goes on" if step.own.lenient else "then fails"
            return f"again until {step.own.until.text}, at most {step.own.limit} times, {else_}"
        case "workflow":
            return f"all of the workflow {step.target.partition('@')[0]}"
        case "plan":
            return f"the agent {step.target} plans it, a person approves the plan, and it is carried out"
        case "planned" if step.planning is not None:
            return f"the plan's steps, at most {step.planning.most}; it may use {_may(step.planning)}"
    return "computes"


def _may(planning: Planning) -> str:
    """What a plan may use, in words."""
    uses = [
        *(f"the agent {name}" for name in planning.agents),
        *(f"{name} ({effect})" for name, effect in planning.actions.items()),
        *(f"memory.{name}" for name in planning.memory),
        *(f"the workflow {ref.partition('@')[0]}" for ref in planning.workflows),
    ]
    return ", ".join(uses) or "nothing that does work"


def _shown(tree: Mapped | None) -> str:
    """An expression as a person reads it."""
    match tree:
        case Constant():
            return str(plain(tree.value))[:80]
        case Path() | Expression():
            return tree.text
        case Text():
            return "".join(part if isinstance(part, str) else f"<{part.text}>" for part in tree.parts)
    return "the items that are listed" if tree is not None else ""
