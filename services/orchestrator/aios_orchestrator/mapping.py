"""Expressions in documents: how a step's input, a condition or an output is computed from what came before.

A text `${…}` is a CEL expression over `inputs`, `steps.<name>` (a step's output) and `run`, in a map also over `item`
and `index`, in a repeat over `index` and `previous`; a text with `${…}` inside it is a template of text. A plain path
(`${steps.read.files}`) hands the value on as it is, each leaf with its label. Of any other expression the result
carries the meet of the labels of everything that it refers to."""

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final

from aios_core.errors import TerminalError
from aios_core.json_values import dumps, from_json, to_json
from aios_core.labels import RESOURCE, Label, meet
from aios_core.values import Leaf, Plain, Value, follow, label_of, labeled, plain
from aios_core.wording import kind_of
from aios_orchestrator import cel_engine, cel_syntax
from aios_orchestrator.cel_words import longest, problem_of, short, work_of

MAX_EXPRESSION_CHARS: Final = 2000
MAX_COMPILED: Final = 8192  # expressions kept compiled
MAX_TURNS: Final = 1_000_000  # of an expression that goes over lists in lists
BODY_ROOTS: Final = ("item", "index", "previous")  # known only to the steps of a map or a repeat
ROOTS: Final = ("inputs", "steps", "run", "event", *BODY_ROOTS)

_WHOLE: Final = re.compile(r"\s*\$\{(.*)\}\s*", re.DOTALL)
_PART: Final = re.compile(r"\$\{((?:[^{}]|\{[^{}]*\})*)\}")
_PATH: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_-]*)*")
_STEP: Final = re.compile(r"\bsteps\.([A-Za-z_][A-Za-z0-9_-]*)|\bsteps\[[\"']([A-Za-z0-9_-]+)[\"']\]")
_ROOT: Final = re.compile(r"(?<![\w.])(inputs|run|event|item|index|previous)\b")
_QUOTED: Final = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'")

_NONE: Final[Mapping[str, Any]] = {
    "inputs": {},
    "run": {},
    "event": {},
    "item": None,
    "index": None,
    "previous": None,
}

Lookup = Callable[[str], "Value | None"]
"""`inputs`, `run`, `event`, `item`, `index`, `previous` or `steps.<name>` to its value; None when there is none (a step
that was skipped)."""


@dataclass(frozen=True, slots=True)
class Constant:
    """A literal of the document."""

    value: Value

    def evaluate(self, look: Lookup) -> Value:
        return self.value


@dataclass(frozen=True, slots=True)
class Path:
    """A reference without computation; labels stay as they are."""

    root: str
    parts: tuple[str, ...]
    text: str

    def evaluate(self, look: Lookup) -> Value:
        try:
            value = follow(look(self.root), self.parts)
        except KeyError as missing:
            raise TerminalError(
                "EXPRESSION_FAILED", f"${{{self.text}}} has no field {missing}.", expression=self.text
            ) from None
        return Leaf(None, RESOURCE) if value is None else value


@dataclass(frozen=True, slots=True)
class Expression:
    """A CEL program; `roots` are what it refers to. `nested` and `own` say how its work grows with what it reads."""

    text: str
    program: Any
    roots: tuple[str, ...]
    nested: int = 1
    own: int = 1

    def evaluate(self, look: Lookup) -> Value:
        found = {root: look(root) for root in self.roots}
        label = meet(label_of(value) for value in found.values() if value is not None)
        return labeled(self._run(found), label)

    def _run(self, found: Mapping[str, "Value | None"]) -> Plain:
        context: dict[str, Any] = {**_NONE, "steps": {}}
        for root, value in found.items():
            data = None if value is None else to_json(plain(value))
            if root.startswith("steps."):
                name = root.removeprefix("steps.")
                context["steps"][name] = data
                context["steps"][name.replace("-", "_")] = data
            else:
                context[root] = data
        if self.nested > 1 and (longest(context) * self.own) ** self.nested > MAX_TURNS:
            raise TerminalError(
                "EXPRESSION_FAILED",
                f"${{{self.text}}} would go over lists in lists more than {MAX_TURNS:,} times; "
                "compute it in several steps.",
                expression=self.text,
            )
        try:
            return _result(self.program.execute(context))
        except (LookupError, ValueError, TypeError, RuntimeError, ArithmeticError) as error:
            raise TerminalError(
                "EXPRESSION_FAILED", f"${{{self.text}}} could not be computed: {error}.", expression=self.text
            ) from None


