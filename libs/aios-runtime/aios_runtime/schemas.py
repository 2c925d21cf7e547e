"""JSON Schema: compiled once, without ever fetching what a schema refers to."""

from collections.abc import Mapping
from typing import Any, Final, NoReturn

import jsonschema_rs

from aios_core.errors import TerminalError

MAX_SENTENCE_CHARS: Final = 300


class Schema:
    """A compiled JSON Schema (draft 2020-12). Raises ValueError, in words, for what is not one."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        try:
            self._schema = schema
            self._validator = jsonschema_rs.Draft202012Validator(dict(schema), retriever=_refuse)
        except (jsonschema_rs.ValidationError, ValueError) as error:
            raise ValueError(str(getattr(error, "message", error)).splitlines()[0][:200]) from None

    @property
    def source(self) -> Mapping[str, Any]:
        """The schema itself."""
        return self._schema

    def problem(self, data: Any) -> tuple[str, str] | None:
        """(path, sentence) of the first thing that is wrong with JSON data, in the order of paths; None if nothing."""
        if self._validator.is_valid(data):
            return None
        errors = sorted(
            self._validator.iter_errors(data), key=lambda error: [str(part) for part in error.instance_path]
        )
        path = ".".join(str(part) for part in errors[0].instance_path)
        return path, self._sentence(errors[0])[:MAX_SENTENCE_CHARS]

    def _sentence(self, error: Any) -> str:
        """What is wrong, in the schema's own words where its author described the field."""
        *place, rule = [str(part) for part in error.schema_path] or [""]
        described = ""
        node: Any = self._schema
        for part in place:
            node = node.get(part, {}) if isinstance(node, Mapping) else {}
        if isinstance(node, Mapping):
            described = str(node.get("description", "")).rstrip(".")
        message = str(error.message)
        if rule == "pattern" and described:
            return f"{message.partition(' does not match ')[0]} is not right; it takes {_lower(described)}"
        return message.replace(" is a required property", " is missing")

    def check(self, data: Any, where: str, code: str = "INVALID_ARGUMENT") -> None:
        """Raise `code`, naming the field below `where`, if the data is not as the schema says."""
        found = self.problem(data)
        if found is not None:
            at = f"{where}.{found[0]}" if found[0] else where
            raise TerminalError(code, f"{at}: {found[1]}.", field=at)


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _refuse(uri: str) -> NoReturn:
    raise ValueError(f"a schema may refer to its own parts only, not to {uri[:100]}")
