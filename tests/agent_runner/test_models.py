"""The model port: the offline template, a real endpoint that speaks the OpenAI protocol, and what a call may cost."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from aios_agent_runner.models.openai import OpenAIModel
from aios_agent_runner.models.port import ModelRequest
from aios_agent_runner.models.template import MAX_TEXT_CHARS, TemplateModel, fill, render
from aios_core.errors import RetryableError, TerminalError

REQUEST = ModelRequest(
    agent="a",
    system="Be short.",
    prompt="Say hello.",
    offline="Hello {{ name }}.",
    data={"name": "Ada"},
    max_tokens=50,
)


@contextmanager
def endpoint(status: int = 200) -> Iterator[tuple[str, list[dict[str, object]]]]:
    """(base URL, requests seen) of an endpoint on loopback."""
    seen: list[dict[str, object]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            seen.append({"body": body, "authorization": self.headers.get("authorization")})
            answer = {
                "id": "x",
                "object": "chat.completion",
                "created": 1,
                "model": body["model"],
                "choices": [
                    {
                        "index": 0,
                        "finish_reason": "stop",
                        "message": {"role": "assistant", "content": " Hello. "},
                    }
                ],
                "usage": {"prompt_tokens": 1000, "completion_tokens": 10, "total_tokens": 1010},
            }
            data = json.dumps(answer if status == 200 else {"error": {"message": "no"}}).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", seen
    finally:
        server.shutdown()
        server.server_close()


def model(url: str, prices: tuple[str, str] = ("2", "10"), key: Path | None = None) -> OpenAIModel:
    return OpenAIModel(base_url=url, model="m", key_file=key, input_price=prices[0], output_price=prices[1])


async def test_the_offline_provider_fills_the_agents_own_words_for_nothing() -> None:
    reply = await TemplateModel().complete(REQUEST)
    assert (reply.text, reply.model, reply.cost) == ("Hello Ada.", "template", 0)


@pytest.mark.parametrize("template", ["{{ missing }}", "{{ ''.__class__.__mro__ }}", "{% for %}"])
def test_a_template_that_reaches_too_far_is_refused(template: str) -> None:
    with pytest.raises(TerminalError) as caught:
        render(template, {"name": "x"})
    assert caught.value.code in ("AGENT_FAILED", "AGENT_BAD_OUTPUT")


@pytest.mark.feature("F4")
async def test_an_openai_endpoint_answers_and_its_cost_is_exact(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("secret-word\n")
    with endpoint() as (url, seen):
        asked = model(url, key=key)
        reply = await asked.complete(REQUEST)
    assert (reply.text, reply.input_tokens, reply.output_tokens) == ("Hello.", 1000, 10)
    assert reply.cost == 2000 + 100  # 1,000 tokens at $2 and 10 at $10 a million, in micro-dollars
    assert asked.bound(REQUEST) >= 50 * 10
    assert seen[0]["authorization"] == "Bearer secret-word"
    assert "secret-word" not in asked.name


@pytest.mark.feature("F4")
async def test_a_model_without_a_price_is_not_called() -> None:
    with endpoint() as (url, seen):
        unpriced = OpenAIModel(base_url=url, model="nobody-knows-this-model", key_file=None)
        with pytest.raises(TerminalError) as caught:
            unpriced.bound(REQUEST)
    assert caught.value.code == "UNPRICED"
    assert seen == []


async def test_a_model_that_is_down_may_be_tried_again() -> None:
    with endpoint(status=500) as (url, _), pytest.raises(RetryableError) as caught:
        await model(url).complete(REQUEST)
    assert caught.value.code == "MODEL_FAILED"
    with pytest.raises(RetryableError):
        await model("http://127.0.0.1:9/v1").complete(REQUEST)


@pytest.mark.feature("D9")
async def test_another_model_is_asked_at_the_same_endpoint_at_a_price_of_its_own() -> None:
    with endpoint() as (url, seen):
        configured = OpenAIModel(base_url=url, model="mine", key_file=None, input_price="0", output_price="0")
        other = configured.other("gpt-4o-mini")
        reply = await other.complete(REQUEST)
        assert seen[0]["body"]["model"] == "gpt-4o-mini"  # type: ignore[index]
        assert reply.cost > 0, "the price that was set is that of the configured model"
        assert other.name != configured.name
        with pytest.raises(TerminalError) as unpriced:
            configured.other("nobody-prices-this").bound(REQUEST)
        assert unpriced.value.code == "UNPRICED"
    with pytest.raises(TerminalError) as refused:
        TemplateModel().other("gpt-4o-mini")
    assert refused.value.details["field"] == "model"


@pytest.mark.feature("D9")
def test_a_clients_prompt_has_fields_and_nothing_that_is_carried_out() -> None:
    data = {"client": {"name": "Ada"}, "text": "{{client.name}}"}
    assert fill("For {{ client.name }}.", data) == "For Ada."
    assert fill("{% for a in range(9) %}{{ 9 ** 9 ** 9 }}{{ text }}", data) == (
        "{% for a in range(9) %}{{ 9 ** 9 ** 9 }}{{client.name}}"
    )
    for prompt in ("{{nobody}}", "{{client.name.upper}}", "{{client.__class__}}"):
        with pytest.raises(TerminalError) as refused:
            fill(prompt, data)
        assert refused.value.code == "INVALID_ARGUMENT"
    with pytest.raises(TerminalError) as large:
        fill("{{text}}" * 3, {"text": "x" * MAX_TEXT_CHARS})
    assert large.value.code == "TOO_LARGE"
