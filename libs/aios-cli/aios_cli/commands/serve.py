"""`aios serve`: run AIOS, or one service of it."""

from pathlib import Path
from typing import Annotated

import typer

from aios_cli.options import given, shared


@shared
def serve(
    target: Annotated[
        str | None, typer.Option("--target", help="all, or services separated by commas.", show_default="all")
    ] = None,
    files_root: Annotated[
        Path | None,
        typer.Option("--files-root", help="The folder that AIOS may read and write.", show_default=False),
    ] = None,
    resources: Annotated[
        Path | None,
        typer.Option("--resources", help="A folder of YAML documents to apply.", show_default=False),
    ] = None,
    host: Annotated[
        str | None, typer.Option("--host", help="Where to listen.", show_default="127.0.0.1")
    ] = None,
    grpc_port: Annotated[
        int | None,
        typer.Option("--grpc-port", min=0, max=65535, help="0: any free one.", show_default="7400"),
    ] = None,
    http_port: Annotated[
        int | None,
        typer.Option("--http-port", min=0, max=65535, help="0: any free one.", show_default="7401"),
    ] = None,
) -> None:
    """Serve until stopped with Ctrl-C."""
    from aios_cli.launcher.serve import run
    from aios_cli.launcher.settings import from_environment

    settings = from_environment(
        target=target,
        data_dir=given.data_dir,
        files_root=files_root,
        resources=resources,
        host=host,
        grpc_port=grpc_port,
        http_port=http_port,
        json=given.json or None,
    )
    raise typer.Exit(run(settings))
