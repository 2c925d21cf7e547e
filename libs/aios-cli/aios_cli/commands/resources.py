"""`aios apply` and `aios resource …`: the documents that say how AIOS is to behave."""

from typing import Annotated, Any

import typer

from aios_cli.options import command, given, group, shared

app = group("See workflows, intents and the other documents.")


@shared
def apply(
    files: Annotated[
        list[str], typer.Argument(metavar="FILE...", help="YAML files; - reads standard input.")
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and compare, change nothing.")] = False,
    request_id: Annotated[
        str | None, typer.Option("--request-id", help="Makes repeating the command safe.")
    ] = None,
) -> None:
    """Apply workflows, intents and other documents. All documents of a file, or none."""
    from aios.api.v1 import api_pb2
    from aios_cli.files import read_bytes
    from aios_cli.output import print_json, say
    from aios_cli.session import Session
    from aios_core.minting import mint

    documents = [(name, read_bytes(name)) for name in files]
    applied: list[Any] = []
    with Session() as session:
        for number, (name, yaml) in enumerate(documents):
            given_id = f"{request_id}.{number}" if request_id and number else request_id
            request = api_pb2.ApplyResourcesRequest(
                request_id=mint("req") if given_id is None else given_id,
                yaml=yaml,
                file=name,
                dry_run=dry_run,
            )
            answer = session.client.call(session.client.resources.ApplyResources, request)
            applied += answer.applied
    if given.json:
        shape = [{"kind": a.kind, "name": a.name, "version": a.version, "change": a.change} for a in applied]
        print_json({"applied": shape, "dry_run": dry_run})
        return
    for item in applied:
        say(f"{item.kind} {item.name}: {item.change}{' (dry run)' if dry_run else ''}")


@command(app, "list")
def list_(
    kind: Annotated[str, typer.Option("--kind", help="Such as Workflow or Intent.", show_default=False)] = "",
) -> None:
    """List documents."""
    from rich.table import Table

    from aios_cli import shapes, words
    from aios_cli.output import console, print_json, say
    from aios_cli.session import Session
    from aios_core.minting import now_ms

    with Session() as session:
        found = session.resources(kind)
    if given.json:
        print_json([shapes.resource(item) for item in found])
        return
    if not found:
        say("There are none; add some with `aios apply FILE`.")
        return
    table = Table.grid(padding=(0, 2))
    for item in found:
        when = words.ago(item.create_time_ms, now_ms())
        table.add_row(item.kind, item.name, f"version {item.generation}", f"{when}, {item.version[:8]}")
    console().print(table)


@command(app, "show")
def show(
    kind: Annotated[str, typer.Argument(help="Such as Workflow or Intent.")],
    name: Annotated[str, typer.Argument(help="Its name.")],
    version: Annotated[
        str, typer.Option("--version", help="A version other than the newest.", show_default=False)
    ] = "",
) -> None:
    """Show a document as it was applied."""
    import yaml

    from aios.api.v1 import api_pb2
    from aios_cli import shapes
    from aios_cli.output import print_json
    from aios_cli.session import Session

    with Session() as session:
        request = api_pb2.GetResourceRequest(kind=kind, name=name, version=version)
        found = session.client.call(session.client.resources.GetResource, request).resource
    shape = shapes.resource(found, full=True)
    if given.json:
        print_json(shape)
    else:
        typer.echo(yaml.safe_dump(shape["document"], sort_keys=False, allow_unicode=True, width=100).rstrip())
