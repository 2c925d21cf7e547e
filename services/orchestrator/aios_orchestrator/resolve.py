"""From an event to exactly one intent with typed parameters, or to a question; never a guess. Pure and deterministic:
the same event under the same rules gives the same resolution, wherever and whenever it is computed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from aios.event.v1.event_pb2 import Candidate, ExternalEvent, Resolution
from aios_core.encoding import encode
from aios_core.errors import TerminalError
from aios_core.hashing import content_hash
from aios_core.ids import derive
from aios_core.json_values import to_json
from aios_core.values import Value, plain
from aios_orchestrator.correlation import event_value
from aios_orchestrator.document import Document
from aios_orchestrator.mapping import Expression, Mapped, Path, compile_expression, compile_mapping, truth
from aios_orchestrator.queueing import compile_of_intent
from aios_orchestrator.workflow import Queueing
from aios_runtime.schemas import Schema

MATCHED: Final = 1000  # thousandths
TYPE_ONLY: Final = 500
OUTCOME_INTENT: Final = "intent"
OUTCOME_QUESTION: Final = "question"
OUTCOME_NOTHING: Final = "nothing"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of an intent: which event it is for, under what condition, and how parameters come from the event."""

    name: str
    event_type: str
    when: Path | Expression | None
    parameters: Mapped


@dataclass(frozen=True, slots=True)
class Intent:
    """A compiled Intent document: what may be meant, and the workflow that does it."""

    name: str
    version: str
    title: str
    workflow: str
    parameters: Schema
    rules: tuple[Rule, ...]
    concurrency: Queueing | None = None
    """Which of its runs are under way at once; None: all. Its key sees the inputs of the run."""


def compile_intent(document: Document) -> Intent:
    """Compile and check an Intent document. Raises UNKNOWN_FIELD, BAD_RESOURCE, BAD_EXPRESSION with the place."""
    spec = document.known(
        "spec", document.spec, ("workflow", "parameters", "rules", "concurrency", "description")
    )
    for name in ("workflow", "parameters", "rules"):
        if name not in spec:
            raise document.error("BAD_RESOURCE", f"spec.{name}", "is missing.")
    if not isinstance(spec["rules"], list):
        raise document.error("BAD_RESOURCE", "spec.rules", "must be a list.")
    rules = []
    for at, data in enumerate(spec["rules"]):
        path = f"spec.rules[{at}]"
        fields = document.known(path, data, ("name", "event", "when", "parameters"))
        for name in ("name", "event", "parameters"):
            if name not in fields:
                raise document.error("BAD_RESOURCE", f"{path}.{name}", "is missing.")
        try:
            when = compile_expression(str(fields["when"]), f"{path}.when") if "when" in fields else None
            parameters = compile_mapping(fields["parameters"], f"{path}.parameters")
        except TerminalError as error:
            raise document.error(error.code, error.details.get("field", path), error.message) from None
        rules.append(Rule(str(fields["name"]), str(fields["event"]), when, parameters))
    try:
        parameters_schema = Schema(dict(spec["parameters"]))
    except (TypeError, ValueError) as error:
        raise document.error("BAD_RESOURCE", "spec.parameters", f"is not a JSON Schema: {error}.") from None
    metadata = document.data["metadata"]
    return Intent(
        document.name,
        document.version(),
        str(metadata.get("title", document.name)),
        str(spec["workflow"]),
        parameters_schema,
        tuple(rules),
        compile_of_intent(document, spec),
    )


def rules_version(intents: Sequence[Intent]) -> str:
    """One version for the whole set of rules: it changes when any rule does."""
    text = "\n".join(sorted(f"{intent.name}@{intent.version}" for intent in intents))
    return content_hash(text.encode())[:16]


def event_key(event: ExternalEvent) -> str:
    """The identity of an event: the same source and id again is the same event."""
    return derive("evt", event.workspace, event.source, event.id)


def resolve(event: ExternalEvent, intents: Sequence[Intent]) -> Resolution:
    """The resolution of one event under these rules, without time and without effects."""
    resolution = Resolution(
        id=derive("res", event_key(event)),
        event_id=event.id,
        event_source=event.source,
        event_type=event.type,
        event_sha256=content_hash(event.data),
        rules="intents",
        rules_version=rules_version(intents),
        outcome=OUTCOME_NOTHING,
        event_data=event.data,
        event_subject=event.subject,
    )
    try:
        seen = event_value(resolution)
    except TerminalError as error:
        resolution.outcome, resolution.question = (
            OUTCOME_QUESTION,
            f"The event's data can't be read: {error.message}",
        )
        return resolution
    matched: dict[str, tuple[Intent, Value]] = {}
    for intent in sorted(intents, key=lambda item: item.name):
        for rule in intent.rules:
            candidate, value = _try(intent, rule, event, seen)
            if candidate is not None:
                resolution.candidates.append(candidate)
            if value is not None and intent.name not in matched:
                matched[intent.name] = (intent, value)
    _conclude(resolution, matched)
    return resolution


def _try(
    intent: Intent, rule: Rule, event: ExternalEvent, seen: Value
) -> tuple[Candidate | None, Value | None]:
    if rule.event_type != event.type:
        return None, None
    candidate = Candidate(rule=rule.name, intent=intent.name, score=TYPE_ONLY)

    def look(root: str) -> Value | None:
        return seen if root == "event" else None

    try:
        if rule.when is not None and not truth(rule.when, look)[0]:
            candidate.why = f"its condition does not hold: {rule.when.text}"
            return candidate, None
        value = rule.parameters.evaluate(look)
    except TerminalError as error:
        candidate.why = error.message
        return candidate, None
    candidate.score, candidate.why = MATCHED, f"event type {event.type} and its condition hold"
    return candidate, value


def _conclude(resolution: Resolution, matched: Mapping[str, tuple[Intent, Value]]) -> None:
    if len(matched) > 1:
        titles = ", ".join(intent.title for intent, _ in matched.values())
        resolution.outcome, resolution.question = OUTCOME_QUESTION, f"Which of these is meant: {titles}?"
        return
    if not matched:
        if resolution.candidates:
            why = "; ".join(f"{item.rule}: {item.why}" for item in resolution.candidates)
            resolution.outcome, resolution.question = (
                OUTCOME_QUESTION,
                f"No rule fits this event ({why}). What is it for?",
            )
        return
    ((intent, value),) = matched.values()
    try:
        intent.parameters.check(_json(value), "parameters")
        parameters = encode(value)
    except TerminalError as error:
        resolution.outcome = OUTCOME_QUESTION
        resolution.question = f"{intent.title}: {error.message} What should it be?"
        return
    resolution.outcome, resolution.intent, resolution.parameters = OUTCOME_INTENT, intent.name, parameters


def _json(value: Value) -> Any:
    return to_json(plain(value))
