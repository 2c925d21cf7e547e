"""`aios workflow record`: a run, written down as a test of its workflow."""

from pathlib import Path
from typing import Annotated

import typer

from aios_cli.commands.runs import RunId
from aios_cli.options import command, given


def add_to(app: typer.Typer) -> None:
    """Make it a command of `aios workflow`."""
    command(app, "record")(record)


def record(
    run: RunId,
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="FOLDER", help="Where the two files are written.")
    ] = Path(),
    force: Annotated[bool, typer.Option("--force", help="Write over files that are there.")] = False,
) -> None:
    """Write a run down as a test: its workflow, and what its steps gave, for `aios workflow test`."""
    from aios_cli import pick, recording
    from aios_cli.compiling import applied
    from aios_cli.output import print_json, say
    from aios_cli.session import Session
    from aios_core.errors import TerminalError

    with Session() as session:
        found = session.run(pick.run(session.client, run))
        name, version = found.workflow, found.workflow_version
        documents = recording.documents(session, name, version)
        events = (answer.event for answer in session.watch(found.run_id, 0, None))
        test = recording.recorded(events, applied(name, version), found)
    texts = {
        f"{name}.yaml": "---\n".join(map(_yaml, documents)),
        f"{name}.tests.yaml": _yaml({"files": [f"{name}.yaml"], "tests": [test]}),
    }
    for file in texts:
        if (out / file).exists() and not force:
            raise TerminalError(
                "INVALID_ARGUMENT", f"{out / file} is there already; say --force.", field="out"
            )
    try:
        out.mkdir(parents=True, exist_ok=True)
        for file, text in texts.items():
            (out / file).write_text(text, encoding="utf-8")
    except OSError as error:
        raise TerminalError(
            "INVALID_ARGUMENT", f"{out} can't be written: {error.strerror}.", field="out"
        ) from None
    if given.json:
        print_json({"written": [str(out / file) for file in texts]})
    else:
        say(f"Written: {', '.join(str(out / file) for file in texts)}.")
        say(f"Try it with: aios workflow test {out / f'{name}.tests.yaml'}", "dim")


def _yaml(data: object) -> str:
    import yaml

    return str(yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=110))
