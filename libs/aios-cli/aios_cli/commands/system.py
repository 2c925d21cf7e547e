"""`aios` alone, `aios watch`, `aios version` and `aios doctor`: how it all stands."""

from typing import TYPE_CHECKING, Any

import typer

from aios_cli.options import given, shared

if TYPE_CHECKING:
    from aios_cli.checks import Check
    from aios_cli.session import Session


def status() -> None:
    """What needs you, what runs, what it cost."""
    from aios.api.v1 import api_pb2
    from aios_cli import notify_shape, shapes, words
    from aios_cli.output import console, print_json
    from aios_cli.session import Session
    from aios_cli.views.status import overview
    from aios_core.minting import now_ms

    with Session() as session:
        answer = session.client.call(session.client.system.GetStatus, api_pb2.GetStatusRequest())
        place = session.client.place
    if given.json:
        print_json(
            {
                "needs_you": [shapes.approval(item) for item in answer.needs_you],
                "failures": [shapes.failure(item) for item in answer.failures],
                "late": [shapes.run(run, full=False) for run in answer.late],
                "webhook": notify_shape.webhook(answer.webhook) if answer.HasField("webhook") else None,
                "running": [shapes.run(run, full=False) for run in answer.running],
                "recent": [shapes.run(run, full=False) for run in answer.recent],
                "cost_month": words.dollars(answer.cost_month_micros),
                "cost_total": words.dollars(answer.cost_total_micros),
                "version": answer.version,
                "services": [shapes.health(item) for item in answer.services],
                "address": place.grpc,
                "data_dir": str(place.data_dir) if place.data_dir else None,
            }
        )
        return
    console().print(overview(answer, now_ms()))


@shared
def watch() -> None:
    """Follow live what needs you and what runs, until Ctrl-C or for --timeout. With --json: one change a line."""
    from aios_cli.session import Session

    with Session() as session:
        if given.json:
            _tell(session)
        else:
            _draw(session)


def _tell(session: "Session") -> None:
    import json

    from aios_cli import watching

    before: watching.Things = {}
    for answer in session.statuses(given.timeout):
        now = watching.things(answer)
        for change in watching.changes(before, now):
            print(json.dumps(change, ensure_ascii=False), flush=True)
        before = now


def _draw(session: "Session") -> None:
    """A screen that is drawn anew; where there is none, what `aios` alone shows, once more with each change."""
    from contextlib import ExitStack

    from rich.live import Live

    from aios_cli import watching
    from aios_cli.output import console
    from aios_cli.views.status import overview
    from aios_core.minting import now_ms

    before: watching.Things | None = None
    with ExitStack() as stack:
        screen = None
        if console().is_terminal:
            screen = stack.enter_context(Live(console=console(), screen=True, auto_refresh=False))
        for answer in session.statuses(given.timeout):
            now = watching.things(answer)
            if screen is not None:
                screen.update(overview(answer, now_ms()), refresh=True)
            elif now != before:
                console().print(overview(answer, now_ms()))
                console().file.flush()
            before = now


@shared
def version() -> None:
    """Print the version."""
    import platform

    from aios_cli.output import print_json
    from aios_cli.version import VERSION

    if given.json:
        print_json({"version": VERSION, "python": platform.python_version()})
    else:
        typer.echo(f"aios {VERSION}")


@shared
def doctor() -> None:
    """Check this machine and the server, and say what to do about what is wrong."""
    from aios_cli import checks, exits
    from aios_cli.output import print_json

    found, server = checks.run(given)
    if given.json:
        print_json(
            {
                "healthy": all(check.ok for check in found),
                "server": server,
                "checks": [_shape(c) for c in found],
            }
        )
    else:
        for check in found:
            _print(check)
    if not server:
        raise typer.Exit(exits.NO_SERVER)
    if not all(check.ok for check in found):
        raise typer.Exit(exits.FAILED)


def _shape(check: "Check") -> dict[str, Any]:
    return {
        "name": check.name,
        "ok": check.ok,
        "detail": check.detail,
        "remedy": check.remedy,
        "facts": dict(check.facts),
    }


def _print(check: "Check") -> None:
    from rich.text import Text

    from aios_cli.output import console
    from aios_cli.words import clean

    icon, style = ("✓", "green") if check.ok else ("✗", "red")
    console().print(Text.assemble((icon, style), " ", (clean(check.name), "bold"), "  ", clean(check.detail)))
    for name, text in check.facts.items():
        console().print(Text(f"    {clean(name)}: {clean(text)}", style="dim"))
    if not check.ok and check.remedy:
        console().print(Text(f"    {clean(check.remedy)}", style="yellow"))
