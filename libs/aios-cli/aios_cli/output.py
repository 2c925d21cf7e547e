"""Where words go: JSON alone on standard output, or text for a person."""

import json
import sys
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from aios_cli.exits import exit_code, remedy
from aios_cli.options import given
from aios_core.errors import MORE, AiosError, others

if TYPE_CHECKING:
    from rich.console import Console

MAX_WIDTH: Final = 110  # columns; longer lines are hard to read


def print_json(data: Any) -> None:
    """One JSON object or array."""
    sys.stdout.write(json.dumps(data, ensure_ascii=False, indent=2 if sys.stdout.isatty() else None) + "\n")
    sys.stdout.flush()


@cache
def console() -> "Console":
    """Standard output for a person."""
    from rich.console import Console

    plain = Console(highlight=False, markup=False, emoji=False)
    return (
        plain
        if plain.width <= MAX_WIDTH
        else Console(highlight=False, markup=False, emoji=False, width=MAX_WIDTH)
    )


def say(text: str, style: str = "") -> None:
    """A line for a person; nothing with --json."""
    if not given.json:
        from aios_cli.words import clean

        console().print(clean(text), style=style or None, soft_wrap=True)


def hint(text: str) -> None:
    """What a person may do next, on standard error, so that output can be piped."""
    if not given.json and sys.stderr.isatty():
        from rich.console import Console

        Console(stderr=True, highlight=False, markup=False).print(text, style="dim", soft_wrap=True)


def fail(error: AiosError) -> int:
    """Say what went wrong and what to do. Returns the exit code."""
    code = exit_code(error)
    what_to_do = remedy(error)
    if given.json:
        details: dict[str, Any] = {key: text for key, text in error.details.items() if key != "remedy"}
        if MORE in details:
            details[MORE] = others(error)
        print_json(
            {
                "error": {
                    "code": error.code,
                    "message": error.message,
                    "remedy": what_to_do,
                    "details": details,
                }
            }
        )
        return code
    print(f"{error.message} [{error.code}]", file=sys.stderr)
    more = others(error)
    for other in more:
        print(f"{other['message']} [{other['code']}]", file=sys.stderr)
    untold = int(error.details.get("problems", "0")) - len(more) - 1
    if untold > 0:
        print(f"… and {untold} more; `aios workflow lint` tells all of them.", file=sys.stderr)
    if what_to_do and what_to_do not in error.message:
        print(what_to_do, file=sys.stderr)
    return code


def usage(message: str) -> int:
    """A wrong command line, as JSON. Returns the exit code."""
    print_json(
        {"error": {"code": "USAGE", "message": message, "remedy": "See `aios --help`.", "details": {}}}
    )
    return 2
