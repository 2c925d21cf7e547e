"""A service's options: flat names to text, from file, environment and command line, the later over the earlier."""

from collections.abc import Mapping
from typing import Final

from aios_core.errors import TerminalError

MAX_OPTION_CHARS: Final = 4096


def merge(
    service: str, file: Mapping[str, object], environ: Mapping[str, str], given: Mapping[str, str]
) -> dict[str, str]:
    """The options of `service`: its table of the file, `AIOS_<SERVICE>_<NAME>` of `environ`, then `given`.

    Names are lower case with underscores. Raises INVALID_ARGUMENT for a value that is not a plain scalar or too long.
    """
    merged: dict[str, str] = {}
    for name, value in file.items():
        merged[_key(name)] = _text(service, name, value)
    prefix = f"AIOS_{service.upper().replace('-', '_')}_"
    for name, text in environ.items():
        if name.startswith(prefix) and len(name) > len(prefix):
            merged[_key(name[len(prefix) :])] = _text(service, name, text)
    for name, text in given.items():
        merged[_key(name)] = _text(service, name, text)
    return merged


def _key(name: str) -> str:
    return name.lower().replace("-", "_")


def _text(service: str, name: str, value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str | int | float):
        raise TerminalError(
            "INVALID_ARGUMENT",
            f"Option {name} of {service} is a {type(value).__name__}; give text, a number, or true or false.",
            field=f"{service}.{name}",
        )
    text = str(value)
    if len(text) > MAX_OPTION_CHARS:
        raise TerminalError(
            "INVALID_ARGUMENT",
            f"Option {name} of {service} has {len(text)} characters; at most {MAX_OPTION_CHARS} are allowed.",
            field=f"{service}.{name}",
        )
    return text
