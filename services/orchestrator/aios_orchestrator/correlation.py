"""How an event finds what waits for it: both sides name a correlation, and the store has an index of them. Pure.

A wait says under what condition an event is the one that it waits for. One of the equations in it has the event alone
on one side, and nothing of the event on the other; what they give is the key by which the two find each other, however
many others wait. The whole condition is asked afterwards.
"""

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Final

from aios.event.v1.event_pb2 import Resolution
from aios_core.errors import TerminalError
from aios_core.ids import derive
from aios_core.json_values import loads
from aios_core.labels import outside
from aios_core.values import Plain, Value, labeled, plain
from aios_orchestrator.mapping import Expression, Lookup, Path, compile_expression, references

MAX_CORRELATIONS: Final = 100  # expressions by which workflows wait for one event type

_QUOTED: Final = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'")
_HARD: Final = re.compile(r"\"\"\"|'''|\b[rRbB]{1,2}[\"']")  # texts that are not read here
_COMPARES: Final = re.compile(r"==|!=|<=|>=|<|>|\bin\b")


def equation(text: str) -> tuple[str, str] | None:
    """Of a condition over `event` and what a step sees: the two sides of the first equation that must hold, that of the
    event first. None when there is none. The condition itself must compile."""
    bare = _outermost(text)
    if bare is None or "||" in bare or "?" in bare or "//" in bare:
        return None
    at = 0
    for part in bare.split("&&"):
        begin, at = at, at + len(part) + 2
        if _COMPARES.findall(part) != ["=="]:
            continue
        middle = begin + part.index("==")
        sides = text[begin:middle].strip(), text[middle + 2 : begin + len(part)].strip()
        roots = [set(references(compile_expression(side, "match"))) for side in sides]
        for own, other in ((0, 1), (1, 0)):
            if roots[own] == {"event"} and "event" not in roots[other]:
                return sides[own], sides[other]
    return None


def _outermost(text: str) -> str | None:
    """The text with what stands in quotes or brackets blanked out, as long as it was; None when that can't be told."""
    if _HARD.search(text):
        return None
    depth, out = 0, []
    for char in _QUOTED.sub(lambda found: "_" * len(found[0]), text):
        depth -= char in ")]}"
        out.append(char if depth <= 0 else "_")
        depth += char in "([{"
    return "".join(out)


def correlation_of(workspace: str, event_type: str, expression: str, key: Plain) -> str | None:
    """The correlation of a key: texts, numbers and truth values are keys, all else is none."""
    if isinstance(key, bool):
        word = f"b:{key}"
    elif isinstance(key, int | Decimal):
        word = f"n:{Decimal(key).normalize():f}"
    elif isinstance(key, str):
        word = f"t:{key}"
    else:
        return None
    return derive("cor", workspace, event_type, expression, word)


def correlations_of(
    workspace: str, event: Resolution, expressions: Mapping[str, Path | Expression | None]
) -> list[str]:
    """All correlations of an event under the expressions by which its type is waited for (None: by the type alone)."""
    if not expressions:
        return []
    try:
        seen = event_value(event)
    except TerminalError:  # what can't be read is waited for by nobody
        return []

    def look(root: str) -> Value | None:
        return seen if root == "event" else None

    found = []
    for text, expression in expressions.items():
        try:
            key = plain(expression.evaluate(look)) if expression is not None else ""
        except TerminalError:  # such an event is none of those
            continue
        correlation = correlation_of(workspace, event.event_type, text, key)
        found += [correlation] if correlation is not None else []
    return found


def event_value(event: Resolution) -> Value:
    """What expressions see of an accepted event under `event`; all of it comes from outside. Raises BAD_VALUE,
    TOO_DEEP or TOO_LARGE."""
    data = loads(event.event_data) if event.event_data else None
    head = {"type": event.event_type, "source": event.event_source, "id": event.event_id}
    label = outside(f"event:{event.event_source}")
    return labeled({**head, "subject": event.event_subject, "data": data}, label)


def seeing(event: Value, look: Lookup) -> Lookup:
    """What a condition over an event and a step's surroundings sees."""
    return lambda root: event if root == "event" else look(root)


def index_of(correlation: str) -> str:
    """The name of the index under which runs are found that wait under a correlation."""
    return f"await:{correlation}"
