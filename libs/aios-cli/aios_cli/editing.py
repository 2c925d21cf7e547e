"""What a person makes of the arguments that an approval proposes. Pure, but for the editor."""

import json
import os
import re
import shlex
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from aios.run.v1.state_pb2 import Approval, ProposedStep
from aios_core import json_values
from aios_core.encoding import decode_trusted
from aios_core.errors import TerminalError
from aios_core.values import Plain, plain, pointers

_PART = re.compile(r"[^.\[\]]+")


def chosen(item: Approval, step: str) -> ProposedStep:
    """The proposed step of that name; may be empty where there is one. Raises INVALID_ARGUMENT."""
    names = [proposed.step for proposed in item.proposed]
    if not names:
        raise TerminalError("INVALID_ARGUMENT", "It proposes nothing that could be edited.", field="approval")
    for proposed in item.proposed:
        if proposed.step == step or (not step and len(names) == 1):
            return proposed
    raise TerminalError("INVALID_ARGUMENT", f"--step: say which of {', '.join(names)}.", field="step")


def changed(proposed: ProposedStep, pairs: Sequence[str]) -> Plain:
    """The arguments with each `path=value` set; a value is JSON, or else text. Raises INVALID_ARGUMENT."""
    data: Plain = plain(decode_trusted(proposed.arguments))
    for pair in pairs:
        path, equals, text = pair.partition("=")
        if not equals or not path:
            raise TerminalError("INVALID_ARGUMENT", f"--set {pair!r} must be path=value.", field="set")
        data = _put(data, _PART.findall(path), _value(text), path)
    return data


def in_editor(proposed: ProposedStep) -> Plain:
    """The arguments as they come back from the person's editor, as JSON. Raises INVALID_ARGUMENT."""
    value = decode_trusted(proposed.arguments)
    if list(pointers(value)):
        raise TerminalError(
            "INVALID_ARGUMENT",
            "The arguments point to artifacts, which JSON can't hold; use --set.",
            field="editor",
        )
    text = json.dumps(json_values.to_json(plain(value)), indent=2, ensure_ascii=False)
    return json_values.loads(changed_text(text, "arguments.json"))


def changed_text(text: str, name: str) -> str:
    """A text as it comes back from the person's editor, where it has that file name. Raises INVALID_ARGUMENT."""
    edited = _edited(text, name)
    if edited == text:
        raise TerminalError("INVALID_ARGUMENT", "Nothing was changed in the editor.", field="editor")
    return edited


def _edited(text: str, name: str) -> str:
    """The text after the person's editor was closed; it lies in a file of this person alone meanwhile."""
    words = shlex.split(os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi")
    with tempfile.TemporaryDirectory(prefix="aios-edit-") as place:
        file = Path(place) / name
        file.write_text(text, encoding="utf-8")
        try:
            subprocess.run([*words, str(file)], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise TerminalError(
                "INVALID_ARGUMENT", f"The editor {words[0]} did not end well: {error}.", field="editor"
            ) from None
        return file.read_text(encoding="utf-8")


def _put(data: Plain, path: Sequence[str], value: Plain, said: str) -> Plain:
    """A copy with one place set, which has to be there."""
    if not path:
        return value
    first, rest = path[0], path[1:]
    if isinstance(data, dict) and first in data:
        return {**data, first: _put(data[first], rest, value, said)}
    if isinstance(data, list) and first.isdecimal() and len(first) < 7 and int(first) < len(data):
        at = int(first)
        return [*data[:at], _put(data[at], rest, value, said), *data[at + 1 :]]
    known = ", ".join(map(str, data)) if isinstance(data, dict) else "nothing below it"
    if isinstance(data, list) and data:
        known = f"0 to {len(data) - 1}" if len(data) > 1 else "0 alone"
    raise TerminalError(
        "INVALID_ARGUMENT", f"--set {said}: there is no {first!r}; there is {known}.", field="set"
    )


def _value(text: str) -> Plain:
    try:
        return json_values.loads(text)
    except TerminalError:
        return text
