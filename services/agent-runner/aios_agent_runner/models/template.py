"""The offline provider: an agent's own words around its figures. Deterministic, free, and needs no account."""

import re
from collections.abc import Mapping
from typing import Any, Final

from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from aios_agent_runner.models.port import ModelReply, ModelRequest
from aios_core.errors import TerminalError
from aios_core.money import Micros

MAX_TEXT_CHARS: Final = 100_000

_ENVIRONMENT: Final = ImmutableSandboxedEnvironment(
    undefined=StrictUndefined, autoescape=False, trim_blocks=True, lstrip_blocks=True
)


def render(template: str, data: Any) -> str:
    """A sandboxed, strict Jinja2 template over `data`. Raises AGENT_FAILED when it names what is not there."""
    try:
        text = _ENVIRONMENT.from_string(template).render(**data)
    except (TemplateError, TypeError, ValueError, OverflowError, MemoryError) as error:
        raise TerminalError("AGENT_FAILED", f"The agent's template could not be filled: {error}.") from None
    if len(text) > MAX_TEXT_CHARS:
        raise TerminalError("AGENT_BAD_OUTPUT", f"The text has more than {MAX_TEXT_CHARS} characters.")
    return text.strip()


_PLACE: Final = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_.]{0,199})\s*\}\}")


def fill(text: str, data: Mapping[str, Any]) -> str:
    """Words that a client sent, with `{{name.of.a.field}}` replaced by what the input has there; nothing else in them
    is carried out. Raises INVALID_ARGUMENT for a field that is not there."""
    parts: list[str] = []
    size = at = 0
    for place in _PLACE.finditer(text):
        value: Any = data
        for name in place[1].split("."):
            if not isinstance(value, Mapping) or name not in value:
                raise TerminalError(
                    "INVALID_ARGUMENT", f"prompt: the step's input has no field {place[1]!r}.", field="prompt"
                )
            value = value[name]
        parts += [text[at : place.start()], str(value)]
        at = place.end()
        size += len(parts[-2]) + len(parts[-1])
        if size > MAX_TEXT_CHARS:
            break
    parts.append(text[at:])
    filled = "".join(parts)
    if len(filled) > MAX_TEXT_CHARS:
        raise TerminalError(
            "TOO_LARGE", f"The prompt has more than {MAX_TEXT_CHARS} characters.", field="prompt"
        )
    return filled.strip()


class TemplateModel:
    """Fills the agent's `offline` template."""

    name = "template"

    def other(self, model: str) -> "TemplateModel":
        """There is no model here."""
        raise TerminalError(
            "INVALID_ARGUMENT",
            f"model: {model!r} can't be asked: no model is set up, the offline template writes. See `aios doctor`.",
            field="model",
        )

    def bound(self, request: ModelRequest) -> Micros:
        return Micros(0)

    async def complete(self, request: ModelRequest) -> ModelReply:
        text = request.prompt if request.literal else render(request.offline, request.data)
        return ModelReply(text, self.name, 0, 0, Micros(0))
