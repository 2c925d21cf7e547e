"""What an expression gives, from what it reads; and what of it can't ever be computed."""

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from aios_orchestrator.cel_syntax import MACROS, Node, Unsigned
from aios_orchestrator.cel_types import (
    ANY,
    BOOL,
    INT,
    NULL,
    TEXT,
    Type,
    either,
    list_of,
    of,
    of_constant,
    record,
)

Look = Callable[[str], "Type | None"]
"""`inputs`, `item`, `steps.<name>`… to its type; None where there is no such thing, which is told elsewhere."""
Say = Callable[[str], None]

_NUMBERS: Final = ("int", "uint", "double")
_ONE: Final = {
    "+": ("int", "uint", "double", "text", "bytes", "list", "duration"),
    "-": ("int", "uint", "double", "duration"),
    "*": _NUMBERS,
    "/": _NUMBERS,
    "%": ("int", "uint"),
}
_TWO: Final = {
    "+": {("time", "duration"): "time", ("duration", "time"): "time"},
    "-": {("time", "duration"): "time", ("time", "time"): "duration"},
}
_VERBS: Final = {
    "+": "be added to",
    "-": "be lessened by",
    "*": "be multiplied by",
    "/": "be divided by",
    "%": "be divided by",
}
_ORDERED: Final = ("text", "bytes", "bool", "time", "duration")


@dataclass(frozen=True, slots=True)
class _Function:
    """`takes` are the kinds of each argument, the first that of the value before the dot."""

    takes: tuple[tuple[str, ...], ...]
    gives: Type


def _clock(*names: str) -> dict[str, _Function]:
    return {name: _Function((("time", "duration"),), INT) for name in names}


_TEXTS: Final = _Function((("text",), ("text",)), BOOL)
_ALL: Final = ("null", "bool", *_NUMBERS, *_ORDERED, "list", "map")
METHODS: Final[Mapping[str, _Function]] = {
    "size": _Function((("text", "bytes", "list", "map"),), INT),
    "contains": _Function((("text", "list", "map", "bytes"), _ALL), BOOL),
    "startsWith": _TEXTS,
    "endsWith": _TEXTS,
    "matches": _TEXTS,
    **_clock("getHours", "getMinutes", "getSeconds", "getMilliseconds", "getFullYear", "getMonth"),
    **_clock("getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear"),
}
FUNCTIONS: Final[Mapping[str, _Function]] = {
    "size": METHODS["size"],
    "int": _Function(((*_NUMBERS, "text", "time"),), INT),
    "uint": _Function(((*_NUMBERS, "text"),), of("uint")),
    "double": _Function(((*_NUMBERS, "text"),), of("double")),
    "string": _Function((_ALL,), TEXT),
    "bytes": _Function((("text", "bytes"),), of("bytes")),
    "timestamp": _Function((("text", "time"),), of("time")),
    "duration": _Function((("text", "duration"),), of("duration")),
    "type": _Function((_ALL,), TEXT),
    "dyn": _Function((_ALL,), ANY),
    "matches": _TEXTS,
}


def nearest(name: str, names: Iterable[str], else_: str = "") -> str:
    """A hint such as ` Did you mean 'month'?`; ` There are: …` where nothing is near."""
    known = sorted(names)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if near:
        return f" Did you mean {near[0]!r}?"
    if not known or not else_:
        return " It has none." if else_ else ""
    return f" {else_}{', '.join(known[:12])}{', …' if len(known) > 12 else '.'}"


def field_of(base: Type, name: str, text: str, say: Say, lenient: bool = False) -> Type:
    """The type of `base.name`; `lenient` where below a null there is null."""
    if base.never("map"):
        if not (lenient and "null" in base.kinds):
            say(f"{text} is {base}, which has no field {name!r}.")
            return ANY
        return NULL
    if base.closed and name not in base.fields:
        say(f"{text} has no field {name!r}.{nearest(name, base.fields, 'It has: ')}")
        return ANY
    found = base.at(name)
    return found.or_null() if lenient and "null" in base.kinds else found


