"""Runs the agent's function and frames what came of it. From here on the process belongs to the agent's code."""

import importlib
import json
import os
import socket
import sys
from pathlib import Path
from typing import Any, Final

from aios_agent_runner.sandbox import wire

_MESSAGE_CHARS: Final = 2000
_ENVIRONMENT: Final = {
    "LANG": "C.UTF-8",
    "TZ": "UTC",
    "MPLBACKEND": "Agg",
    # Numerical libraries start a thread a core unless they are told not to; an agent has one process.
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
}


def set_environment(scratch: str) -> None:
    """Replace the environment by one that is the same on each machine."""
    os.environ.clear()
    os.environ.update(_ENVIRONMENT, HOME=scratch, TMPDIR=scratch)


def encode(value: dict[str, Any]) -> bytes:
    """The JSON of an answer. Raises TypeError, ValueError or RecursionError for what is not JSON."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def run(call: socket.socket, header: dict[str, Any], request: bytes) -> None:
    """Call the agent and send its RESPONSE, or the ERROR that says what it did instead."""
    module = header["agent"].partition(":")[0]
    try:
        response = _invoke(header, request)
    except MemoryError:
        answer(call, wire.ERROR, b'{"kind": "memory"}')
    except _BadAnswer as error:
        _complain(call, kind=error.kind, message=str(error))
    except BaseException as error:  # SystemExit and the like are answers of an agent too
        _complain(
            call,
            kind=wire.AGENT_RAISED,
            type=type(error).__name__,
            message=_text(error),
            where=_where(error, module),
        )
    else:
        answer(call, wire.RESPONSE, response)


class _BadAnswer(Exception):
    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def _invoke(header: dict[str, Any], request: bytes) -> bytes:
    module, _, name = header["agent"].partition(":")
    function = getattr(importlib.import_module(module), name)
    directory = Path(header["directory"])
    result = function(json.loads(request), directory / "in", directory / "out")
    sys.stdout.flush()  # the process ends without Python's own farewell
    if not isinstance(result, dict):
        raise _BadAnswer(wire.BAD_ANSWER, f"it returned {type(result).__name__}, not a dict")
    try:
        response = encode(result)
    except (TypeError, ValueError, RecursionError) as error:
        raise _BadAnswer(wire.BAD_ANSWER, f"its result is not JSON: {_text(error)}") from None
    limit = header["limits"]["output_bytes"]
    if len(response) > limit:
        raise _BadAnswer(
            wire.ANSWER_TOO_LARGE, f"its result has {len(response)} bytes of JSON, the limit is {limit}"
        )
    return response


def answer(call: socket.socket, kind: bytes, payload: bytes) -> None:
    """Send one frame; the runner may be gone, then there is nobody to tell."""
    try:
        call.sendall(wire.FRAME.pack(kind, len(payload)) + payload)
    except OSError:
        os._exit(1)


def _complain(call: socket.socket, **fields: str) -> None:
    answer(call, wire.ERROR, json.dumps(fields).encode())


def _text(error: BaseException) -> str:
    try:
        return str(error)[:_MESSAGE_CHARS]
    except BaseException as failure:  # the agent's exception class may fail to describe itself
        return f"(its message failed with {type(failure).__name__})"


def _where(error: BaseException, module: str) -> str:
    """The innermost frame in the agent's own module, else in any code, as "module, line 12, in run"."""
    found = ""
    trace = error.__traceback__
    while trace is not None:
        name = str(trace.tb_frame.f_globals.get("__name__", "?"))
        if name == module or not found.startswith(f"{module},"):
            found = f"{name}, line {trace.tb_lineno}, in {trace.tb_frame.f_code.co_name}"
        trace = trace.tb_next
    return found
