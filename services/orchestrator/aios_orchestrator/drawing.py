"""A workflow as a picture: an outline in text, a Mermaid flowchart, or SVG. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from aios_orchestrator.definition import UNITS
from aios_orchestrator.workflow import Step, Workflow

_WIDE: Final = 7.2  # pixels of a character
_HIGH: Final = 46
_GAP: Final = 28
_PAD: Final = 14
_HEAD: Final = 50  # above the steps of a body
_COLOURS: Final = {
    "agent": "#e3edfb",
    "connector": "#e6f4ea",
    "memory": "#f1eafa",
    "gate": "#fdeecd",
    "ask": "#fdeecd",
    "wait": "#eeeeee",
}
_WRITES: Final = "#fbdfdd"
_SHAPES: Final = {"gate": ("{{", "}}"), "ask": ("{{", "}}"), "branch": ("{", "}"), "wait": ("([", "])")}


def about(step: Step) -> str:
    """What a step is, in a few words."""
    match step.kind:
        case "agent":
            return f"agent {step.target}"
        case "connector" | "memory":
            return f"{step.target}{', changes something' if step.effect else ''}"
        case "gate":
            assert step.gate is not None
            return f"a person approves {', '.join(step.gate.approves) or 'to go on'}"
        case "ask":
            return "a person answers"
        case "branch":
            return f"branch: {', '.join(name for name, _ in step.cases)}"
        case "wait":
            if step.hears is not None:
                return f"waits for event {step.hears.event_type}"
            return "waits until a time" if step.until is not None else f"waits {words_of(step.wait_ms)}"
        case "map":
            collects = ", goes on without what fails" if step.own.collect else ""
            return f"for each item, {step.own.at_once} at once{collects}"
        case "repeat":
            assert step.own.until is not None
            return f"until {step.own.until.text}, at most {step.own.limit} times"
        case "workflow":
            return f"workflow {step.target.partition('@')[0]}"
        case "plan":
            return f"planned by agent {step.target}"
        case "planned":
            return "the steps of the plan" if step.own.child is None else "the plan"
        case kind:
            return kind


def words_of(ms: int) -> str:
    """A duration as a document says it: `90s`, `2h`."""
    fits = (unit for unit, size in UNITS.items() if ms and ms % size == 0)
    unit = max(fits, key=UNITS.__getitem__, default="ms")
    return f"{ms // UNITS[unit]}{unit}"


def outline(workflow: Workflow) -> str:
    """An indented list of the steps; what a step needs is said where it is not just the one before it."""
    lines = [f"{workflow.name}  {workflow.version}"]
    width = max(2 * step.scope.count(".") + len(step.local) for step in workflow.ordered)
    previous: dict[str, str] = {}
    for step in workflow.ordered:
        indent = "  " * step.scope.count(".")
        before = previous.get(step.scope, "")
        usual = step.needs == ((before,) if before else ())
        needs = "" if usual else f"  needs {', '.join(step.needs) or 'nothing'}"
        when = f"  when {step.when.text}" if step.when is not None else ""
        lines.append(f"  {indent}{step.local:{width - len(indent)}}  {about(step)}{needs}{when}")
        previous[step.scope] = step.local
    return "\n".join(lines)


def mermaid(workflow: Workflow) -> str:
    """A flowchart in Mermaid's language; a body is a subgraph."""
    names = {step.name: f"s{at}" for at, step in enumerate(workflow.ordered)}
    scopes, lines = _scopes(workflow), ["flowchart TD"]

    def scope(prefix: str, indent: str) -> None:
        for step in scopes[prefix]:
            label = f"{step.local}<br/>{about(step)}".replace('"', "#quot;")
            if _inner(scopes, step):
                lines.append(f'{indent}subgraph {names[step.name]}["{label}"]')
                scope(step.inside, indent + "  ")
                lines.append(f"{indent}end")
            else:
                before, after = _SHAPES.get(step.kind, ("[", "]"))
                lines.append(f'{indent}{names[step.name]}{before}"{label}"{after}')
            arrow = "-.->" if step.when is not None else "-->"
            lines.extend(f"{indent}{names[prefix + need]} {arrow} {names[step.name]}" for need in step.needs)

    scope("", "  ")
    return "\n".join(lines)


def _scopes(workflow: Workflow) -> dict[str, list[Step]]:
    scopes: dict[str, list[Step]] = {}
    for step in workflow.ordered:
        scopes.setdefault(step.scope, []).append(step)
    return scopes


