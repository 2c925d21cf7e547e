"""`aios demo`: a real piece of office work from the folder to the undone change, to be watched."""

from pathlib import Path
from typing import Annotated

import typer

from aios_cli.options import shared


@shared
def demo(
    folder: Annotated[
        Path | None, typer.Option("--folder", help="Where to set it up.", show_default="~/aios-demo")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Decide by itself, as without a terminal.")] = False,
) -> None:
    """Watch a monthly client report being made, approve it, and take it back."""
    from aios_cli import demo as show

    raise typer.Exit(show.run(folder, by_itself=yes))
