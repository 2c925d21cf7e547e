"""What a test of a workflow declares and expects, what came of it, and what of that is not as expected."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from aios_core.json_values import to_json
from aios_orchestrator.declared import check_results, known, wrong

FIELDS: Final = ("name", "workflow", "input", "results", "no_inverse", "expect")
LISTS: Final = ("ran", "undone", "left")  # of names, in `expect`
EXPECTED: Final = ("state", "outputs", "error", "gave", "compensated", *LISTS)


@dataclass(frozen=True, slots=True)
class Case:
    """One test. `results` are what steps give, by their names in a run or in the document (`each[].send`): a value,
    `{$error: {code, message, retryable}}`, or a list of these under `$attempts`, one an attempt. Of a gate: `approve`
    or `reject`; of an ask: the answers; of both: `expire`, so that nobody decides; of a wait for an event:
    `{$event: {id, source, subject, data}}`, or nothing, so that its time-out comes. What waits at the same time comes
    in the order of `results`. `no_inverse` are the steps, by such names, whose connector can't take back what they
    do."""

    name: str
    input: Mapping[str, Any]
    results: Mapping[str, Any]
    expect: Mapping[str, Any]
    no_inverse: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Undoing:
    """What the undo of a run that failed would do with one change: run the inverse, or `instead` with `given`, or
    leave it (`stays`), and why."""

    step: str
    target: str
    stays: bool
    why: str
    instead: str
    given: Any

    def shape(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "step": self.step,
            "target": self.target,
            "stays": self.stays,
            "why": self.why,
            "instead": self.instead or None,
            "instead_input": self.given,
        }


@dataclass(slots=True)
class Rehearsed:
    """What came of a case: the steps that began in their order with what became of them, and what did not fit."""

    name: str
    state: str
    outputs: Any
    error: str = ""
    steps: dict[str, dict[str, Any]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    virtual_ms: int = 0
    undo: list[Undoing] = field(default_factory=list)
    """Where the workflow says `on_failure: undo` and the run failed: in the order of undoing, then what stays."""

    def shape(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "name": self.name,
            "passed": not self.problems,
            "state": self.state,
            "outputs": self.outputs,
            "error": self.error,
            "steps": self.steps,
            "problems": self.problems,
            "virtual_ms": self.virtual_ms,
            "undo": [item.shape() for item in self.undo],
        }


def compared(expect: Mapping[str, Any], told: Rehearsed) -> list[str]:
    """What is not as expected, one sentence each."""
    problems = []
    wanted = str(expect.get("state", "succeeded"))
    if told.state != wanted:
        problems.append(
            f"state: expected {wanted}, got {told.state}{f' ({told.error})' if told.error else ''}"
        )
    if "outputs" in expect:
        problems += _unlike("outputs", to_json(expect["outputs"]), told.outputs)
    if "error" in expect and f"[{expect['error']}]" not in told.error:
        problems.append(f"error: expected {expect['error']}, got {told.error or 'none'}")
    ran = [name for name, step in told.steps.items() if step["state"] != "skipped"]
    if "ran" in expect and ran != list(expect["ran"]):
        problems.append(f"ran: expected {', '.join(expect['ran'])}; got {', '.join(ran) or 'none'}")
    problems += _compared_undo(expect, told.undo)
    for name, gave in dict(expect.get("gave", {})).items():
        found = told.steps.get(name)
        if found is None:
            problems.append(f"gave: {name} did not begin")
        else:
            problems += _unlike(f"gave.{name}", to_json(gave), found["gave"])
    return problems


def _compared_undo(expect: Mapping[str, Any], undo: list[Undoing]) -> list[str]:
    problems = []
    for word, stays in (("undone", False), ("left", True)):
        found = [item.step for item in undo if item.stays == stays]
        if word in expect and found != list(expect[word]):
            wanted = ", ".join(expect[word]) or "none"
            why = "".join(f" ({item.step}: {item.why})" for item in undo if item.stays and item.why)
            problems.append(f"{word}: expected {wanted}; got {', '.join(found) or 'none'}{why}")
    instead = {item.step: item for item in undo if item.instead}
    for name, given in dict(expect.get("compensated", {})).items():
        if name not in instead:
            problems.append(f"compensated: no other action makes {name} good")
        else:
            problems += _unlike(f"compensated.{name}", to_json(given), instead[name].given)
    return problems


def _unlike(where: str, expected: Any, got: Any) -> list[str]:
    """Where two values differ: of maps the fields that are expected are looked at, and no others."""
    if isinstance(expected, dict) and isinstance(got, dict):
        return [
            problem
            for name, item in expected.items()
            for problem in _unlike(f"{where}.{name}", item, got.get(name))
        ]
    if expected == got and type(expected) is type(got):
        return []
    return [f"{where}: expected {expected!r}, got {got!r}"]


def cases_of(data: Any) -> list[Case]:
    """The cases of a list of tests. Raises BAD_RESOURCE and UNKNOWN_FIELD naming the field."""
    if not isinstance(data, list) or not data:
        raise wrong("tests", "must be a list of at least one test.")
    return [_case(item, at) for at, item in enumerate(data)]


def _case(item: Any, at: int) -> Case:
    if not isinstance(item, dict):
        raise wrong(f"tests[{at}]", f"must be a map ({', '.join(FIELDS)}).")
    known(item, FIELDS, f"tests[{at}]")
    for name in ("input", "results", "expect"):
        if not isinstance(item.get(name, {}), dict):
            raise wrong(f"tests[{at}].{name}", "must be a map.")
    check_results(item.get("results", {}), f"tests[{at}].results")
    expect = item.get("expect", {})
    known(expect, EXPECTED, f"tests[{at}].expect")
    for name in ("gave", "compensated"):
        if not isinstance(expect.get(name, {}), dict):
            raise wrong(f"tests[{at}].expect.{name}", "must be a map from steps to values.")
    lists = {f"expect.{name}": expect.get(name, []) for name in LISTS}
    for where, names in {**lists, "no_inverse": item.get("no_inverse", [])}.items():
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise wrong(f"tests[{at}].{where}", "must be a list of names of steps.")
    return Case(
        str(item.get("name", f"test {at + 1}")),
        item.get("input", {}),
        item.get("results", {}),
        expect,
        frozenset(item.get("no_inverse", [])),
    )