def _inner(scopes: Mapping[str, list[Step]], step: Step) -> Sequence[Step]:
    """The steps of its rounds. None are known of a plan that is still to be made: it is drawn as one step."""
    return scopes.get(step.inside, ()) if step.body is not None else ()


@dataclass(slots=True)
class _Box:
    """A step with its place within its scope."""

    step: Step
    width: float
    height: float
    inner: "list[_Box]"
    x: float = 0
    y: float = 0


def svg(workflow: Workflow) -> str:
    """A picture of its own: steps from top to bottom, those that may run at the same time side by side."""
    boxes, width, height = _laid_out(_scopes(workflow), "")
    width, height = width + 2 * _PAD, height + 2 * _PAD
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}"'
        f' height="{height:.0f}" font-family="sans-serif" font-size="13" role="img">',
        f"<title>{escape(workflow.name)}</title>",
        '<rect width="100%" height="100%" fill="#ffffff"/>',
    ]
    _draw(boxes, _PAD, _PAD, parts)
    return "\n".join([*parts, "</svg>"])


def _laid_out(scopes: Mapping[str, list[Step]], scope: str) -> tuple[list[_Box], float, float]:
    """The boxes of a scope, and how much room they take."""
    rows: dict[int, list[_Box]] = {}
    layer: dict[str, int] = {}
    waiting = scopes[scope]
    while waiting:
        later = []
        for step in waiting:
            if all(need in layer for need in step.needs):
                layer[step.local] = max((layer[need] + 1 for need in step.needs), default=0)
                rows.setdefault(layer[step.local], []).append(_box(scopes, step))
            else:
                later.append(step)
        waiting = later
    width = max(sum(box.width for box in row) + _GAP * (len(row) - 1) for row in rows.values())
    y = 0.0
    for _, row in sorted(rows.items()):
        x = (width - sum(box.width for box in row) - _GAP * (len(row) - 1)) / 2
        for box in row:
            box.x, box.y = x, y
            x += box.width + _GAP
        y += max(box.height for box in row) + _GAP
    return [box for row in rows.values() for box in row], width, y - _GAP


def _box(scopes: Mapping[str, list[Step]], step: Step) -> _Box:
    text = _WIDE * max(len(step.local), len(about(step)), len(_when(step))) + 2 * _PAD
    high = _HIGH + (16 if step.when is not None else 0)
    if not _inner(scopes, step):
        return _Box(step, text, high, [])
    inner, width, height = _laid_out(scopes, step.inside)
    head = _HEAD + high - _HIGH
    return _Box(step, max(text, width + 2 * _PAD), height + head + _PAD, inner)


def _when(step: Step) -> str:
    return f"when {step.when.text}" if step.when is not None else ""


def _draw(boxes: Sequence[_Box], left: float, top: float, parts: list[str]) -> None:
    home = {box.step.local: box for box in boxes}
    for box in boxes:
        for need in box.step.needs:
            parts.append(_line(home[need], box, left, top))
    for box in boxes:
        x, y, step = left + box.x, top + box.y, box.step
        fill = _WRITES if step.effect else _COLOURS.get(step.kind, "#ffffff")
        parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{box.width:.1f}" height="{box.height:.1f}" rx="6"'
            f' fill="{"#fafafa" if box.inner else fill}" stroke="#7a7a7a"/>'
        )
        told = [
            f'<tspan font-weight="bold">{escape(step.local)}</tspan>',
            *(escape(text) for text in (about(step), _when(step)) if text),
        ]
        for at, text in enumerate(told):
            parts.append(f'<text x="{x + _PAD:.1f}" y="{y + 19 + 16 * at:.1f}">{text}</text>')
        head = _HEAD + (16 if step.when is not None else 0)
        room = box.width - 2 * _PAD - max((inner.x + inner.width for inner in box.inner), default=0)
        _draw(box.inner, x + _PAD + max(room, 0) / 2, y + head, parts)


def _line(first: _Box, then: _Box, left: float, top: float) -> str:
    x1, y1 = left + first.x + first.width / 2, top + first.y + first.height
    x2, y2 = left + then.x + then.width / 2, top + then.y
    middle = (y1 + y2) / 2
    dashed = ' stroke-dasharray="4 3"' if then.step.when is not None else ""
    path = f"M{x1:.1f},{y1:.1f} C{x1:.1f},{middle:.1f} {x2:.1f},{middle:.1f} {x2:.1f},{y2:.1f}"
    return f'<path d="{path}" fill="none" stroke="#7a7a7a"{dashed}/>'
