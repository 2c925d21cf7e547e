"""`aios event publish`: hand in an event from outside."""

from typing import Annotated

import typer

from aios_cli.options import command, given, group

app = group("Hand in events.")


@command(app, "publish")
def publish(
    event_type: Annotated[str, typer.Argument(metavar="TYPE", help="Such as aios.files.folder.settled.")],
    data: Annotated[str, typer.Option("--data", metavar="JSON", help="Its data; @FILE or - reads it.")] = "",
    source: Annotated[str, typer.Option("--source", help="Where it comes from.")] = "cli",
    event_id: Annotated[
        str | None, typer.Option("--id", help="Source and id name the event: again is the same.")
    ] = None,
    subject: Annotated[str, typer.Option("--subject", help="What it is about.", show_default=False)] = "",
) -> None:
    """Publish an event; answered once it is accepted for good."""
    from aios.api.v1 import api_pb2
    from aios.event.v1.event_pb2 import ExternalEvent
    from aios_cli import shapes
    from aios_cli.files import read_text
    from aios_cli.output import print_json, say
    from aios_cli.session import Session
    from aios_cli.words import short
    from aios_core.minting import mint

    event = ExternalEvent(
        id=mint("evt") if event_id is None else event_id,
        source=source,
        type=event_type,
        subject=subject,
        data=read_text(data).encode() if data else b"",
        data_content_type="application/json",
    )
    with Session() as session:
        request = api_pb2.PublishEventRequest(event=event)
        answer = session.client.call(session.client.events.PublishEvent, request)
    found = answer.resolution
    if given.json:
        print_json(
            {
                "event_id": answer.event_id,
                "duplicate": answer.duplicate,
                "resolution": shapes.resolution(found),
                "run_id": found.run_id or None,
            }
        )
        return
    say(f"Accepted{' before: this event came already' if answer.duplicate else ''}.")
    if found.run_id:
        say(
            f"It means {found.intent}, and started run {short(found.run_id)}: aios run watch {short(found.run_id)}"
        )
    elif found.question:
        say(f"It leads to a question: {found.question}", "yellow")
        say("Nothing was started. Publish it again, complete, under a new id.", "dim")
    else:
        say("No rule is for it, so nothing follows.")


@command(app, "list")
def list_(
    limit: Annotated[int, typer.Option("--limit", min=1, max=200)] = 20,
) -> None:
    """List how events were understood, the newest first."""
    from rich.table import Table

    from aios.api.v1 import api_pb2
    from aios_cli import shapes, words
    from aios_cli.output import console, print_json, say
    from aios_cli.session import Session
    from aios_core.minting import now_ms

    with Session() as session:
        request = api_pb2.ListResolutionsRequest(page_size=limit)
        found = session.listed(session.client.events.ListResolutions, request, "resolutions", limit)
    if given.json:
        print_json([shapes.resolution(item) for item in found])
        return
    if not found:
        say("No events yet.")
        return
    table = Table.grid(padding=(0, 2))
    for item in found:
        led = (
            f"{item.intent}, run {words.short(item.run_id)}"
            if item.run_id
            else item.question or "nothing follows"
        )
        table.add_row(words.ago(item.time_ms, now_ms()), words.clean(item.event_type), words.clean(led))
    console().print(table)
