"""The offline provider: an agent's own words around its figures. Deterministic, free, and needs no account."""

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


class TemplateModel:
    """Fills the agent's `offline` template."""

    name = "template"

    def bound(self, request: ModelRequest) -> Micros:
        return Micros(0)

    async def complete(self, request: ModelRequest) -> ModelReply:
        return ModelReply(render(request.offline, request.data), self.name, 0, 0, Micros(0))
