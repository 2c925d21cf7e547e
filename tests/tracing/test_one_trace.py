"""One trace leads from an event to the last change that it caused, through every service."""

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

import aios_cli
from tests.tracing.collector import Span, collecting

SAMPLE = Path(aios_cli.__file__).parent / "sample" / "acme"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CLIENT = "00f067aa0ba902b7"  # the span of whoever sent the event
SERVICES = {"aios-gateway", "aios-orchestrator", "aios-memory", "aios-agent-runner", "aios-connector-files"}
LOOKS = 200  # at the run until it needs a person; each takes most of a second


def aios(data: Path, *arguments: str) -> Any:
    """What the command prints as JSON."""
    command = [sys.executable, "-m", "aios_cli", "--data-dir", str(data), *arguments, "--json"]
    return json.loads(subprocess.run(command, capture_output=True, check=False).stdout)


def publish(data: Path, address: str) -> str:
    """Send the event as somebody outside would, with a trace of their own; returns the run that it started."""
    headers = {
        "content-type": "application/json",
        "ce-specversion": "1.0",
        "ce-id": "one",
        "ce-source": "test",
        "ce-type": "report.requested",
        "authorization": f"Bearer {(data / 'token').read_text().strip()}",
        "traceparent": f"00-{TRACE}-{CLIENT}-01",
    }
    body = json.dumps({"client": "acme", "month": "2026-07"}).encode()
    request = urllib.request.Request(f"http://{address}/v1/events", data=body, headers=headers)
    with urllib.request.urlopen(request) as answer:
        return str(json.loads(answer.read())["run_id"])


def report(data: Path, address: str) -> None:
    """The whole piece of work: event, computation, approval, files."""
    run = publish(data, address)
    shown = next(
        shown
        for shown in (aios(data, "run", "show", run) for _ in range(LOOKS))
        if shown["pending_approvals"]
    )
    assert shown["trace_id"] == TRACE
    ended = aios(data, "approval", "approve", shown["pending_approvals"][0], "--wait")
    assert "error" not in ended or not ended["error"], ended


@pytest.mark.feature("K1")
def test_one_trace_is_whole_and_crosses_every_service(tmp_path: Path) -> None:
    data, files = tmp_path / "data", tmp_path / "files"
    shutil.copytree(SAMPLE, files / "acme")
    with collecting() as (endpoint, collector):
        command = [
            sys.executable,
            "-m",
            "aios_cli",
            "serve",
            "--data-dir",
            str(data),
            "--files-root",
            str(files),
        ]
        server = subprocess.Popen(
            [*command, "--json", "--grpc-port", "0", "--http-port", "0"],
            stdout=subprocess.PIPE,
            env={**os.environ, "AIOS_OTLP_ENDPOINT": endpoint},
        )
        assert server.stdout is not None
        report(data, json.loads(server.stdout.readline())["http"])
        server.terminate()
        server.wait()
        spans = collector.wait_for(TRACE, "run {workflow}", 10)
    check_tree(spans)


def check_tree(spans: list[Span]) -> None:
    """Every span hangs, by its parents, on the one that the event began; each service has some; none failed."""
    assert {span.service for span in spans} == SERVICES
    assert not [span for span in spans if span.error]
    parents = {span.own: span.parent for span in spans}
    assert len(parents) == len(spans)
    roots = [span for span in spans if span.parent not in parents]
    assert [(root.service, root.parent) for root in roots] == [("aios-gateway", CLIENT)]
    steps = {span.attributes["aios.step"] for span in spans if span.name.startswith("step ")}
    assert {"read", "compute", "draft", "render", "approve", "write-report", "remember"} <= steps
    workers = {span.attributes.get("aios.step") for span in spans if span.service != "aios-orchestrator"}
    assert {"read", "compute", "write-report"} <= workers
