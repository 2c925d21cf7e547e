"""`aios artifact get`: the bytes behind a pointer."""

from typing import Annotated

import typer

from aios_cli.options import command, given, group

app = group("Read documents and results by their hash.")

SHA256_BYTES = 32


@command(app, "get")
def get(
    sha256: Annotated[str, typer.Argument(metavar="SHA256", help="The hash in hex.")],
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="Write it there; default: standard output.")
    ] = "-",
) -> None:
    """Fetch an artifact, checked against its hash."""
    import sys
    from pathlib import Path

    from aios_cli import documents
    from aios_cli.output import print_json, say
    from aios_cli.session import Session
    from aios_cli.words import size
    from aios_core.errors import TerminalError

    try:
        wanted = bytes.fromhex(sha256.removeprefix("sha256:"))
    except ValueError:
        wanted = b""
    if len(wanted) != SHA256_BYTES:
        raise TerminalError(
            "INVALID_ARGUMENT", f"{sha256[:80]!r} is not a SHA-256 of 64 hex digits.", field="sha256"
        )
    with Session() as session:
        content, media_type, name = documents.fetch(session.client, wanted)
    if output != "-":
        try:
            Path(output).write_bytes(content)
        except OSError as problem:
            raise TerminalError("READ_ONLY", f"{output} can't be written: {problem.strerror}.") from None
    if given.json:
        path = output if output != "-" else None
        print_json(
            {
                "sha256": wanted.hex(),
                "size": len(content),
                "media_type": media_type,
                "name": name,
                "path": path,
            }
        )
    elif output == "-":
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
    else:
        say(f"{name or 'artifact'}: {size(len(content))} written to {output}")
