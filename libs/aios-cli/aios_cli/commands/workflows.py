"""`aios workflow …`: check a workflow before it is applied, and see it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from aios_cli.options import command, given, group

if TYPE_CHECKING:
    from aios_orchestrator.cases import Undoing
    from aios_orchestrator.workflow import Workflow

app = group("Check, explain, compare, test and draw workflows.")

FORMATS = ("text", "mermaid", "svg")


@command(app, "lint")
def lint(
    files: Annotated[
        list[str], typer.Argument(metavar="FILE...", help="YAML files; - reads standard input.")
    ],
) -> None:
    """Check documents as `aios apply` does, without a server unless they use workflows of it."""
    from aios_cli.compiling import Compiler
    from aios_cli.exits import USAGE
    from aios_cli.output import fail, print_json, say

    compiler = Compiler(files)
    if given.json:
        shape = [
            {
                "code": e.code,
                "message": e.message,
                **{k: e.details.get(k) for k in ("file", "line", "column")},
            }
            for e in compiler.errors
        ]
        print_json({"errors": shape, "workflows": sorted(compiler.workflows)})
    else:
        for error in compiler.errors:
            fail(error)
        if not compiler.errors:
            say(f"{len(compiler.documents)} documents, nothing wrong.")
    if compiler.errors:
        raise typer.Exit(USAGE)


@command(app, "graph")
def graph(
    name: Annotated[str, typer.Argument(metavar="NAME|FILE", help="A workflow, or a file of some.")],
    only: Annotated[
        str, typer.Option("--only", metavar="NAME", help="One of a file's workflows.", show_default=False)
    ] = "",
    form: Annotated[str, typer.Option("--format", help="text, mermaid or svg.")] = "text",
    version: Annotated[
        str, typer.Option("--version", help="A version other than the newest.", show_default=False)
    ] = "",
) -> None:
    """Draw a workflow: its steps, what needs what, and where a person decides."""
    from aios_cli.output import print_json
    from aios_core.errors import TerminalError
    from aios_orchestrator import drawing

    if form not in FORMATS:
        raise TerminalError(
            "INVALID_ARGUMENT",
            f"--format: there is no {form!r}; there are {', '.join(FORMATS)}.",
            field="format",
        )
    found = _workflows(name, only, version)
    if form == "svg" and len(found) > 1 and not given.json:
        _choose(name, [workflow.name for workflow in found])
    draw = {"text": drawing.outline, "mermaid": drawing.mermaid, "svg": drawing.svg}[form]
    if given.json:
        print_json([{"name": w.name, "version": w.version, form: draw(w)} for w in found])
    else:
        typer.echo("\n\n".join(map(draw, found)))


@command(app, "explain")
def explain(
    name: Annotated[str, typer.Argument(metavar="NAME|FILE", help="A workflow, or a file of some.")],
    only: Annotated[
        str, typer.Option("--only", metavar="NAME", help="One of a file's workflows.", show_default=False)
    ] = "",
    version: Annotated[
        str, typer.Option("--version", help="A version other than the newest.", show_default=False)
    ] = "",
) -> None:
    """Say in words what a workflow would do, ask, change and spend, and what undo can't take back."""
    from aios_cli.output import print_json
    from aios_orchestrator.explaining import explain as told

    explained = [told(workflow) for workflow in _workflows(name, only, version)]
    if given.json:
        print_json([item.shape() for item in explained])
    else:
        typer.echo("\n\n".join("\n".join(item.lines()) for item in explained))


@command(app, "diff")
def diff(
    first: Annotated[
        str, typer.Argument(metavar="A", help="A workflow's NAME or NAME@VERSION, or a file of one.")
    ],
    second: Annotated[str, typer.Argument(metavar="B", help="The one to compare it with.")],
) -> None:
    """Say what differs between two versions, and what runs under way could not follow. Exit code 1 if anything does."""
    from aios_cli.exits import FAILED
    from aios_cli.output import print_json
    from aios_orchestrator.differing import difference

    sides = []
    for side in (first, second):
        name, _, version = side.partition("@") if not _is_file(side) else (side, "", "")
        found = _workflows(name, "", version)
        if len(found) > 1:
            _choose(side, [workflow.name for workflow in found])
        sides.append(found[0])
    different = difference(*sides)
    if given.json:
        print_json({"first": sides[0].version, "second": sides[1].version, **different.shape()})
    else:
        typer.echo("\n".join(different.lines()))
    if different:
        raise typer.Exit(FAILED)


@command(app, "test")
def test(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="Tests: `files`, and `tests` with their results.")
    ],
) -> None:
    """Try a workflow's decisions against declared results, without a server and in virtual time."""
    from aios_cli.exits import FAILED
    from aios_cli.output import print_json, say
    from aios_cli.rehearsals import rehearsed

    told = rehearsed(Path(file))
    failed = sum(bool(item.problems) for item in told)
    if given.json:
        print_json({"tests": [item.shape() for item in told], "failed": failed})
    else:
        for item in told:
            say(f"{'FAILED' if item.problems else 'ok'}  {item.name}: {item.state}")
            for name, step in item.steps.items():
                say(f"    {name}: {step['state']}{_gave(step['gave'])}")
            _say_undo(item.undo)
            for problem in item.problems:
                say(f"  ! {problem}")
        say(f"{len(told)} tests, {failed} failed.")
    if failed:
        raise typer.Exit(FAILED)


def _say_undo(undo: "list[Undoing]") -> None:
    from aios_cli.output import say

    done = [item for item in undo if not item.stays]
    if done:
        say("    It would be undone, in this order:")
    for number, item in enumerate(done, 1):
        by = f"by {item.instead}{_gave(item.given)}" if item.instead else f"by the inverse of {item.target}"
        say(f"    {number:>3}. {item.step}: {by}")
    for item in undo[len(done) :]:
        say(f"      - {item.step} would stay: {item.why}")


def _gave(value: object) -> str:
    import json

    text = json.dumps(value, ensure_ascii=False)
    return f"  {text[:100]}{'…' if len(text) > 100 else ''}" if value is not None else ""


def _is_file(name: str) -> bool:
    return name == "-" or name.endswith((".yaml", ".yml"))


def _workflows(name: str, only: str, version: str) -> "list[Workflow]":
    """The workflows of a file, or the one of that name on the server."""
    from aios_cli.compiling import Compiler, applied

    if not _is_file(name):
        return [applied(name, version)]
    compiler = Compiler([name])
    compiler.check()
    found = [workflow for workflow in compiler.workflows.values() if only in ("", workflow.name)]
    if not found:
        _choose(name, list(compiler.workflows))
    return found


def _choose(name: str, names: list[str]) -> NoReturn:
    from aios_core.errors import TerminalError

    raise TerminalError(
        "INVALID_ARGUMENT", f"--only: choose one of the workflows of {name}: {', '.join(names) or 'none'}."
    )
