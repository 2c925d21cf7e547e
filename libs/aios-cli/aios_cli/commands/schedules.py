"""`aios schedule …`: what is started at which times."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from aios_cli.options import command, given, group
from aios_core.wording import counted

if TYPE_CHECKING:
    from aios.resource.v1.resource_pb2 import ScheduleView

app = group("See what is started at which times; pause it, or run it now.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="The schedule's name.")]
RequestId = Annotated[str | None, typer.Option("--request-id", help="Makes repeating the command safe.")]


@command(app, "list")
def list_() -> None:
    """List schedules with their next times."""
    from rich.table import Table

    from aios_cli import words
    from aios_cli.output import console, print_json, say

    found = _found("", 1)
    if given.json:
        print_json([_shape(item) for item in found])
        return
    if not found:
        say("There are none; apply a document of kind Schedule.")
        return
    table = Table.grid(padding=(0, 2))
    for item in found:
        following = _moment(item.next_times_ms[0], item) if item.next_times_ms else "never again"
        table.add_row(
            item.state.name,
            f"{item.when}, {item.timezone}",
            words.clean(item.workflow),
            "paused" if item.paused else f"next {following}",
        )
    console().print(table)


@command(app, "show")
def show(
    name: Name,
    times: Annotated[int, typer.Option("--times", min=1, max=20, help="How many of its next times.")] = 5,
) -> None:
    """Show a schedule: its next times, its last run, what was skipped and why."""
    from aios_cli import words
    from aios_cli.output import print_json, say

    (item,) = _found(name, times)
    if given.json:
        print_json(_shape(item))
        return
    state = item.state
    say(f"{words.clean(item.title)}: {item.workflow}, {item.when}, {item.timezone}")
    say(f"missed times: {item.missed}; while a run goes on: {item.concurrency}", "dim")
    if item.paused:
        say("It is paused.", "yellow")
    for time in item.next_times_ms:
        say(f"next  {_moment(time, item)}")
    if state.last_run_id:
        say(f"last  {_moment(state.last_run_time_ms, item)}, run {words.short(state.last_run_id)}")
    if state.queued:
        say(f"{counted(len(state.queued), 'time')} wait until the run before has ended")
    if state.skipped:
        say(
            f"{counted(state.skipped, 'time')} skipped, the last {_moment(state.last_skipped_ms, item)}:"
            f" {state.last_skipped_why}"
        )
    if state.problem:
        say(f"The last start was refused: {words.clean(state.problem)}", "red")


@command(app, "pause")
def pause(name: Name, request_id: RequestId = None) -> None:
    """Start nothing any more until it is resumed."""
    from aios.api.v1 import api_pb2
    from aios_cli.output import print_json, say
    from aios_cli.session import Session
    from aios_core.minting import mint

    with Session() as session:
        request = api_pb2.PauseScheduleRequest(
            name=name, request_id=mint("req") if request_id is None else request_id
        )
        found = session.client.call(session.client.schedules.PauseSchedule, request).schedule
    if given.json:
        print_json(_shape(found))
        return
    say(f"{name} is paused. What comes meanwhile is not made up for.")


@command(app, "resume")
def resume(name: Name, request_id: RequestId = None) -> None:
    """Go on after a pause, with the next time."""
    from aios.api.v1 import api_pb2
    from aios_cli.output import print_json, say
    from aios_cli.session import Session
    from aios_core.minting import mint

    with Session() as session:
        request = api_pb2.ResumeScheduleRequest(
            name=name, request_id=mint("req") if request_id is None else request_id
        )
        found = session.client.call(session.client.schedules.ResumeSchedule, request).schedule
    if given.json:
        print_json(_shape(found))
        return
    following = (
        f": {_moment(found.next_times_ms[0], found)}" if found.next_times_ms else ", but no time comes"
    )
    say(f"{name} goes on{following}.")


@command(app, "run-now")
def run_now(name: Name, request_id: RequestId = None) -> None:
    """Start a run now, besides those of the schedule's times, also while it is paused."""
    from aios.api.v1 import api_pb2
    from aios_cli import words
    from aios_cli.output import print_json, say
    from aios_cli.session import Session
    from aios_core.minting import mint

    with Session() as session:
        request = api_pb2.RunScheduleRequest(
            name=name, request_id=mint("req") if request_id is None else request_id
        )
        answer = session.client.call(session.client.schedules.RunSchedule, request)
    if given.json:
        print_json({"run_id": answer.run_id, "duplicate": answer.duplicate})
        return
    say(f"Started run {words.short(answer.run_id)}: aios run watch {words.short(answer.run_id)}")


def _found(name: str, times: int) -> "list[ScheduleView]":
    from aios.api.v1 import api_pb2
    from aios_cli.session import Session

    with Session() as session:
        request = api_pb2.ListSchedulesRequest(name=name, times=times)
        answer = session.client.call(session.client.schedules.ListSchedules, request)
    return list(answer.schedules)


def _moment(time_ms: int, item: "ScheduleView") -> str:
    """A time in the schedule's own zone."""
    from datetime import datetime
    from zoneinfo import ZoneInfo

    return f"{datetime.fromtimestamp(time_ms / 1000, ZoneInfo(item.timezone)):%a %Y-%m-%d %H:%M:%S %Z}"


def _shape(item: "ScheduleView") -> dict[str, Any]:
    from aios_cli import shapes

    return shapes.schedule(item)
