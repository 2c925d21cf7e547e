"""Steps, field by field: each kind, and what those that do work have besides."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from aios_core.wording import kind_of
from aios_orchestrator.computed_shapes import ANYTHING, MAYBE, Computed, Condition, Or, each_of
from aios_orchestrator.core.questions import MAX_OPTIONS, MAX_QUESTIONS
from aios_orchestrator.deadline_shape import Deadline
from aios_orchestrator.definition import EFFECTS, MAX_AT_ONCE, MAX_STEPS, MAX_TURNS, work_fields
from aios_orchestrator.definition import KINDS as STEP_KINDS
from aios_orchestrator.gate_language import EXPIRES, GATE, TITLE
from aios_orchestrator.modes import MODES
from aios_orchestrator.plan_language import PLANNED
from aios_orchestrator.problems import Problems
from aios_orchestrator.schema_shape import JsonSchema
from aios_orchestrator.shapes import (
    NAME,
    Check,
    Choice,
    Duration,
    Field,
    Fields,
    MapOf,
    Money,
    Several,
    Text,
    Whole,
    described,
    unknown,
)
from aios_orchestrator.timing import ON_DEADLINE
from aios_orchestrator.workflow import HIGHEST


@dataclass(frozen=True)
class Steps:
    """A list of steps. What is wrong in one leaves the others to be looked at."""

    def check(self, check: Check, path: str, data: Any) -> Any:
        if not isinstance(data, list) or not data:
            check.say(
                path,
                f"must be a list of at least one step, not {kind_of(data)}.",
            )
            return [{"name": "nothing", "agent": "nothing"}]
        if len(data) > MAX_STEPS:
            check.say(path, f"has {len(data)} steps; at most {MAX_STEPS:,} are allowed.")
        return [self._step(check, f"{path}[{at}]", at, item) for at, item in enumerate(data)]

    def _step(self, check: Check, path: str, at: int, data: Any) -> Any:
        """A step, or one of whose result nothing is known."""
        if not isinstance(data, dict):
            check.say(
                path, f"a step is a map of fields such as {{name: read, agent: reader}}, not {kind_of(data)}."
            )
            return {"name": f"nothing-{at}", "agent": "nothing"}
        kinds = [kind for kind in STEP_KINDS if kind in data]
        names = [*_STEP, *(kinds or STEP_KINDS)]
        strange = [name for name in data if name not in names and name not in STEP_KINDS]
        for name in strange:
            check.say(f"{path}.{name}", unknown(name, [*_STEP, *STEP_KINDS], _OTHERS), "UNKNOWN_FIELD")
        if "name" not in data and "id" not in data:
            check.say(f"{path}.name", "is missing: every step has a name.")
        out = {
            name: _STEP[name].shape.check(check, f"{path}.{name}", data[name])
            for name in _STEP
            if name in data
        }
        out.setdefault("name", f"nothing-{at}")
        if len(kinds) != 1:
            if kinds or not strange:  # a kind that was misspelt is told already
                has = f"it has {' and '.join(kinds)}" if kinds else "it has none"
                check.say(path, f"a step has exactly one of {', '.join(STEP_KINDS)}; {has}.")
            return {
                **{name: out[name] for name in ("name", "needs", "when") if name in out},
                "agent": "nothing",
            }
        (kind,) = kinds
        out[kind] = STEPS[kind].shape.check(check, f"{path}.{kind}", data[kind])
        for name in [name for name in out if name in WORK and name not in work_fields(kind)]:
            where = "; its steps may have it" if kind in ("map", "repeat", "workflow") else ""
            check.say(f"{path}.{name}", f"a step of kind {kind} has no {name}{where}.")
            del out[name]
        return out

    def schema(self) -> dict[str, Any]:
        return {"type": "array", "items": {"$ref": "#/$defs/step"}, "minItems": 1, "maxItems": MAX_STEPS}


def step_schema() -> dict[str, Any]:
    """The schema of one step: `#/$defs/step`."""
    fields = {**_STEP, **STEPS}
    return {
        "type": "object",
        "properties": {name: described(each) for name, each in fields.items()},
        "required": ["name"],
        "additionalProperties": False,
        "oneOf": [{"required": [kind]} for kind in STEP_KINDS],
        "allOf": [
            {"if": {"required": [kind]}, "then": {"properties": dict.fromkeys(no, False)}}
            for kind in STEP_KINDS
            if (no := [name for name in WORK if name not in work_fields(kind)])
        ],
    }


_QUESTION: Final = Fields(
    {
        "id": Field(Text("a name for the answer"), "The name of the answer in `answers`", True),
        "text": Field(Text(), "The question", True),
        "why": Field(Computed(), "Why it is asked"),
        "options": Field(Several(Computed(), most=MAX_OPTIONS), "The answers to choose from"),
        "pattern": Field(Computed(), "A regular expression that the answer has to match"),
    }
)


@dataclass(frozen=True)
class Questions:
    """A list of questions, or an expression that gives one."""

    def check(self, check: Check, path: str, data: Any) -> Any:
        if isinstance(data, list) and data and all(isinstance(item, dict) for item in data):
            seen = Several(_Question(), 1, MAX_QUESTIONS, "a list of questions").check(check, path, data)
            ids = [item.get("id") for item in data]
            for at, name in enumerate(ids):
                if name is not None and name in ids[:at]:
                    check.say(f"{path}[{at}].id", f"{name!r} stands twice.")
            return seen
        if isinstance(data, str) and "${" in data:
            return each_of(check, path, data)
        check.say(
            path,
            "must be a list of questions ({id, text, why, options, pattern}), or an expression that gives one, "
            f"not {kind_of(data)}.",
        )
        return ANYTHING

    def schema(self) -> dict[str, Any]:
        questions = {"type": "array", "minItems": 1, "maxItems": MAX_QUESTIONS, "items": _Question().schema()}
        return {"anyOf": [questions, {"type": "string", "pattern": r"\$\{"}]}


@dataclass(frozen=True)
class _Question:
    """One question that stands in the document; it may have fields of its own, which its answer keeps."""

    def check(self, check: Check, path: str, data: Any) -> Any:
        for name, each in _QUESTION.fields.items():
            if name in data:
                each.shape.check(check, f"{path}.{name}", data[name])
            elif each.required:
                check.say(f"{path}.{name}", f"is missing: {each.about.lower()}.")
        return each_of(Check(check.document, Problems()), path, data)

    def schema(self) -> dict[str, Any]:
        return {**_QUESTION.schema(), "additionalProperties": True}


@dataclass(frozen=True)
class Awaited(Fields):
    """What a step waits for: until a time, or for an event."""

    def check(self, check: Check, path: str, data: Any) -> Any:
        out = super().check(check, path, data)
        if "until" in out and "event" in out:
            check.say(
                f"{path}.event", "waits for a time or for an event, not both; an event may have a timeout."
            )
            del out["event"]
        if "until" in out:
            for name in [name for name in out if name != "until"]:
                if name in data and name != "event":
                    check.say(f"{path}.{name}", "belongs to a wait for an event; it has none.")
                out.pop(name)
        if not out and data:  # what is misspelt is told already
            out["until"] = "2026-01-01T00:00:00Z"
        return out

    def schema(self) -> dict[str, Any]:
        return {**super().schema(), "oneOf": [{"required": ["until"]}, {"required": ["event"]}]}


_RESULT: Final = Field(Computed(), "What a round gives; without it, what its last step gave")
_BODY: Final = Field(Steps(), "The steps of a round", True)
STEPS: Final[Mapping[str, Field]] = {
    "agent": Field(
        Text("the name of an agent", NAME, "nothing", "monthly-report"), "An agent works on `input`"
    ),
    "connector": Field(
        Text("<connector>.<action>", f"{NAME}\\.[A-Za-z0-9_-]+", "files.look", "files.write_file"),
        "An action of a connector",
    ),
    "memory": Field(Choice(("read", "write")), "Reads or writes the company's memory"),
    "gate": GATE,
    "ask": Field(
        Fields({"title": TITLE, "questions": Field(Questions(), "What is asked", True), "expires": EXPIRES}),
        "A person answers questions",
    ),
    "branch": Field(
        Fields(
            {
                "cases": Field(
                    MapOf(Condition(), "a map from a case's name to its condition", 1, {"none": MAYBE}),
                    "The conditions, by the names of their cases",
                    True,
                ),
                "otherwise": Field(Text("the name of a case"), "The case where none holds"),
            }
        ),
        "The first case whose condition holds",
    ),
    "transform": Field(Computed(), "Computes"),
    "wait": Field(
        Or(
            Duration(),
            Awaited(
                {
                    "until": Field(Computed(), "A time with its zone, such as 2026-12-24T09:00:00+01:00"),
                    "event": Field(Text("the type of an event"), "The type of an event that it waits for"),
                    "match": Field(Condition(), "The condition under which an event is the one"),
                    "timeout": Field(Duration(), "How long it waits for an event, for ever without it"),
                    "on_timeout": Field(Choice(("fail", "go-on")), "What happens when none came in time"),
                }
            ),
        ),
        "Waits for a time, until one, or for an event",
    ),
    "map": Field(
        Fields(
            {
                "over": Field(Computed(), "The list whose items are gone through", True),
                "at_once": Field(Whole(1, MAX_AT_ONCE), "Items under way at a time, 10 without it"),
                "on_failure": Field(
                    Choice(("fail", "collect")), "What an item that fails does to the others"
                ),
                "steps": _BODY,
                "result": _RESULT,
            }
        ),
        "Its steps for each item of a list",
    ),
    "repeat": Field(
        Fields(
            {
                "steps": _BODY,
                "until": Field(Condition(), "The condition that ends it", True),
                "limit": Field(Whole(1, MAX_TURNS), "How many turns it takes at most", True),
                "at_limit": Field(Choice(("fail", "go-on")), "What happens when the limit is reached"),
                "result": _RESULT,
            }
        ),
        "Its steps again until a condition holds",
    ),
    "workflow": Field(
        Text("the name of a workflow", f"{NAME}(@[0-9a-f]{{4,64}})?", "nothing", "send-invoice"),
        "Another workflow's steps, with `input`",
    ),
    "plan": PLANNED,
}


TIMES: Final[Mapping[str, Field]] = {
    "deadline": Field(
        Deadline(),
        "How long after its beginning it has to be done, or the time by which, which may be computed",
    ),
    "on_deadline": Field(Choice(ON_DEADLINE), "What happens when its deadline passes, `fail` without it"),
    "service_level": Field(Duration(), "How long it takes at most without being late"),
}
WORK: Final[Mapping[str, Field]] = {
    "input": Field(Computed(), "What it works on"),
    "effect": Field(
        Choice(EFFECTS),
        "What it does to the world: `write` can be taken back, `irreversible` can't, `payment` spends money, "
        "`legal` binds the company; the last three need a gate",
    ),
    "mode": Field(Choice(tuple(MODES)), "How the agent works; without it, as its workflow says"),
    "cache": Field(
        Or(
            Duration(),
            Fields(
                {
                    "key": Field(Computed(), "What it is kept under; without it, the whole input"),
                    "ttl": Field(Duration(), "How long an answer may be given again", True),
                }
            ),
        ),
        "How long the answer of the same version to the same input may be given again",
    ),
    "compensate": Field(
        Fields(
            {
                "connector": Field(
                    Text(
                        "<connector>.<action>", f"{NAME}\\.[A-Za-z0-9_-]+", "files.look", "files.append_line"
                    ),
                    "An action of a connector",
                    True,
                ),
                "input": Field(Computed(), "What it works on; it sees the step's own result too"),
                "effect": Field(Choice(("write",)), "What it does to the world: a change"),
            }
        ),
        "What undo runs in the place of the recorded inverse of what the step changed",
    ),
    "gives": Field(JsonSchema(), "A JSON Schema of its result, which is checked when it comes"),
    "retry": Field(
        Fields(
            {
                "limit": Field(Whole(1, 100), "Attempts in all, 5 without it"),
                "backoff": Field(
                    Duration(), "The wait before the second attempt, which doubles; 1s without it"
                ),
                "max_backoff": Field(Duration(), "The longest wait, 1m without it"),
                "jitter": Field(Whole(0, 100), "Percent by which waits differ, 20 without it"),
                "never": Field(
                    Several(
                        Text("a reason code", "[A-Z][A-Z0-9_]{1,63}", "X1", "MAIL_REFUSED"),
                        about="a list of reason codes",
                    ),
                    "Codes that are final",
                ),
            }
        ),
        "How often it is tried, and when",
    ),
    "timeout": Field(
        Or(
            Duration(),
            Fields(
                {
                    "queued": Field(
                        Duration(), "In which a worker has to begin; else the attempt has failed"
                    ),
                    "running": Field(Duration(), "How long one attempt may take, 5m without it"),
                    "total": Field(Duration(), "How long all attempts and the waits between may take"),
                }
            ),
        ),
        "How long one attempt may take, 5m without it; or how long what may take",
    ),
    "budget": Field(Money(), "US dollars that are held before each attempt"),
    **TIMES,
    "priority": Field(Whole(0, HIGHEST), "How urgent its tasks are, 0 to 9; without it as the workflow says"),
}
_STEP: Final[Mapping[str, Field]] = {
    "name": Field(
        Text("a name of at most 63 lower case letters, digits and hyphens", NAME, "nothing", "write-report"),
        "Its name, which the expressions of others use",
    ),
    "description": Field(Text(), "For people"),
    "needs": Field(
        Several(Text("a step's name", NAME), distinct=True, about="a list of step names"),
        "The steps before it; without it, the one above",
    ),
    "when": Field(Condition(), "It is skipped where this does not hold"),
    **WORK,
}
# What other languages of workflows call it.
_OTHERS: Final = {
    **dict.fromkeys(("if", "condition", "unless", "guard"), "when"),
    **dict.fromkeys(("depends_on", "after", "dependsOn", "requires"), "needs"),
    **dict.fromkeys(("with", "inputs", "args", "arguments", "parameters", "params"), "input"),
    **dict.fromkeys(("foreach", "for_each", "for", "parallel"), "map"),
    **dict.fromkeys(("loop", "while", "until"), "repeat"),
    **dict.fromkeys(("sleep", "delay"), "wait"),
    **dict.fromkeys(("approval", "approve", "human"), "gate"),
    **dict.fromkeys(("switch", "case"), "branch"),
    **dict.fromkeys(("id",), "name"),
    **dict.fromkeys(("output", "outputs", "returns"), "gives"),
    **dict.fromkeys(("call", "action", "tool"), "connector"),
    **dict.fromkeys(("set", "compute", "vars"), "transform"),
}
STEP_FIELDS: Final = (*_STEP, *STEP_KINDS)
