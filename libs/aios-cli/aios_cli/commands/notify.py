"""`aios notify …`: be told when something needs you and you are not looking."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aios_cli.options import command, given, group

if TYPE_CHECKING:
    from aios.api.v1.api_pb2 import Webhook

app = group("Be told by a webhook when something needs you.")


@command(app, "set")
def set_(
    url: Annotated[str, typer.Argument(metavar="URL", help="Where to post what needs you.")],
    secret_file: Annotated[
        Path | None,
        typer.Option("--secret-file", help="The secret to sign with; without: a new one, shown once."),
    ] = None,
    allow_private: Annotated[
        bool, typer.Option("--allow-private", help="Permit http, and addresses of your own network.")
    ] = False,
) -> None:
    """Post whatever begins to need you to a URL, what needs you now as well."""
    import base64
    import secrets

    from aios.api.v1 import api_pb2
    from aios_cli import notify_shape
    from aios_cli.output import hint, print_json
    from aios_cli.session import Session
    from aios_core.minting import mint

    made = "" if secret_file else "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
    request = api_pb2.SetWebhookRequest(
        request_id=mint("req"),
        url=url,
        secret=_read(secret_file) if secret_file else made,
        allow_private=allow_private,
    )
    with Session() as session:
        webhook = session.client.call(session.client.notify.SetWebhook, request).webhook
    if given.json:
        print_json({**notify_shape.webhook(webhook), **({"secret": made} if made else {})})
        return
    if made:
        typer.echo(made)
        hint("Keep it where the webhook checks signatures: it is not shown again.")
    _tell(webhook)
    hint("Try it: aios notify test")


@command(app, "show")
def show() -> None:
    """Where you are told, and what could not be delivered."""
    from aios.api.v1 import api_pb2
    from aios_cli import notify_shape
    from aios_cli.output import print_json, say
    from aios_cli.session import Session

    with Session() as session:
        answer = session.client.call(session.client.notify.GetWebhook, api_pb2.GetWebhookRequest())
    found = answer.webhook if answer.HasField("webhook") else None
    if given.json:
        print_json(notify_shape.webhook(found) if found is not None else None)
    elif found is None:
        say("You are told nowhere. Set a webhook: aios notify set URL")
    else:
        _tell(found)


@command(app, "test")
def test() -> None:
    """Post something that needs nobody, and say what became of it. Ends with 1 when it was not delivered."""
    from aios.api.v1 import api_pb2
    from aios_cli.output import print_json, say
    from aios_cli.session import Session
    from aios_core.minting import mint

    with Session() as session:
        request = api_pb2.TestWebhookRequest(request_id=mint("req"))
        answer = session.client.call(session.client.notify.TestWebhook, request)
    if given.json:
        print_json({"delivered": answer.delivered, "error": answer.error or None})
    elif answer.delivered:
        say("Delivered.", "green")
    else:
        say(f"Not delivered: {answer.error}", "red")
    if not answer.delivered:
        raise typer.Exit(1)


@command(app, "off")
def off() -> None:
    """Post nothing any more."""
    from aios.api.v1 import api_pb2
    from aios_cli.output import print_json, say
    from aios_cli.session import Session
    from aios_core.minting import mint

    with Session() as session:
        request = api_pb2.RemoveWebhookRequest(request_id=mint("req"))
        session.client.call(session.client.notify.RemoveWebhook, request)
    if given.json:
        print_json(None)
    else:
        say("You are told nowhere any more.")


def _read(path: Path) -> str:
    from aios_core.errors import TerminalError

    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
        raise TerminalError("UNREADABLE", f"The secret file {path} can't be read: {why}.") from None


def _tell(webhook: "Webhook") -> None:
    from aios_cli import words
    from aios_cli.output import say
    from aios_core.minting import now_ms

    private = ", private addresses allowed" if webhook.allow_private else ""
    say(f"{webhook.url} (set {words.ago(webhook.set_time_ms, now_ms())}{private})")
    for item in webhook.untold:
        state = "given up" if item.given_up else f"{item.attempts} attempts" if item.attempts else "waits"
        why = f": {item.last_error}" if item.last_error else ""
        say(f"  not delivered, {state}: {item.kind} {item.title}{why}", "red" if item.given_up else "yellow")
    if any(item.given_up for item in webhook.untold):
        say("Set it once more to have these sent again.")
