"""What a test declares of steps: whether it is written as it must be, and of steps that the workflow has."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from aios_core.errors import TerminalError
from aios_orchestrator.workflow import PLAN, WORK, Workflow, path_of

ERROR: Final = ("code", "message", "retryable")
EVENT: Final = ("type", "id", "source", "subject", "data")
WORDS: Final = ("$error", "$attempts", "$event")
ASKS: Final = ("gate", "ask")


def check_results(results: Mapping[str, Any], where: str) -> None:
    """Raises BAD_RESOURCE and UNKNOWN_FIELD naming the field of what no step can give."""
    for step, item in results.items():
        if not isinstance(step, str):
            raise wrong(f"{where}.{step}", "must be the name of a step.")
        _check(item, f"{where}.{step}")


def check_names(workflow: Workflow, results: Iterable[str], no_inverse: Iterable[str]) -> None:
    """Raises INVALID_ARGUMENT for a step that there is not, that gives by itself what it gives, or changes nothing."""
    for field, names in (("results", results), ("no_inverse", no_inverse)):
        for name in names:
            step = workflow.steps.get(path_of(name))
            if step is None and not _planned(workflow, path_of(name)):
                near = difflib.get_close_matches(name, list(workflow.steps), n=1, cutoff=0.5)
                hint = f" (did you mean {near[0]!r}?)" if near else ""
                raise _unfit(field, f"there is no step {name!r}{hint}")
            if step is None or step.kind in WORK:
                continue
            if field == "no_inverse":
                raise _unfit(field, f"{name}: a step of kind {step.kind} changes nothing")
            if step.kind not in ASKS and step.hears is None:
                words = f"a step of kind {step.kind} gives what the workflow says, and is not declared"
                raise _unfit(field, f"{name}: {words}")


def known(fields: Mapping[str, Any], names: Sequence[str], where: str) -> None:
    """Raises UNKNOWN_FIELD for a field that there is not."""
    for name in fields:
        if name not in names:
            raise TerminalError(
                "UNKNOWN_FIELD",
                f"{where}.{name}: there is no such field; it may have: {', '.join(names)}.",
                field="tests",
            )


def wrong(where: str, words: str) -> TerminalError:
    """A test that is not written as it must be."""
    return TerminalError("BAD_RESOURCE", f"{where}: {words}", field="tests")


def _check(item: Any, where: str, words: Sequence[str] = WORDS) -> None:
    found = [word for word in WORDS if isinstance(item, dict) and word in item]
    if not found:
        return
    (word, *_) = found
    if len(item) > 1:
        raise wrong(where, f"what has {word} has nothing else.")
    if word not in words:
        raise wrong(where, f"an attempt gives a value or has $error, and no {word}.")
    value, where = item[word], f"{where}.{word}"
    if word == "$attempts":
        if not isinstance(value, list) or not value:
            raise wrong(where, "must be a list of what each attempt gives, of at least one.")
        for at, one in enumerate(value):
            _check(one, f"{where}[{at}]", ("$error",))
        return
    fields = ERROR if word == "$error" else EVENT
    if value is None and word == "$event":
        return
    if not isinstance(value, dict):
        raise wrong(where, f"must be a map ({', '.join(fields)}).")
    known(value, fields, where)
    if not isinstance(value.get("retryable", False), bool):
        raise wrong(f"{where}.retryable", "must be true or false.")


def _planned(workflow: Workflow, path: str) -> bool:
    """Whether it would be a step of a plan, which is known only when it was drafted."""
    return any(
        step.kind == "plan" and path.startswith(f"{name}.{PLAN}.") for name, step in workflow.steps.items()
    )


def _unfit(field: str, words: str) -> TerminalError:
    return TerminalError("INVALID_ARGUMENT", f"{field}: {words}.", field=field)
