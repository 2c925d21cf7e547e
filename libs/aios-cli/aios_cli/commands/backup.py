"""`aios backup …`: one file that holds all of an installation, and the way back."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aios_cli.options import command, given, group

if TYPE_CHECKING:
    from aios_cli.launcher.backups import Report
    from aios_cli.launcher.restores import Checked

app = group("Make, prove and restore backups.")

File = Annotated[Path, typer.Argument(metavar="FILE", help="The backup.")]


@command(app, "create")
def create(file: Annotated[Path, typer.Argument(metavar="FILE", help="The new file.")]) -> None:
    """Write a backup of the data directory to a new file. AIOS may go on running."""
    from dataclasses import asdict

    from aios_cli.launcher import address, backups
    from aios_cli.launcher.settings import default_data_dir
    from aios_cli.output import print_json, say
    from aios_cli.words import size
    from aios_core.errors import TerminalError

    if given.address or os.environ.get("AIOS_MONGODB_URL") or os.environ.get("AIOS_MONGODB_URL_FILE"):
        raise TerminalError(
            "NO_STORES",
            "A backup is made of the files of a data directory, on its own machine. Stores in MongoDB are "
            "backed up with mongodump: see docs/how-to/backups.md.",
        )
    found = address.find(given.data_dir)
    if found is not None and found.stores_in:
        raise TerminalError(
            "NO_STORES",
            f"The AIOS of {found.data_dir} has its stores in {found.stores_in}, which is backed up with its "
            "own tools: see docs/how-to/backups.md.",
        )
    data_dir = given.data_dir or (Path(found.data_dir) if found else default_data_dir())
    with _progress() as report:
        made = backups.create(data_dir, file, report)
    if given.json:
        print_json(
            {
                "file": str(made.path.absolute()),
                "bytes": made.size,
                "sha256": made.sha256,
                "data_dir": str(data_dir),
                "manifest": asdict(made.manifest),
            }
        )
        return
    say(f"{made.path} holds all of {data_dir} ({size(made.size)}).", "green")
    say(f"SHA-256 {made.sha256}", "dim")
    say("The folders of clients, aios.toml and secrets are not in it. Prove it: aios backup verify", "dim")


@command(app, "verify")
def verify(file: File) -> None:
    """Prove a backup by restoring it aside, beside the file."""
    from aios_cli.launcher import restores
    from aios_cli.output import print_json, say

    with _progress() as report:
        checked = restores.verify(file, report)
    if given.json:
        print_json(_shape(file, checked))
        return
    _print(checked)
    say(f"{file} is whole.", "green")


@command(app, "restore")
def restore(file: File) -> None:
    """Restore a backup into an empty or new --data-dir. Stop the AIOS that it is of first, for good."""
    from aios_cli.launcher import restores
    from aios_cli.output import print_json, say

    if given.data_dir is None:
        raise typer.BadParameter("say into which directory: --data-dir DIR, which is empty or not there yet.")
    with _progress() as report:
        checked, mark = restores.restore(file, given.data_dir, report)
    if given.json:
        print_json(
            {
                **_shape(file, checked),
                "data_dir": str(given.data_dir.absolute()),
                "restore_id": mark.restore_id,
            }
        )
        return
    _print(checked)
    say(f"{given.data_dir} is restored.", "green")
    say(f"Start it with: aios serve --data-dir {given.data_dir}")
    say(
        "Until you close the restore, each change that its ledger doesn't know is looked up first, or you are asked. "
        "When what was under way has ended: aios backup close"
    )


@command(app, "mark")
def mark() -> None:
    """After a restore with other tools (mongorestore, a copy of a disk): open it, before AIOS is started."""
    import asyncio

    from aios_cli.launcher import restores
    from aios_cli.launcher.settings import from_environment
    from aios_cli.output import print_json, say

    opened = asyncio.run(restores.open_marked(from_environment(data_dir=given.data_dir)))
    if given.json:
        print_json({"restore_id": opened.restore_id})
    else:
        say(
            "From its start on AIOS looks first at each change that it doesn't know, until: aios backup close"
        )


@command(app, "close")
def close(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what is open, and close nothing.")] = False,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Even while runs from before the restore have not ended.")
    ] = False,
) -> None:
    """Say that nothing is left that may have been done after the backup. From then on AIOS looks no more."""
    from aios.api.v1 import api_pb2
    from aios_cli import shapes
    from aios_cli.output import print_json, say
    from aios_cli.session import Session
    from aios_cli.views.status import restore_line
    from aios_core.minting import mint

    with Session() as session:
        client = session.client
        status = client.call(client.system.GetStatus, api_pb2.GetStatusRequest())
        opened = [service.restore for service in status.services if service.HasField("restore")]
        closed: list[api_pb2.OpenRestore] = []
        for restore_id in sorted({item.restore_id for item in opened} if not dry_run else ()):
            request = api_pb2.CloseRestoreRequest(
                request_id=mint("req"), restore_id=restore_id, anyway=anyway
            )
            closed += client.call(client.system.CloseRestore, request).closed
    if given.json:
        print_json(
            {"open": [shapes.restore(r) for r in opened], "closed": [shapes.restore(r) for r in closed]}
        )
        return
    for item in closed if not dry_run else opened:
        say(restore_line(item, closed=not dry_run))
    if not opened:
        say("No restore is open.")


@contextmanager
def _progress() -> "Iterator[Report]":
    """A bar on standard error where a person looks at it."""
    import sys

    if given.json or not sys.stderr.isatty():
        yield lambda _what, _done, _total: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("", total=None)

        def report(what: str, done: int, total: int) -> None:
            progress.update(bar, description=what, completed=done, total=total or None)

        yield report


def _shape(file: Path, checked: "Checked") -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "file": str(file.absolute()),
        "bytes": checked.size,
        "sha256": checked.sha256,
        "time_ms": checked.manifest.time_ms,
        "aios": checked.manifest.aios,
        "workspaces": checked.manifest.workspaces,
        "proven": [asdict(item) for item in checked.proven],
    }


def _print(checked: "Checked") -> None:
    from rich.table import Table

    from aios_cli.output import console

    table = Table.grid(padding=(0, 2))
    for item in checked.proven:
        table.add_row("✓", f"{item.count:,}", item.what)
    console().print(table)