@dataclass(frozen=True, slots=True)
class Text:
    """A template of text."""

    parts: tuple["str | Path | Expression", ...]

    def evaluate(self, look: Lookup) -> Value:
        out, labels = [], []
        for part in self.parts:
            if isinstance(part, str):
                out.append(part)
                continue
            value = part.evaluate(look)
            labels.append(label_of(value))
            out.append(as_text(plain(value)))
        return Leaf("".join(out), meet(labels))


@dataclass(frozen=True, slots=True)
class Record:
    """A map of expressions."""

    entries: tuple[tuple[str, "Mapped"], ...]

    def evaluate(self, look: Lookup) -> Value:
        if not self.entries:
            return Leaf({}, RESOURCE)
        return {key: node.evaluate(look) for key, node in self.entries}


@dataclass(frozen=True, slots=True)
class Items:
    """A list of expressions."""

    items: tuple["Mapped", ...]

    def evaluate(self, look: Lookup) -> Value:
        if not self.items:
            return Leaf([], RESOURCE)
        return [node.evaluate(look) for node in self.items]


Mapped = Constant | Path | Expression | Text | Record | Items


def compile_mapping(data: Any, where: str) -> Mapped:
    """The expression tree of a document's value. `where` names the field in errors (BAD_EXPRESSION)."""
    if isinstance(data, Mapping):
        return Record(
            tuple((str(key), compile_mapping(item, f"{where}.{key}")) for key, item in data.items())
        )
    if isinstance(data, list):
        return Items(tuple(compile_mapping(item, f"{where}[{at}]") for at, item in enumerate(data)))
    if isinstance(data, str) and "${" in data:
        whole = _WHOLE.fullmatch(data)
        if whole and not _PART.search(whole[1]) and _balanced(whole[1]):
            return compile_expression(whole[1].strip(), where)
        return _compile_text(data, where)
    return Constant(labeled(from_json(data), RESOURCE))


def compile_expression(text: str, where: str) -> Path | Expression:
    """One CEL expression, without `${}`."""
    if len(text) > MAX_EXPRESSION_CHARS:
        raise TerminalError(
            "BAD_EXPRESSION", f"the expression is longer than {MAX_EXPRESSION_CHARS} characters.", field=where
        )
    if _PATH.fullmatch(text) and text.split(".")[0] in ROOTS:
        parts = text.split(".")
        if parts[0] == "steps" and len(parts) > 1:
            return Path("steps." + parts[1], tuple(parts[2:]), text)
        return Path(parts[0], tuple(parts[1:]), text)
    try:
        return _compiled(text)
    except ValueError as error:
        raise TerminalError("BAD_EXPRESSION", str(error), field=where) from None


@lru_cache(maxsize=MAX_COMPILED)
def _compiled(text: str) -> Expression:
    """An expression is compiled once, wherever it stands. Raises ValueError with what is wrong with it, in words."""
    try:
        program = cel_engine.compile_expression(_cel_names(text))
    except ValueError as error:
        raise ValueError(f"{problem_of(text, error)}.") from None
    unknown = sorted(set(program.variables()) - set(ROOTS) - set(_macro_variables(text)))
    if unknown:
        near = difflib.get_close_matches(unknown[0], (*ROOTS, "true", "false", "null"), n=1, cutoff=0.6)
        hint = f"did you mean {near[0]!r}?" if near else f"an expression knows {', '.join(ROOTS)}."
        what = f"{short(text)} refers to" if text != unknown[0] else "there is no"
        raise ValueError(f"{what} {unknown[0]!r}; {hint}")
    nested, own = work_of(text) if len(_macro_variables(text)) > 1 else (1, 1)
    if own**nested > MAX_TURNS:
        raise ValueError(f"{short(text)} has lists in lists that take too long; compute it in several steps.")
    return Expression(text, program, _roots(text), nested, own)


def forget() -> None:
    """Forget the compiled expressions; only what measures needs it."""
    _compiled.cache_clear()
    cel_syntax.parse.cache_clear()


def compile_condition(data: Any, where: str) -> Path | Expression:
    """A condition, with or without `${}` around it."""
    text = str(data).strip()
    if text.startswith("${") and text.endswith("}"):
        text = text[2:-1].strip()
    return compile_expression(text, where)


