"""Any OpenAI-compatible endpoint, through pydantic-ai; prices from the configuration or from genai-prices."""

from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from aios_agent_runner.models.port import ModelReply, ModelRequest
from aios_core.errors import RetryableError, TerminalError
from aios_core.money import Micros, usd

CHARS_PER_TOKEN: Final = 2  # a low guess on purpose: a bound must not be passed
TIMEOUT_S: Final = 120.0


class OpenAIModel:
    """One model behind one endpoint. Prices are US dollars per million tokens; the key is read from a file at use."""

    def __init__(
        self,
        *,
        base_url: str,
        model: str,
        key_file: Path | None,
        input_price: str = "",
        output_price: str = "",
    ) -> None:
        self._base_url = base_url
        self._model = model
        self._key_file = key_file
        self._prices = (Decimal(input_price), Decimal(output_price)) if input_price and output_price else None
        self._agent: Any = None

    @property
    def name(self) -> str:
        return f"openai:{self._base_url}:{self._model}"

    def other(self, model: str) -> "OpenAIModel":
        """Its price is looked up: what was configured is that of the configured one."""
        return OpenAIModel(base_url=self._base_url, model=model, key_file=self._key_file)

    def bound(self, request: ModelRequest) -> Micros:
        tokens = (len(request.system) + len(request.prompt)) // CHARS_PER_TOKEN + 64
        return self._cost(tokens, request.max_tokens)

    async def complete(self, request: ModelRequest) -> ModelReply:
        from pydantic_ai import Agent
        from pydantic_ai.exceptions import AgentRunError, UserError
        from pydantic_ai.settings import ModelSettings

        try:
            agent = Agent(self._client(), instructions=request.system, output_type=str, retries=0)
            settings = ModelSettings(
                max_tokens=request.max_tokens, temperature=request.temperature, timeout=TIMEOUT_S
            )
            if request.seed is not None:
                settings["seed"] = request.seed
            result = await agent.run(request.prompt, model_settings=settings)
        except UserError as error:
            raise TerminalError("MODEL_FAILED", f"The model is not set up rightly: {error}.") from None
        except (AgentRunError, OSError) as error:
            raise RetryableError(
                "MODEL_FAILED", f"{self._model} could not answer: {type(error).__name__}."
            ) from None
        usage = result.usage
        read, written = usage.input_tokens or 0, usage.output_tokens or 0
        return ModelReply(result.output.strip(), self._model, read, written, self._cost(read, written))

    def _client(self) -> Any:
        from openai import AsyncOpenAI
        from pydantic_ai.models.openai import OpenAIChatModel
        from pydantic_ai.providers.openai import OpenAIProvider

        key = "none"
        if self._key_file is not None:
            try:
                key = self._key_file.read_text(encoding="utf-8").strip()
            except OSError as error:
                raise TerminalError(
                    "MODEL_FAILED", f"The model's key file can't be read: {error.strerror}."
                ) from None
        client = AsyncOpenAI(base_url=self._base_url, api_key=key, max_retries=0, timeout=TIMEOUT_S)
        return OpenAIChatModel(self._model, provider=OpenAIProvider(openai_client=client))

    def _cost(self, read: int, written: int) -> Micros:
        if self._prices is not None:
            dollars = (self._prices[0] * read + self._prices[1] * written) / 10**6
            return usd(dollars)
        from genai_prices import Usage, calc_price

        try:
            price = calc_price(Usage(input_tokens=read, output_tokens=written), model_ref=self._model)
        except LookupError:
            raise TerminalError(
                "UNPRICED",
                f"The price of {self._model} is not known, so it is not called. Set model_input_price and "
                "model_output_price (US dollars per million tokens; 0 for a local model).",
            ) from None
        return usd(price.total_price)
