"""Options that every command takes, before or after its name, and the decorators that give it them."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Final

import typer

DEFAULT_TIMEOUT_S: Final = 15.0


@dataclass(slots=True)
class Given:
    """What the command line said for all commands. `None` and False: not said."""

    json: bool = False
    data_dir: Path | None = None
    address: str | None = None
    timeout: float | None = None


given: Final = Given()

_SHARED: Final[dict[str, Any]] = {
    "json": Annotated[bool, typer.Option("--json", help="Print JSON on standard output, and nothing else.")],
    "data_dir": Annotated[
        Path | None,
        typer.Option(
            "--data-dir", help="The server's data directory [env: AIOS_DATA_DIR].", show_default=False
        ),
    ],
    "address": Annotated[
        str | None,
        typer.Option(
            "--address", help="host:port of a server [env: AIOS_ADDRESS, AIOS_TOKEN].", show_default=False
        ),
    ],
    "timeout": Annotated[
        float | None,
        typer.Option("--timeout", help="Seconds to wait, for an answer or with --wait.", show_default=False),
    ],
}


def group(help_text: str) -> typer.Typer:
    """A group of commands that takes the shared options itself too, between its name and that of the command."""
    app = typer.Typer(help=help_text, rich_markup_mode=None)

    def options() -> None:
        pass

    options.__doc__ = help_text
    app.callback()(shared(options))
    return app


def reset() -> None:
    """Forget what an earlier call in this process was given."""
    for field in fields(Given):
        setattr(given, field.name, field.default)


def command(
    app: typer.Typer, name: str, **settings: Any
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a function as a command of `app` that takes the shared options too."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        app.command(name, **settings)(shared(function))
        return function

    return register


def shared(function: Callable[..., None]) -> Callable[..., None]:
    """The function with the shared options after its own; they end up in `given`."""
    own = inspect.signature(function, eval_str=True)
    added = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=False if name == "json" else None, annotation=kind
        )
        for name, kind in _SHARED.items()
        if name not in own.parameters
    ]

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> None:
        for name in _SHARED:
            said = kwargs.get(name) if name in own.parameters else kwargs.pop(name)
            if said:
                setattr(given, name, said)
        function(*args, **kwargs)

    del call.__wrapped__  # the signature below is the one that counts
    call.__signature__ = own.replace(parameters=[*own.parameters.values(), *added])  # type: ignore[attr-defined]
    call.__annotations__ = {name: parameter.annotation for name, parameter in own.parameters.items()} | {
        parameter.name: parameter.annotation for parameter in added
    }
    return call
