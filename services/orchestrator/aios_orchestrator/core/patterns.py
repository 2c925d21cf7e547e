"""Patterns that an agent's question brings: matched in time that is linear in the text, whatever they are. Pure."""

from functools import lru_cache
from typing import Final

from pydantic_core import SchemaError, SchemaValidator, ValidationError, core_schema

from aios_core.errors import TerminalError

MAX_PATTERN_CHARS: Final = 4_000
COMPILED: Final = 256  # patterns kept compiled


@lru_cache(COMPILED)
def _compiled(pattern: str) -> SchemaValidator:
    schema = core_schema.str_schema(pattern=f"^(?:{pattern})$", regex_engine="rust-regex")
    return SchemaValidator(schema)


def check(pattern: str, question: str) -> None:
    """Raises BAD_OUTPUT for a pattern that is too long, too large, or none."""
    why = f"has more than {MAX_PATTERN_CHARS} characters" if len(pattern) > MAX_PATTERN_CHARS else ""
    if not why:
        try:
            _compiled(pattern)
        except SchemaError:
            why = "can't be read; it may have no look-around and no back-references, and must stay small"
    if why:
        raise TerminalError("BAD_OUTPUT", f"The pattern of question {question!r} {why}.")


def matches(pattern: str, text: str) -> bool:
    """Whether the whole text is what a checked pattern says."""
    try:
        _compiled(pattern).validate_python(text, strict=True)
    except (ValidationError, SchemaError):
        return False
    return True
