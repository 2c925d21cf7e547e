"""When a schedule's times come, in its own zone, and what follows from a time that has come; in the pure core."""

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aios.resource.v1.resource_pb2 import ScheduleState
from aios_core.errors import TerminalError
from aios_core.values import plain
from aios_orchestrator.document import parse_documents
from aios_orchestrator.schedule import (
    _FIELDS,
    MAX_MADE_UP,
    MAX_QUEUED,
    Schedule,
    compile_schedule,
    decide,
    parameters,
    request_of,
    upcoming,
)

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "schedules.md").read_text()
HOUR = 3_600_000
DAY = 24 * HOUR


def schedule(when: str, *more: str) -> Schedule:
    lines = "\n".join(f"  {line}" for line in (when, "workflow: w", *more))
    text = f"apiVersion: aios/v1\nkind: Schedule\nmetadata: {{name: s}}\nspec:\n{lines}\n"
    return compile_schedule(parse_documents(text.encode(), "s.yaml")[0])


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


def times(of: Schedule, after: str, count: int) -> list[str]:
    at, found = ms(after), []
    for _ in range(count):
        at = of.after(at)
        found.append(request_of(at))
    return found


@pytest.mark.feature("D1")
def test_a_cron_expression_is_read_in_the_zone_of_the_schedule() -> None:
    of = schedule('cron: "0 9 * * MON"', "timezone: Europe/Berlin")
    assert times(of, "2026-10-20T00:00:00Z", 2) == ["2026-10-26T08:00:00Z", "2026-11-02T08:00:00Z"]
    assert times(of, "2026-10-12T00:00:00Z", 1) == ["2026-10-12T07:00:00Z"]  # in summer


@pytest.mark.feature("D1")
def test_a_local_time_that_is_left_out_in_spring_comes_when_the_clocks_have_moved() -> None:
    of = schedule('cron: "30 2 * * *"', "timezone: Europe/Berlin")
    assert times(of, "2026-03-28T12:00:00Z", 2) == ["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]


@pytest.mark.feature("D1")
def test_a_local_time_that_comes_twice_in_autumn_comes_once() -> None:
    of = schedule('cron: "30 2 * * *"', "timezone: Europe/Berlin")
    assert times(of, "2026-10-24T12:00:00Z", 2) == ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]


@pytest.mark.feature("D1")
def test_what_comes_every_so_often_goes_on_through_a_change_of_the_clocks() -> None:
    cron = schedule('cron: "*/30 * * * *"', "timezone: Europe/Berlin")
    every = schedule("every: 30m", "timezone: Europe/Berlin")
    for day in ("2026-03-29T00:00:00Z", "2026-10-25T00:00:00Z"):
        assert times(cron, day, 8) == times(every, day, 8)


@given(
    st.sampled_from(["30 2 * * *", "0 * * * *", "15,45 1-3 * * *", "0 9 1 * *", "*/20 2 * * SUN"]),
    st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"]),
    st.integers(ms("2026-01-01T00:00:00Z"), ms("2026-12-31T00:00:00Z")),
    st.integers(1, 30 * DAY),
)
def test_times_are_the_same_whenever_one_looks(cron: str, zone: str, at: int, ahead: int) -> None:
    """Wherever one begins to reckon, a time is a time or it is none; so none comes twice under two names."""
    of = schedule(f'cron: "{cron}"', f"timezone: {zone}")
    one, found = at, []
    while 0 < (one := of.after(one)) <= at + ahead:
        found.append(one)
    assert found == sorted(set(found))
    assert of.latest(at + 1, at + ahead, 10) == found[-10:]
    for time in found[:20]:
        assert of.after(time - 1) == time


def test_every_counts_from_the_start_and_nothing_comes_after_the_end() -> None:
    of = schedule("every: 6h", 'start: "2026-01-01T01:00:00Z"', 'end: "2026-01-01T13:00:00Z"')
    assert times(of, "2025-01-01T00:00:00Z", 3) == [
        "2026-01-01T01:00:00Z",
        "2026-01-01T07:00:00Z",
        "2026-01-01T13:00:00Z",
    ]
    assert of.after(ms("2026-01-01T13:00:00Z")) == 0
    assert of.latest(0, ms("2027-01-01T00:00:00Z"), 2) == [
        ms("2026-01-01T07:00:00Z"),
        ms("2026-01-01T13:00:00Z"),
    ]


