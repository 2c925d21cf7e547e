"""The model port: a prompt in, text and its cost out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from aios_core.money import Micros


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """`data` is the agent's input; `offline` the template of the words to use when there is no model. With `literal`
    the prompt is a client's, and is what is written then. `temperature` is from 0 to 2; with a `seed` a provider that
    can gives the same answer again."""

    agent: str
    system: str
    prompt: str
    offline: str
    data: Mapping[str, Any]
    max_tokens: int
    literal: bool = False
    temperature: float = 0.0
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class ModelReply:
    """`cost` is what the provider bills for it; `model` says who wrote it."""

    text: str
    model: str
    input_tokens: int
    output_tokens: int
    cost: Micros


class ModelPort(Protocol):
    """A provider. Raises MODEL_FAILED (retryable) when it can't answer now, UNPRICED when its price is not known."""

    @property
    def name(self) -> str:
        """Provider and model: part of what a cached answer is kept under."""
        ...

    def other(self, model: str) -> "ModelPort":
        """Another model of the same provider, for what a fork tries. Raises INVALID_ARGUMENT where there is none."""
        ...

    def bound(self, request: ModelRequest) -> Micros:
        """The most that the request can cost."""
        ...

    async def complete(self, request: ModelRequest) -> ModelReply:
        """The answer."""
        ...
