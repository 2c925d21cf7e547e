"""`aios workflow …`: check a workflow before it is applied, and see it."""

from typing import Annotated

import typer

from aios_cli.options import command, given, group

app = group("Check and draw workflows.")

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
    from aios_cli.compiling import Compiler, applied
    from aios_cli.output import print_json
    from aios_core.errors import TerminalError
    from aios_orchestrator import drawing

    if form not in FORMATS:
        raise TerminalError(
            "INVALID_ARGUMENT",
            f"--format: there is no {form!r}; there are {', '.join(FORMATS)}.",
            field="format",
        )
    if name == "-" or name.endswith((".yaml", ".yml")):
        compiler = Compiler([name])
        compiler.check()
        found = [w for w in compiler.workflows.values() if only in ("", w.name)]
        if not found or (form == "svg" and len(found) > 1 and not given.json):
            names = ", ".join(compiler.workflows) or "none"
            raise TerminalError(
                "INVALID_ARGUMENT", f"--only: choose one of the workflows of {name}: {names}."
            )
    else:
        found = [applied(name, version)]
    draw = {"text": drawing.outline, "mermaid": drawing.mermaid, "svg": drawing.svg}[form]
    if given.json:
        print_json([{"name": w.name, "version": w.version, form: draw(w)} for w in found])
    else:
        typer.echo("\n\n".join(map(draw, found)))