def test_the_input_knows_the_time_and_its_month() -> None:
    of = schedule(
        'cron: "0 9 1 * *"',
        "timezone: Europe/Berlin",
        'input: {month: "${event.previous_month}", at: "${event.time}"}',
    )
    assert plain(parameters(of, ms("2026-03-01T08:00:00Z"))) == {
        "month": "2026-02",
        "at": "2026-03-01T09:00:00+01:00",
    }


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (("cron: '0 9 * * *'", "every: 1h"), "either `cron` or `every`"),
        (("missed: skip",), "either `cron` or `every`"),
        (("cron: '61 * * * *'",), "not a cron expression"),
        (("cron: '* * * * * *'",), "five fields"),
        (("cron: '0 0 31 2 *'",), "spec.cron"),
        (("every: 1s",), "from 10s on"),
        (("every: soon",), "not a duration"),
        (("every: 1h", "timezone: Mars/Olympus"), "no time zone 'Mars/Olympus'"),
        (("every: 1h", "timezone: ../../etc/passwd"), "no time zone"),
        (("every: 1h", "missed: all"), "run-once"),
        (("every: 1h", "concurrency: many"), "replace"),
        (("every: 1h", "paused: maybe"), "true or false"),
        (("every: 1h", "start: tomorrow"), "is not a time"),
        (("every: 1h", "start: '2026-01-02T00:00:00Z'", "end: '2026-01-01T00:00:00Z'"), "no time ever comes"),
        (("every: 1h", "input: {a: '${inputs.a}'}"), "no 'inputs' here"),
        (("every: 1h", "retry: 3"), "retry"),
    ],
)
def test_what_is_wrong_with_a_schedule_is_said_with_its_place(lines: tuple[str, ...], says: str) -> None:
    with pytest.raises(TerminalError) as refused:
        schedule(*lines)
    assert says in refused.value.message
    assert "s.yaml:" in refused.value.message


def test_the_example_of_the_page_is_a_schedule() -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    of = compile_schedule(parse_documents(text.encode(), "schedules.md")[0])
    assert (of.missed, of.concurrency) == ("run-once", "queue")
    for field in _FIELDS:
        assert f"`{field}`" in PAGE or f"\n  {field}: " in text or field == "description"
    assert f"the latest {MAX_MADE_UP} (" in PAGE and f"up to {MAX_QUEUED} times" in PAGE


def begun(of: Schedule, now: int) -> ScheduleState:
    """The state of a schedule that has just been applied."""
    return decide(of, ScheduleState(name="s"), now, False)


def noted(state: ScheduleState) -> ScheduleState:
    """After what was to be started is started."""
    after = ScheduleState()
    after.CopyFrom(state)
    if state.starting:
        after.last_run_id = f"run_{state.starting[-1]}"
    del after.starting[:]
    after.replaces = ""
    return after


