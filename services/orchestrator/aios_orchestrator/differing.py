"""What is different between two versions of a workflow, and what of it a run under way could not follow. Pure.

A run keeps the version that it began with; this is for whoever decides whether to wait for it, to move it, or to start
anew. `core.migrate` says it of one run."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any, Final

from aios_core.money import format_usd
from aios_orchestrator.mapping import Mapped, leaves_of
from aios_orchestrator.workflow import Body, Planning, Step, Workflow

_SAME: Final = ("place", "scope", "name", "lane", "kind", "grade", "by_order")
OF_ATTEMPTS: Final = frozenset({"retry", "timeout", "time", "budget", "priority", "cache", "mode"})
"""What counts from the next attempt on: what was done before does not depend on it."""
_WORDS: Final = {
    "hold": "budget",
    "timeout_ms": "timeout",
    "bounds": "time",
    "wait_ms": "wait",
    "output": "transform",
    "effect": "effect",
}


@dataclass(frozen=True, slots=True)
class Change:
    """A step that is in both, and which of its fields differ."""

    step: str
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """Steps by name; `breaks` says in sentences why a run that began under the old version could not go on under the
    new one."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[Change, ...]
    other: tuple[str, ...]
    breaks: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed or self.other)

    def shape(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "added": list(self.added),
            "removed": list(self.removed),
            "changed": {change.step: list(change.fields) for change in self.changed},
            "other": list(self.other),
            "breaks": list(self.breaks),
        }

    def lines(self) -> Iterator[str]:
        """For a person."""
        if not self:
            yield "They do the same."
            return
        yield from (f"+ {name}" for name in self.added)
        yield from (f"- {name}" for name in self.removed)
        yield from (f"~ {change.step}: {', '.join(change.fields)}" for change in self.changed)
        yield from (f"~ {words}" for words in self.other)
        yield ""
        if not self.breaks:
            yield "Whatever a run of the first has done is as the second would have it."
            return
        yield "A run of the first goes on with the first. What `aios run migrate` would look at:"
        yield from (f"- {words}" for words in self.breaks)


def difference(old: Workflow, new: Workflow) -> Difference:
    """What is different, and what a run under way could not follow."""
    added = tuple(name for name in new.steps if name not in old.steps)
    removed = tuple(name for name in old.steps if name not in new.steps)
    both = [(step, new.steps[name]) for name, step in old.steps.items() if name in new.steps]
    changed = tuple(Change(one.name, names) for one, two in both if (names := differing(one, two)))
    other = []
    if old.inputs != new.inputs:
        other.append("inputs")
    if _text(old.outputs) != _text(new.outputs):
        other.append("outputs")
    if old.cap != new.cap:
        other.append(f"cap: {format_usd(old.cap)} → {format_usd(new.cap)}")
    for name in ("concurrency", "customer"):
        if _text(getattr(old, name)) != _text(getattr(new, name)):
            other.append(name)
    if old.priority != new.priority:
        other.append(f"priority: {old.priority} → {new.priority}")
    for name, one, two in (
        ("deadline or service_level", _text(old.bounds), _text(new.bounds)),
        ("on_failure", old.undo_on_failure, new.undo_on_failure),
        ("mode", old.mode, new.mode),
    ):
        if one != two:
            other.append(name)
    if old.spike != new.spike:
        other.append("spike")
    return Difference(
        added, removed, changed, tuple(other), tuple(_breaks(old, new, removed, changed, added))
    )


def _breaks(
    old: Workflow,
    new: Workflow,
    removed: tuple[str, ...],
    changed: tuple[Change, ...],
    added: tuple[str, ...],
) -> Iterator[str]:
    for name in removed:
        yield f"{name} is not there any more: where it has begun, what it did would belong to nothing."
    for change in changed:
        hard = [name for name in change.fields if name not in OF_ATTEMPTS]
        if {"kind", "target"} & set(hard):
            yield f"{change.step} is another thing now: where it has begun, its result is of the earlier one."
        elif hard:
            what = ", ".join(hard)
            yield f"{change.step} has another {what}: where it has begun, or was approved, that was the earlier."
    for name in added:
        after = sorted(step for step in new.dependents.get(name, ()) if step in old.steps)
        if after:
            yield f"{name} comes before {', '.join(after)}: where those have begun, it was left out."
    known = old.inputs.get("properties", {})
    for name in new.inputs.get("required", []):
        if name not in old.inputs.get("required", []) and "default" not in known.get(name, {}):
            yield f"the input {name} is needed now: a run that began without it has none."
    for name, schema in new.inputs.get("properties", {}).items():
        if name in known and known[name] != schema:
            yield f"the input {name} has another schema: what a run was given may break it."
    if new.cap < old.cap:
        yield f"the cap is lower: a run may have spent more than {format_usd(new.cap)} already."


def differing(one: Step, two: Step, renaming: Callable[[str], str] = lambda text: text) -> tuple[str, ...]:
    """The fields in which two steps differ, by the words of the document; `renaming` has what the first says of steps
    use the names of the second."""
    names = ["kind"] if one.kind != two.kind else []
    for each in fields(Step):
        if each.name in _SAME:
            continue
        if _said(_text(getattr(one, each.name)), renaming) != _text(getattr(two, each.name)):
            names.append(_WORDS.get(each.name, each.name))
    if one.grade != two.grade and "effect" not in names:
        names.append("effect")
    return tuple(names)


def _said(value: Any, renaming: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return renaming(value)
    if isinstance(value, list | tuple):
        return type(value)(_said(item, renaming) for item in value)
    if isinstance(value, dict):
        return {key: _said(item, renaming) for key, item in value.items()}
    return value


def _text(value: Any) -> Any:
    """Something that is equal where two values mean the same; compiled programs are compared by their text."""
    if isinstance(value, tuple):
        return [_text(item) for item in value]
    if isinstance(value, Planning):
        return str(value)
    if isinstance(value, Body):
        own = {
            each.name: _text(getattr(value, each.name))
            for each in fields(Body)
            if each.name not in ("child", "roots")
        }
        return {**own, "child": value.child.version if value.child else ""}
    if hasattr(value, "source"):
        return value.source
    if isinstance(value, Mapped):
        return [
            (place, getattr(leaf, "text", repr(getattr(leaf, "value", _parts(leaf)))))
            for leaf, place in leaves_of(value, "")
        ]
    if hasattr(value, "__dataclass_fields__"):
        return {each.name: _text(getattr(value, each.name)) for each in fields(value)}
    return value


def _parts(leaf: Any) -> list[str]:
    return [part if isinstance(part, str) else part.text for part in getattr(leaf, "parts", ())]
