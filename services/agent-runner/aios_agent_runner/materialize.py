"""Between values and what a code agent sees: pointers become files in its folder, files it leaves become pointers."""

import mimetypes
from collections.abc import Mapping
from typing import Any, Final

from aios_agent_runner.sandbox.model import MAX_FILES
from aios_core.errors import TerminalError
from aios_core.json_values import POINTER_KEY, from_json, loads, to_json
from aios_core.values import Plain, Pointer
from aios_core.wording import kind_of

MAX_INPUT_BYTES: Final = 256 * 1024 * 1024
ARTIFACTS: Final = "artifacts"


def request_of(data: Plain) -> tuple[Any, dict[str, Pointer]]:
    """The agent's JSON request, and its input files by name. A pointer in it also says the `path` of its file."""
    files: dict[str, Pointer] = {}
    request = _with_paths(to_json(data), files)
    if len(files) > MAX_FILES:
        raise TerminalError(
            "TOO_LARGE", f"The input names {len(files)} files; an agent takes at most {MAX_FILES}."
        )
    if sum(pointer.size for pointer in files.values()) > MAX_INPUT_BYTES:
        raise TerminalError(
            "TOO_LARGE", f"The input's files have more than {MAX_INPUT_BYTES} bytes together."
        )
    return request, files


def _with_paths(data: Any, files: dict[str, Pointer]) -> Any:
    if isinstance(data, dict):
        if POINTER_KEY in data:
            pointer = from_json(data)
            assert isinstance(pointer, Pointer)
            return {**data, "path": _place(pointer, files)}
        return {key: _with_paths(item, files) for key, item in data.items()}
    if isinstance(data, list):
        return [_with_paths(item, files) for item in data]
    return data


def _place(pointer: Pointer, files: dict[str, Pointer]) -> str:
    name = pointer.name.replace("/", "_").replace("\\", "_").lstrip(".")[:200] or pointer.sha256[:16]
    name = "".join(char if char.isprintable() else "_" for char in name)
    unique, number = name, 1
    while unique in files and files[unique] != pointer:
        number += 1
        unique = f"{number}-{name}"
    files[unique] = pointer
    return unique


def media_type_of(name: str) -> str:
    """What a file's name says that it is."""
    if name.endswith(".md"):
        return "text/markdown"
    return mimetypes.guess_type(name)[0] or "application/octet-stream"


def answer_of(agent: str, response: bytes) -> Plain:
    """What a code agent answered. Raises AGENT_BAD_OUTPUT."""
    try:
        return loads(response)
    except TerminalError as error:
        raise TerminalError("AGENT_BAD_OUTPUT", f"The agent {agent}: {error.message}", agent=agent) from None


def output_of(agent: str, answer: Plain, artifacts: Mapping[str, Pointer]) -> Plain:
    """The step's output: the agent's answer, with `artifacts` as a map from file name to pointer. Raises
    AGENT_BAD_OUTPUT."""
    if not isinstance(answer, dict):
        message = f"The agent {agent}: its answer is {kind_of(answer)}, not a map in which that may stand."
        raise TerminalError("AGENT_BAD_OUTPUT", message, agent=agent)
    return {**answer, ARTIFACTS: dict(artifacts)} if artifacts else answer
