"""`aios token …`: who else may call this server."""

from typing import Annotated

import typer

from aios_cli.options import command, given, group

app = group("Make and revoke tokens for other clients.")

DAY_MS = 24 * 3600 * 1000


@command(app, "create")
def create(
    name: Annotated[str, typer.Argument(help="What it is for.")],
    scopes: Annotated[
        list[str], typer.Option("--scope", help="read, run, approve, events or admin; repeatable.")
    ],
    days: Annotated[int, typer.Option("--days", min=0, help="Days until it expires; 0: never.")] = 90,
    user: Annotated[
        str, typer.Option("--user", help="Who acts with it, as `approvers` of gates name them; without: you.")
    ] = "",
) -> None:
    """Make a token. It is shown once: the server keeps its hash alone."""
    import hashlib
    import secrets

    from aios.api.v1 import api_pb2
    from aios_cli import shapes
    from aios_cli.output import hint, print_json
    from aios_cli.session import Session
    from aios_core.minting import mint, now_ms

    secret = secrets.token_urlsafe(32)
    request = api_pb2.CreateTokenRequest(
        request_id=mint("req"),
        name=name,
        scopes=scopes,
        expire_time_ms=now_ms() + days * DAY_MS if days else 0,
        secret_sha256=hashlib.sha256(secret.encode()).digest(),
        user=user,
    )
    with Session() as session:
        token = session.client.call(session.client.tokens.CreateToken, request).token
    text = f"aios_{token.token_id}_{secret}"
    if given.json:
        print_json({**shapes.token(token), "token": text})
    else:
        typer.echo(text)
        hint("Keep it: it is not shown again.")


@command(app, "list")
def list_() -> None:
    """List tokens."""
    from rich.table import Table

    from aios.api.v1 import api_pb2
    from aios_cli import shapes, words
    from aios_cli.output import console, print_json
    from aios_cli.session import Session
    from aios_core.minting import now_ms

    with Session() as session:
        found = session.client.call(session.client.tokens.ListTokens, api_pb2.ListTokensRequest()).tokens
    if given.json:
        print_json([shapes.token(token) for token in found])
        return
    table = Table.grid(padding=(0, 2))
    for token in found:
        state = "revoked" if token.revoked else ""
        if token.expire_time_ms and not state:
            state = f"expires {words.until(token.expire_time_ms, now_ms())}"
        table.add_row(token.token_id, words.clean(token.name), ", ".join(token.scopes), state)
    console().print(table)


@command(app, "revoke")
def revoke(token_id: Annotated[str, typer.Argument(metavar="TOKEN", help="Its id, as listed.")]) -> None:
    """Revoke a token, at once and for ever."""
    from aios.api.v1 import api_pb2
    from aios_cli import shapes
    from aios_cli.output import print_json, say
    from aios_cli.session import Session
    from aios_core.minting import mint

    with Session() as session:
        request = api_pb2.RevokeTokenRequest(request_id=mint("req"), token_id=token_id)
        token = session.client.call(session.client.tokens.RevokeToken, request).token
    if given.json:
        print_json(shapes.token(token))
    else:
        say(f"{token.name} opens nothing any more.")
