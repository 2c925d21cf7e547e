"""`aios schema`: what documents look like, for editors that complete and check them."""

from pathlib import Path
from typing import Annotated, Any

import typer

from aios_cli.options import given, shared


@shared
def schema(
    kind: Annotated[
        str, typer.Argument(metavar="KIND", help="Such as Workflow or Agent.", show_default=False)
    ] = "",
    everything: Annotated[bool, typer.Option("--all", help="Of every kind.")] = False,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="A folder for one file a kind.", show_default=False),
    ] = None,
) -> None:
    """Print the JSON Schema of a kind of document."""
    import json

    from aios_cli.output import print_json, say
    from aios_core.errors import TerminalError

    schemas = published()
    if not everything:
        schemas = {name: item for name, item in schemas.items() if name.lower() == kind.lower()}
        if not schemas:
            raise TerminalError(
                "NOT_FOUND" if kind else "INVALID_ARGUMENT",
                f"{f'There is no kind {kind[:80]!r}' if kind else 'Say which kind, or --all'}; "
                f"there are {', '.join(published())}.",
                field="kind",
            )
    if out is None:
        print_json(schemas if everything else next(iter(schemas.values())))
        return
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, item in schemas.items():
            text = json.dumps(item, indent=2, ensure_ascii=False)
            (out / f"{name.lower()}.json").write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise TerminalError(
            "INVALID_ARGUMENT", f"{out} can't be written: {error.strerror}.", field="out"
        ) from None
    if given.json:
        print_json({"written": [str(out / f"{name.lower()}.json") for name in schemas]})
    else:
        say(
            f"{len(schemas)} schemas in {out}; in a document: # yaml-language-server: $schema={out}/workflow.json"
        )


def published() -> dict[str, dict[str, Any]]:
    """The schema of every kind of document, by its name."""
    from aios_agent_runner.contract import Spec
    from aios_orchestrator.language import kinds, schema_of

    return {
        **{kind: schema_of(kind) for kind in kinds()},
        "Agent": schema_of("Agent", Spec.model_json_schema()),
    }
