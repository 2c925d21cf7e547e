"""The kinds of documents, field by field. Checks, JSON Schemas and the reference are made of this; a new kind or a new
field is added here (of a step: in `step_language`), and in what compiles it."""

from collections.abc import Mapping
from typing import Any, Final

from aios_orchestrator.compensating import ON_FAILURE
from aios_orchestrator.computed_shapes import Computed, Condition, Or
from aios_orchestrator.document import API_VERSION, KINDS, Document
from aios_orchestrator.limits import MAX_IN_FLIGHT, MAX_WEIGHT
from aios_orchestrator.modes import MODES
from aios_orchestrator.problems import Problems
from aios_orchestrator.queueing import MAX_LIMIT, MAX_WAITING, WORDS
from aios_orchestrator.schema_shape import JsonSchema, definition
from aios_orchestrator.shapes import (
    NAME,
    Check,
    Choice,
    Duration,
    Field,
    Fields,
    Flag,
    Money,
    Several,
    Text,
    Whole,
)
from aios_orchestrator.step_language import TIMES, Steps, step_schema
from aios_orchestrator.workflow import HIGHEST

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

_CONCURRENCY: Final = Fields(
    {
        "key": Field(Computed(), "What runs share that count as one; without it all do"),
        "policy": Field(
            Choice(("replace", "queue", "skip")),
            "A run above the limit replaces the others, waits for its turn, or is left out",
        ),
        "limit": Field(Whole(1, MAX_LIMIT), "How many may be under way, 1 without it"),
        "waiting": Field(Whole(1, MAX_WAITING), "How many may wait, 100 without it"),
    },
)
WORKFLOW: Final = Fields(
    {
        "description": Field(Text(), "For people"),
        "inputs": Field(JsonSchema(top=True), "A JSON Schema of what a run is given"),
        "budget": Field(
            Fields({"cap": Field(Money(), "US dollars that a run may spend, 1.00 without it")}),
            "What a run may spend",
        ),
        "concurrency": Field(_CONCURRENCY, "How many runs may be under way at once"),
        "priority": Field(Whole(0, HIGHEST), "How urgent its tasks are, 0 to 9; 5 without it"),
        "mode": Field(Choice(tuple(MODES)), "How its agents work, where their steps say nothing"),
        "on_failure": Field(
            Choice(ON_FAILURE), "Whether what a run changed that fails is undone by itself; `stay` without it"
        ),
        **TIMES,
        "customer": Field(Computed(), "Whom a run is for; what it costs counts in the customer's accounts"),
        "spike": Field(
            Fields(
                {
                    "times": Field(Whole(1, 100), "Spreads above the median, 3 without it"),
                    "at_least": Field(Money(), "US dollars below which nobody is asked, 0.50 without it"),
                }
            ),
            "When a run that costs more than others did before waits for a person",
        ),
        "steps": Field(Steps(), "The steps of the workflow", True),
        "outputs": Field(Computed(maps=True), "What a run gives"),
    }
)
_RULE: Final = Fields(
    {
        "name": Field(Text("a name"), "Its name in the record of what was decided", True),
        "event": Field(
            Text("a type of events", example="files.folder_settled"),
            "The type of events that it is for",
            True,
        ),
        "when": Field(Condition(), "It is passed over where this does not hold"),
        "parameters": Field(Computed(maps=True), "The workflow's input, from `event`", True),
    }
)
INTENT: Final = Fields(
    {
        "description": Field(Text(), "For people"),
        "workflow": Field(Text("the name of a workflow", NAME, "nothing"), "The workflow that does it", True),
        "parameters": Field(JsonSchema(top=True), "A JSON Schema of what has to be known of it", True),
        "rules": Field(Several(_RULE, 0, 1000, "a list of rules"), "Which events mean it", True),
        "concurrency": Field(
            Or(Choice(WORDS), _CONCURRENCY),
            "What happens while the run of the event before goes on; or, as of a workflow, how many at once",
        ),
    }
)
SCHEDULE: Final = Fields(
    {
        "description": Field(Text(), "For people"),
        "workflow": Field(
            Text("the name of a workflow", NAME, "nothing"), "The workflow that is started", True
        ),
        "input": Field(
            Computed(maps=True), "Its input, from `event.time`, `date`, `month`, `previous_month`"
        ),
        "cron": Field(Text("five fields", example="0 9 * * MON"), "Minute, hour, day, month, weekday"),
        "every": Field(Duration(), "How often, from 10s on, in the place of `cron`"),
        "timezone": Field(
            Text("a time zone", example="Europe/Berlin"), "Where its times are read, UTC without it"
        ),
        "missed": Field(Choice(("skip", "run-once", "run-all")), "What becomes of times that were missed"),
        "concurrency": Field(Choice(WORDS), "What happens while the run before goes on"),
        "paused": Field(Flag(), "No run is started while it is true"),
        "start": Field(Text("a time with its zone"), "No time comes before it"),
        "end": Field(Text("a time with its zone"), "No time comes after it"),
    }
)
LIMIT: Final = Fields(
    {
        "description": Field(Text(), "For people"),
        "connector": Field(Text("the name of a connector", NAME, "nothing"), "Whose tasks are limited"),
        "workflow": Field(Text("the name of a workflow, or *"), "Or: the workflow, or * for each"),
        "customer": Field(Text("a customer, or *"), "Or: the customer, or * for each"),
        "in_flight": Field(Whole(1, MAX_IN_FLIGHT), "How many tasks may be out and not answered"),
        "rate": Field(
            Text("a rate", "[0-9]{1,5}/[smh]", "1/s", "5/s"), "How many tasks of a connector go out in a time"
        ),
        "weight": Field(Whole(1, MAX_WEIGHT), "How large its share is beside others, which have 1"),
    }
)
BUDGET: Final = Fields(
    {
        "description": Field(Text(), "For people"),
        "scope": Field(
            Choice(("workspace", "workflow", "customer")), "Whose spending counts, the workspace's without it"
        ),
        "of": Field(Text("a name"), "The workflow or customer; without it each has a budget of its own"),
        "per": Field(Choice(("month", "day", "total")), "When it begins anew, each month without it"),
        "timezone": Field(
            Text("a time zone", example="Europe/Berlin"), "Where its days begin, UTC without it"
        ),
        "cap": Field(Money(), "How many US dollars may be spent", True),
    }
)
SPECS: Final[Mapping[str, Fields]] = {
    "Workflow": WORKFLOW,
    "Intent": INTENT,
    "Schedule": SCHEDULE,
    "Limit": LIMIT,
    "Budget": BUDGET,
}
METADATA: Final = Fields(
    {
        "name": Field(
            Text("a name of lower case letters, digits and hyphens", NAME), "Its name among its kind", True
        ),
        "title": Field(Text(), "What people call it"),
        "description": Field(Text(), "For people"),
    }
)


