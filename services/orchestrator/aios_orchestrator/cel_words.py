"""What is said of a CEL expression that can't be read, and how much work one may be."""

import re
from typing import Any, Final

from aios_orchestrator import cel_syntax

_CEL_ERROR: Final = re.compile(r"<input>:\d+:(\d+): ([^\n]*)")
_CEL_UNEXPECTED: Final = re.compile(
    r"(?:extraneous|mismatched|recognition error at:|alternative at)(?: input)? '(.*?)'(?: |$)"
)
_CEL_WORDS: Final = {
    "int literal": "this number is too large",
    "has() macro": "has(…) takes one field, such as has(inputs.note)",
}
_CEL_MEANT: Final = {
    "=": "; == compares",
    "&": "; && means and",
    "|": "; || means or",
    "and": "; && means and",
    "or": "; || means or",
    "not": "; ! means not",
}


def problem_of(text: str, error: Exception) -> str:
    """What is wrong and where, in words made from the library's."""
    if not text.strip():
        return "the expression is empty"
    found = _CEL_ERROR.search(str(error))
    what = found[2].replace("Syntax error:", "").strip() if found else ""
    unexpected = _CEL_UNEXPECTED.search(what)
    if "Incomplete" in what:
        said = "a ? needs what is given else, after a :"
    elif unexpected and unexpected[1][:1] in ("'", '"'):
        said = "a text is not closed"
    elif unexpected and unexpected[1] != "<EOF>":
        sign = unexpected[1].strip() or unexpected[1]
        said = f"{sign!r} is not expected here{_CEL_MEANT.get(sign, '')}"
    elif "<EOF>" in what:
        said = "it ends too early"
    else:
        plain = next((words for part, words in _CEL_WORDS.items() if part in what), what[:160].rstrip("."))
        said = plain or "it can't be read"
    at = f", at character {found[1]}" if found else ""
    return f"{short(text)} is not valid CEL{at}: {said}"


def longest(data: Any) -> int:
    """The length of the longest list or map in some data."""
    if not isinstance(data, (list, dict)):
        return 1
    inner = data.values() if isinstance(data, dict) else data
    return max(len(data), max(map(longest, inner), default=1))


def work_of(text: str) -> tuple[int, int]:
    """How deep the lists that an expression goes over stand in each other, and how long what it makes by itself may be
    in proportion to what it reads."""
    try:
        tree = cel_syntax.parse(text)
    except ValueError:
        return text.count("("), len(text)
    longest = max(
        [len(node.args) for node in cel_syntax.nodes(tree) if node.op in ("list", "map")], default=1
    )
    return cel_syntax.nesting(tree), longest * (1 + text.count("+"))


def short(text: str) -> str:
    """The beginning of an expression, in quotes."""
    return f"{text[:60]!r}{'…' if len(text) > 60 else ''}"
