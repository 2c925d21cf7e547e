"""Logs: one JSON object a line, with service, run and trace; a secret never gets in."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aios_runtime.telemetry import identity, logs, tracing

SECRET = "s3cr3t-Va1ue-0123456789-abcdefghijkl"


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    path = tmp_path / "logs" / "aios.jsonl"
    root.handlers = []
    logs.to_file(path)
    yield path
    for handler in root.handlers:
        handler.close()
    root.handlers, root.level = before, level


def _lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.feature("K1")
def test_a_line_says_service_run_and_trace(file: Path) -> None:
    identity.service.set("memory")
    with tracing.span("work") as span:
        logging.getLogger("aios.test").warning("the step waits", extra={"run_id": "run_1", "attempts": 3})
    (line,) = _lines(file)
    assert line["service"] == "memory"
    assert line["run_id"] == "run_1"
    assert line["trace_id"] == tracing.trace_id(span.traceparent)
    assert (line["level"], line["message"], line["attempts"]) == ("warning", "the step waits", 3)


@pytest.mark.parametrize(
    "text",
    [
        f"Authorization: Bearer {SECRET}",
        f"authorization=Basic {SECRET}",
        f'{{"password": "{SECRET}"}}',
        f"password={SECRET}",
        f"url nats://gateway:{SECRET}@127.0.0.1:4222",
        f"https://example.org/hook?api_key={SECRET}&x=1",
        f"X-Api-Key: {SECRET}",
        f"the token: {SECRET}",
        f"owner token aios.local.{SECRET}",
        f"owner token aios_local_{SECRET}",
        f"sk-{SECRET}",
        f"cookie={SECRET}",
    ],
)
def test_a_secret_in_a_message_is_redacted(file: Path, text: str) -> None:
    logging.getLogger("aios.test").error("it said %s", text)
    assert SECRET not in file.read_text()


@pytest.mark.parametrize(
    "name", ["token", "nats_password", "Authorization", "api_key", "client_secret", "approval_nonce"]
)
def test_a_field_with_a_secret_name_is_redacted_however_deep(file: Path, name: str) -> None:
    logging.getLogger("aios.test").error(
        "it failed", extra={name: SECRET, "request": {"headers": [{name: SECRET}]}}
    )
    assert SECRET not in file.read_text()
    assert logs.REDACTED in file.read_text()


def test_the_trace_of_a_defect_is_logged_without_its_secrets(file: Path) -> None:
    try:
        raise ValueError(f"bad header Authorization: Bearer {SECRET}")
    except ValueError:
        logging.getLogger("aios.test").exception("a defect")
    (line,) = _lines(file)
    assert "ValueError" in str(line["error"])
    assert SECRET not in str(line)


def test_counts_of_tokens_are_no_secret(file: Path) -> None:
    logging.getLogger("aios.test").info("the model answered", extra={"input_tokens": 120, "output_tokens": 7})
    (line,) = _lines(file)
    assert (line["input_tokens"], line["output_tokens"]) == (120, 7)


def test_the_log_is_for_its_owner_alone(file: Path) -> None:
    logging.getLogger("aios.test").info("hello")
    assert file.stat().st_mode & 0o777 == 0o600


@given(st.text(max_size=400))
def test_ordinary_text_without_secrets_never_breaks_a_line(text: str) -> None:
    record = logging.makeLogRecord({"msg": "%s", "args": (text,), "levelname": "INFO", "name": "x"})
    line = logs.JsonLines().format(record)
    assert "\n" not in line
    assert json.loads(line)["level"] == "info"