def checked(document: Document, problems: Problems) -> Document:
    """The document with harmless fields in place of wrong ones, of which all is said."""
    shape = SPECS.get(document.kind)
    if shape is None:
        return document
    check = Check(document, problems)
    METADATA.check(check, "metadata", document.data["metadata"])
    spec = shape.check(check, "spec", document.spec)
    return Document(document.file, {**document.data, "spec": spec}, document.places)


def schema_of(kind: str, spec: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The JSON Schema of a kind of document; `spec` is that of a kind that is described elsewhere."""
    body = spec if spec is not None else SPECS[kind].schema()
    inner = {name: body[name] for name in ("$defs",) if name in body}
    defs = {"step": step_schema(), "jsonSchema": definition()} if spec is None else inner.get("$defs", {})
    return {
        "$schema": DIALECT,
        "$id": f"urn:aios:v1:{kind.lower()}",
        "title": f"AIOS {kind}",
        "type": "object",
        "properties": {
            "apiVersion": {"const": API_VERSION},
            "kind": {"const": kind},
            "metadata": METADATA.schema(),
            "spec": {name: item for name, item in body.items() if name != "$defs"},
        },
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "additionalProperties": False,
        "$defs": defs,
    }


def kinds() -> tuple[str, ...]:
    """The kinds of documents that are described here."""
    return tuple(kind for kind in KINDS if kind in SPECS)
