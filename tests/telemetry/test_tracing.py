"""Traces: one tree over every service, sent over real OTLP; nothing of the SDK when they are off."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from aios_core.errors import TerminalError
from aios_runtime import tracecontext
from aios_runtime.bus.subjects import HEADER_TRACE
from aios_runtime.telemetry import identity, tracing
from aios_runtime.telemetry.bus import Spans
from aios_testing.collector import Collector, collecting


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        tracing.export_to(collector.endpoint, 1.0)
        try:
            yield collector
        finally:
            tracing.shutdown()


def test_without_export_a_trace_still_has_one_id_everywhere() -> None:
    with tracing.span("outer") as outer:
        assert tracing.valid(outer.traceparent)
        with tracing.span("inner") as inner:
            assert tracing.trace_id(inner.traceparent) == tracing.trace_id(outer.traceparent)
        assert tracecontext.current.get() == outer.traceparent
    assert tracecontext.current.get() == ""


def test_without_export_nothing_of_the_sdk_is_loaded() -> None:
    code = (
        "import sys\nfrom aios_runtime.telemetry import tracing\n"
        "with tracing.span('work', attributes={'a': 1}) as s: s.set('b', 2)\n"
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.feature("K1")
def test_spans_of_several_services_in_one_process_make_one_tree(collector: Collector) -> None:
    identity.service.set("gateway")
    with tracing.span("accept event", kind="server", attributes={"aios.event.source": "folder"}) as first:
        headers: dict[str, str] = {}
        Spans().inject(headers)
    identity.service.set("orchestrator")
    with Spans().span("process", "aios.cmd.run.v1.start_run", headers) as second:
        pass
    tracing.shutdown()

    sent, handled = collector.spans(tracing.trace_id(first.traceparent))
    assert (sent.service, handled.service) == ("aios-gateway", "aios-orchestrator")
    assert (sent.parent, handled.parent) == ("", sent.span_id)
    assert sent.attributes["aios.event.source"] == "folder"
    assert handled.span_id == second.traceparent[36:52]


def test_a_span_that_was_named_as_parent_before_it_ended_completes_the_tree(collector: Collector) -> None:
    run = tracing.new_trace("run_1")
    assert run == tracing.new_trace("run_1")
    step = tracing.child(run, "run_1/compute")
    with tracing.span("perform agent", parent=step):
        pass
    tracing.record("step compute", step, parent=run, start_ms=1_700_000_000_000, end_ms=1_700_000_060_000)
    tracing.record("run report", run, start_ms=1_700_000_000_000, end_ms=1_700_000_090_000, error="CANCELLED")
    tracing.shutdown()

    spans = {span.name: span for span in collector.spans(tracing.trace_id(run))}
    assert spans["perform agent"].parent == spans["step compute"].span_id
    assert spans["step compute"].parent == spans["run report"].span_id
    assert spans["run report"].parent == ""
    assert spans["run report"].end_ns - spans["run report"].start_ns == 90 * 10**9
    assert spans["run report"].failed
    assert spans["run report"].attributes["error.type"] == "CANCELLED"


def test_an_error_marks_its_span_with_the_reason_code(collector: Collector) -> None:
    with pytest.raises(TerminalError), tracing.span("write file"):
        raise TerminalError("PATH_OUTSIDE_ROOT", "Not there.")
    tracing.shutdown()
    (span,) = collector.spans()
    assert span.failed
    assert span.attributes["error.type"] == "PATH_OUTSIDE_ROOT"


def test_the_share_of_traces_is_decided_once_and_kept_by_every_part() -> None:
    with collecting() as collector:
        tracing.export_to(collector.endpoint, 0.25)
        try:
            kept = set()
            for number in range(400):
                root = tracing.new_trace(f"run_{number}")
                if root.endswith("-01"):
                    kept.add(tracing.trace_id(root))
                with tracing.span("work", parent=root), tracing.span("more work"):
                    pass
        finally:
            tracing.shutdown()
    spans = collector.spans()
    assert {span.trace_id for span in spans} == kept
    assert len(spans) == 2 * len(kept)
    assert 60 < len(kept) < 140


def test_a_collector_that_is_not_there_stops_no_work() -> None:
    tracing.export_to("http://127.0.0.1:9", 1.0)
    try:
        with tracing.span("work") as done:
            assert tracing.valid(done.traceparent)
    finally:
        tracing.shutdown()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00",
        "00-" + "0" * 32 + "-" + "1" * 16 + "-01",
        "01-" + "a" * 32 + "-" + "1" * 16 + "-01",
        "00-" + "g" * 32 + "-" + "1" * 16 + "-01",
    ],
)
def test_a_traceparent_that_is_none_is_recognized_and_begins_a_new_trace(
    text: str, collector: Collector
) -> None:
    assert not tracing.valid(text)
    with tracing.span("work", parent=text) as started:
        assert tracing.valid(started.traceparent)


def test_headers_keep_the_context_that_their_sender_gave() -> None:
    given = tracing.new_trace()
    headers = {HEADER_TRACE: given}
    with tracing.span("other"):
        Spans().inject(headers)
    assert headers == {HEADER_TRACE: given}