@pytest.mark.feature("D1")
def test_each_time_that_comes_is_started_once() -> None:
    of = schedule("every: 1h")
    state, started = begun(of, 10 * HOUR + 5), list[int]()
    for now in range(10 * HOUR + 5, 14 * HOUR, HOUR // 4):
        state = decide(of, state, now, False)
        started += state.starting
        state = noted(state)
    assert started == [11 * HOUR, 12 * HOUR, 13 * HOUR]


@pytest.mark.feature("D1", "D3")
@pytest.mark.parametrize(
    ("missed", "started", "skipped"),
    [
        ("skip", [], 5),
        ("run-once", [15 * HOUR], 4),
        ("run-all", [11 * HOUR, 12 * HOUR, 13 * HOUR, 14 * HOUR, 15 * HOUR], 0),
    ],
)
def test_what_was_missed_is_made_up_for_as_the_document_says(
    missed: str, started: list[int], skipped: int
) -> None:
    of = schedule("every: 1h", f"missed: {missed}")
    state = decide(of, begun(of, 10 * HOUR + 5), 15 * HOUR + HOUR // 2, False)
    assert (list(state.starting), state.skipped) == (started, skipped)
    assert state.next_time_ms == 16 * HOUR
    late = decide(of, begun(of, 10 * HOUR + 5), 11 * HOUR + 30_000, False)
    assert list(late.starting) == [11 * HOUR]


def test_of_very_many_that_were_missed_the_latest_are_run() -> None:
    of = schedule("every: 1m", "missed: run-all")
    state = decide(of, begun(of, 0), 365 * DAY, False)
    assert len(state.starting) == MAX_MADE_UP
    assert state.starting[-1] == 365 * DAY


@pytest.mark.feature("D3")
def test_a_clock_that_jumps_ahead_and_back_starts_no_time_twice_and_waits_for_no_wrong_one() -> None:
    of = schedule("every: 1h")
    state = noted(decide(of, begun(of, 10 * HOUR + 5), 11 * HOUR, False))
    ahead = decide(of, state, 5000 * HOUR, False)
    assert list(ahead.starting) == [5000 * HOUR]
    back = decide(of, noted(ahead), 11 * HOUR + 10, False)
    assert not back.starting
    assert back.next_time_ms == 12 * HOUR
    again = decide(of, noted(back), 12 * HOUR, False)
    assert list(again.starting) == [12 * HOUR]


@pytest.mark.feature("D1")
def test_a_time_that_comes_while_the_run_before_it_goes_on_waits_or_is_skipped_or_takes_its_place() -> None:
    found = {}
    for policy in ("allow", "queue", "skip", "replace"):
        of = schedule("every: 1h", f"concurrency: {policy}")
        state = noted(decide(of, begun(of, 10 * HOUR + 5), 11 * HOUR, False))
        found[policy] = decide(of, state, 12 * HOUR, True)
    assert list(found["allow"].starting) == [12 * HOUR]
    assert (list(found["queue"].starting), list(found["queue"].queued)) == ([], [12 * HOUR])
    assert (list(found["skip"].starting), found["skip"].skipped) == ([], 1)
    assert found["skip"].last_skipped_why == "the run before it had not ended"
    assert (list(found["replace"].starting), found["replace"].replaces) == ([12 * HOUR], f"run_{11 * HOUR}")


@pytest.mark.feature("D1")
def test_what_waits_is_started_in_order_as_runs_end_and_there_is_a_bound() -> None:
    of = schedule("every: 1m", "concurrency: queue", "missed: run-all")
    state = noted(decide(of, begun(of, 0), 60_000, False))
    for now in range(120_000, (MAX_QUEUED + 5) * 60_000, 60_000):
        state = decide(of, state, now, True)
        assert not state.starting
    assert len(state.queued) == MAX_QUEUED
    assert state.skipped > 0
    last = now
    order = []
    for _ in range(3):
        state = decide(of, state, last + 1, False)
        order += state.starting
        state = noted(state)
        assert not decide(of, state, last + 1, True).starting
    assert order == [120_000, 180_000, 240_000]


def test_while_it_is_paused_nothing_comes_and_nothing_is_made_up_for() -> None:
    of, paused = schedule("every: 1h", "missed: run-all"), schedule("every: 1h", "paused: true")
    state = begun(of, 10 * HOUR)
    state.paused = True
    later = decide(of, state, 15 * HOUR + 1, False)
    assert not later.starting
    assert upcoming(of, later, 3) == []
    later.paused = False
    assert list(decide(of, later, 16 * HOUR, False).starting) == [16 * HOUR]
    assert not decide(paused, begun(paused, 10 * HOUR), 15 * HOUR, False).starting
    assert upcoming(of, decide(of, later, 15 * HOUR + 1, False), 2) == [16 * HOUR, 17 * HOUR]


def test_a_new_version_is_reckoned_from_now() -> None:
    of, then = schedule("every: 1h"), schedule("every: 2h")
    state = noted(decide(of, begun(of, 10 * HOUR + 5), 11 * HOUR, False))
    changed = decide(then, state, 11 * HOUR + 1, False)
    assert (list(changed.starting), changed.next_time_ms) == ([], 12 * HOUR)


def test_a_request_is_named_by_the_time_in_utc() -> None:
    assert request_of(ms("2026-03-01T09:00:00+01:00")) == "2026-03-01T08:00:00Z"
    assert datetime.fromisoformat(request_of(0)) == datetime.fromtimestamp(0, UTC)