class Checker:
    """Finds the type of a syntax tree, and says in words what can't be computed."""

    def __init__(self, look: Look, say: Say) -> None:
        self._look = look
        self._say = say
        self._own: list[tuple[str, Type]] = []

    def type_of(self, node: Node) -> Type:
        """Its type; ANY where it is not known."""
        match node.op:
            case "constant":
                return _constant(node.value)
            case "name":
                return self._name(str(node.value))
            case "field":
                return self._field(node, str(node.value))
            case "index":
                return self._index(node)
            case "list":
                items = [self.type_of(arg) for arg in node.args]
                return list_of(either(items)) if items else list_of(ANY)
            case "map":
                return self._map(node)
            case "not":
                self._bool(node.args[0], "!")
                return BOOL
            case "minus":
                return self._minus(node)
            case "?":
                self._bool(node.args[0], "?")
                return either([self.type_of(node.args[1]), self.type_of(node.args[2])])
            case "call":
                return self._call(node)
            case "method":
                return self._method(node)
            case "&&" | "||":
                for arg in node.args:
                    self._bool(arg, node.op)
                return BOOL
            case "==" | "!=":
                return self._equal(node)
            case "in":
                return self._in(node)
            case "<" | "<=" | ">" | ">=":
                return self._order(node)
        return self._sum(node)

    def _name(self, name: str) -> Type:
        for own, type_ in reversed(self._own):
            if own == name:
                return type_
        if name == "steps":
            self._say("steps needs a step's name, such as steps.read.")
        return self._look(name) or ANY

    def _field(self, node: Node, name: str) -> Type:
        base = node.args[0]
        if base.op == "name" and base.value == "steps":
            return self._look(f"steps.{name}") or ANY
        return field_of(self.type_of(base), name, base.text, self._say)

    def _index(self, node: Node) -> Type:
        base, key = node.args
        if base.op == "name" and base.value == "steps" and isinstance(key.value, str):
            return self._look(f"steps.{key.value}") or ANY
        of_base, of_key = self.type_of(base), self.type_of(key)
        if of_base.never("list", "map"):
            self._say(f"{base.text} is {of_base}; only a list or a map has […].")
            return ANY
        if of_base.only("map") and key.op == "constant" and isinstance(key.value, str):
            return field_of(of_base, key.value, base.text, self._say)
        if of_base.only("list") and of_key.never(*_NUMBERS):
            self._say(f"{base.text} is a list; its place must be a whole number, and {key.text} is {of_key}.")
        return of_base.item or ANY if of_base.only("list") else ANY

    def _map(self, node: Node) -> Type:
        keys, values = node.args[::2], [self.type_of(arg) for arg in node.args[1::2]]
        if all(key.op == "constant" and isinstance(key.value, str) for key in keys):
            return record({key.value: value for key, value in zip(keys, values, strict=True)})
        return of("map")

    def _bool(self, node: Node, sign: str) -> None:
        found = self.type_of(node)
        if found.never("bool"):
            self._say(f"{node.text} is {found}; {sign} needs true or false.")

    def _minus(self, node: Node) -> Type:
        found = self.type_of(node.args[0])
        if found.never("int", "double", "duration"):
            self._say(f"{node.args[0].text} is {found}, which has no negative.")
            return ANY
        return found

    def _call(self, node: Node) -> Type:
        name = str(node.value)
        if name == "has":
            if len(node.args) != 1 or node.args[0].op != "field":
                self._say("has(…) takes one field, such as has(inputs.note).")
            else:  # that the field itself may be missing is what is asked
                self.type_of(node.args[0])
            return BOOL
        return self._apply(node, FUNCTIONS, node.args, "function")

    def _method(self, node: Node) -> Type:
        if node.value in MACROS and len(node.args) in (3, 4) and node.args[1].op == "name":
            return self._macro(node)
        if node.args[0].op == "name" and node.args[0].value == "optional":
            return ANY
        return self._apply(node, METHODS, node.args, "method")

    def _apply(self, node: Node, known: Mapping[str, _Function], args: tuple[Node, ...], what: str) -> Type:
        name = str(node.value)
        types = [self.type_of(arg) for arg in args]
        function = known.get(name)
        if function is None:
            near = nearest(name, [*known, *(MACROS if what == "method" else ("has",))], "There are: ")
            self._say(f"there is no {what} {name!r}.{near}")
            return ANY
        if len(args) != len(function.takes):
            most, given = len(function.takes) - (what == "method"), len(args) - (what == "method")
            self._say(f"{name}(…) takes {most or 'no'} argument{'' if most == 1 else 's'}, not {given}.")
            return function.gives
        for arg, type_, takes in zip(args, types, function.takes, strict=True):
            if type_.never(*takes):
                self._say(f"{arg.text} is {type_}; {name} takes {of(*takes)}.")
        return function.gives

    def _macro(self, node: Node) -> Type:
        base, variable, *rest = node.args
        over = self.type_of(base)
        if over.never("list", "map"):
            self._say(f"{base.text} is {over}; {node.value} goes over a list or a map.")
            item = ANY
        else:
            item = TEXT if over.only("map") else (over.item or ANY) if over.only("list") else ANY
        self._own.append((str(variable.value), item))
        if node.value == "map":
            if len(rest) == 2:
                self._bool(rest[0], "its condition")
            result = list_of(self.type_of(rest[-1]))
        else:
            for condition in rest:
                self._bool(condition, str(node.value))
            result = list_of(item) if node.value == "filter" else BOOL
        self._own.pop()
        return result

    def _equal(self, node: Node) -> Type:
        left, right = (self.type_of(arg) for arg in node.args)
        one, two = node.args
        holds = "holds" if node.op == "==" else "fails"
        if "null" not in left.kinds | right.kinds and not comparable(left, right):
            self._say(f"{one.text} is {left} and {two.text} is {right}: {node.text} never {holds}.")
        elif left.only("text") and right.only("text"):
            self._among(node, left.texts or frozenset(), right.texts or frozenset(), holds)
        return BOOL

    def _among(self, node: Node, left: frozenset[str], right: frozenset[str], holds: str) -> None:
        """Two texts of which all that they can be is known have one in common."""
        if left and right and not left & right:
            constant, others = (
                (node.args[0], right) if node.args[0].op == "constant" else (node.args[1], left)
            )
            near = nearest(str(constant.value), others, "It is one of: ")
            self._say(
                f"{constant.text} is none of what the other side can be, so {node.text} never {holds}.{near}"
            )

    def _in(self, node: Node) -> Type:
        one, many = (self.type_of(arg) for arg in node.args)
        if many.never("list", "map"):
            self._say(f"{node.args[1].text} is {many}; only a list or a map has something in it.")
        elif many.only("list") and many.item is not None and not comparable(one, many.item):
            what = f"{node.args[0].text} is {one}, and {node.args[1].text} holds {many.item}"
            self._say(f"{what}: {node.text} never holds.")
        return BOOL

    def _order(self, node: Node) -> Type:
        left, right = (self.type_of(arg) for arg in node.args)
        numbers = not left.never(*_NUMBERS) and not right.never(*_NUMBERS)
        if not numbers and not any(kind in left.kinds and kind in right.kinds for kind in _ORDERED):
            one, two = node.args
            self._say(f"{one.text} is {left} and {two.text} is {right}; {node.op} can't compare them.")
        return BOOL

    def _sum(self, node: Node) -> Type:
        left, right = (self.type_of(arg) for arg in node.args)
        same = [kind for kind in _ONE[node.op] if kind in left.kinds and kind in right.kinds]
        mixed = [
            result
            for (one, two), result in _TWO.get(node.op, {}).items()
            if one in left.kinds and two in right.kinds
        ]
        if not same and not mixed:
            one, two = node.args
            hint = _conversion(left, right)
            self._say(f"{one.text} is {left} and can't {_VERBS[node.op]} {two.text}, which is {right}.{hint}")
            return ANY
        if same == ["list"] and not mixed:
            return list_of(either([left.item or ANY, right.item or ANY]))
        return of(*same, *mixed)


def comparable(left: Type, right: Type) -> bool:
    """Whether two values can ever be equal; numbers of every kind can."""
    numbers = not left.never(*_NUMBERS) and not right.never(*_NUMBERS)
    return numbers or bool(left.kinds & right.kinds)


def _conversion(left: Type, right: Type) -> str:
    if any(one.only("text") and two.only(*_NUMBERS) for one, two in ((left, right), (right, left))):
        return " Use string(…) for text, or int(…) for a number."
    if left.only(*_NUMBERS) and right.only(*_NUMBERS):
        return " Use double(…) or int(…) on one of them."
    return ""


def _constant(value: Any) -> Type:
    if isinstance(value, Unsigned):
        return of("uint")
    if isinstance(value, float):
        return of("double")
    return of("bytes") if isinstance(value, bytes) else of_constant(value)