def references(node: Mapped) -> Iterable[str]:
    """The roots that an expression tree reads: `inputs`, `run`, `event`, `item`, `index`, `previous`,
    `steps.<name>`."""
    if isinstance(node, Path):
        yield node.root
    elif isinstance(node, Expression):
        yield from node.roots
    elif isinstance(node, Text):
        for part in node.parts:
            if not isinstance(part, str):
                yield from references(part)
    elif isinstance(node, Record):
        for _, item in node.entries:
            yield from references(item)
    elif isinstance(node, Items):
        for item in node.items:
            yield from references(item)


def leaves_of(node: Mapped, where: str) -> Iterator[tuple[Mapped, str]]:
    """The expressions, texts and constants of a tree, each with its place in the document."""
    if isinstance(node, Record):
        for key, item in node.entries:
            yield from leaves_of(item, f"{where}.{key}")
    elif isinstance(node, Items):
        for at, item in enumerate(node.items):
            yield from leaves_of(item, f"{where}[{at}]")
    else:
        yield node, where


def paths(node: Mapped) -> Iterable[Path]:
    """The references without computation in an expression tree."""
    if isinstance(node, Path):
        yield node
    elif isinstance(node, Text):
        yield from (part for part in node.parts if isinstance(part, Path))
    elif isinstance(node, Record):
        for _, item in node.entries:
            yield from paths(item)
    elif isinstance(node, Items):
        for item in node.items:
            yield from paths(item)


def truth(node: Path | Expression, look: Lookup) -> tuple[bool, Label]:
    """A condition and the label of what it depends on. Only true and false are conditions."""
    value = node.evaluate(look)
    data = plain(value)
    if not isinstance(data, bool):
        raise TerminalError(
            "EXPRESSION_FAILED",
            f"The condition {node.text!r} gave {kind_of(data)}; it must be true or false.",
        )
    return data, label_of(value)


def time_of(data: Plain) -> int:
    """The time that a text names in RFC 3339, in ms since 1970. Raises ValueError in a person's words."""
    try:
        moment = datetime.fromisoformat(data) if isinstance(data, str) else data
    except ValueError:
        moment = None
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        raise ValueError(f"{kind_of(data)} is not a time with its zone, such as 2026-12-24T09:00:00+01:00")
    return int(moment.timestamp() * 1000)


def _compile_text(data: str, where: str) -> Text:
    parts: list[str | Path | Expression] = []
    at = 0
    for found in _PART.finditer(data):
        parts.append(data[at : found.start()])
        parts.append(compile_expression(found[1].strip(), where))
        at = found.end()
    parts.append(data[at:])
    if "${" in data[at:]:
        raise TerminalError("BAD_EXPRESSION", f"{short(data)} has a ${{ without its }}.", field=where)
    return Text(tuple(part for part in parts if part != ""))


def _balanced(text: str) -> bool:
    depth = 0
    for char in _QUOTED.sub("", text):
        depth += (char == "{") - (char == "}")
        if depth < 0:
            return False
    return depth == 0


def _cel_names(text: str) -> str:
    """Step names may have hyphens, CEL identifiers may not: `steps.a-b` is read as `steps.a_b`."""
    return _STEP.sub(lambda found: f"steps.{(found[1] or found[2]).replace('-', '_')}", text)


def _roots(text: str) -> tuple[str, ...]:
    bare = _QUOTED.sub('""', text)
    steps = [f"steps.{a or b}" for a, b in _STEP.findall(text)]
    own = set(BODY_ROOTS).intersection(_macro_variables(text))
    return tuple(dict.fromkeys([*(root for root in _ROOT.findall(bare) if root not in own), *steps]))


def _macro_variables(text: str) -> list[str]:
    return re.findall(r"\.(?:map|filter|all|exists|exists_one)\(\s*([A-Za-z_]\w*)\s*,", text)


def _result(data: Any) -> Plain:
    if isinstance(data, float):
        return Decimal(repr(data)) if data != int(data) else int(data)
    if isinstance(data, dict):
        return from_json({str(key): _result(item) for key, item in data.items()})
    if isinstance(data, (list, tuple)):
        return [_result(item) for item in data]
    return from_json(data)


def as_text(data: Plain) -> str:
    """Data as it stands in a text: nothing as nothing, a list or a map as JSON."""
    if data is None:
        return ""
    found = to_json(data)
    return found if isinstance(found, str) else dumps(data).decode()
