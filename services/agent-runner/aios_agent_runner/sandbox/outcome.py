"""What a finished call means: its response, or the error that tells an agent's author what happened."""

import json
import signal
from typing import Any, Final, NoReturn

from aios_agent_runner.sandbox import wire
from aios_agent_runner.sandbox.exchange import Exchange
from aios_agent_runner.sandbox.link import Exit, describe_status
from aios_agent_runner.sandbox.model import SandboxCall
from aios_core.errors import RetryableError, TerminalError

# Seconds. The kernel enforces the limit by counting ticks, but reports what was really used; on a busy machine the
# two differ by a tenth of a second and more.
_TICK_ERROR: Final = 0.3
_SHOWN_LOG: Final = 500  # characters of an agent's last prints in the error of a crash


def response_of(call: SandboxCall, exchange: Exchange, exit_: Exit) -> bytes:
    """The response of a call that ended well; else raises TerminalError or RetryableError."""
    _check_stopped(call, exchange, exit_)
    answer = exchange.answer
    if answer is not None and answer[0] == wire.ERROR:
        _raise_error(call, _decode(answer[1]))
    if exit_.status != 0 or answer is None or answer[0] != wire.RESPONSE:
        raise RetryableError(
            "SANDBOX_CRASHED",
            f"The agent {call.agent} {describe_status(exit_.status)} without an answer.",
            agent=call.agent,
            logs=exchange.logs[-_SHOWN_LOG:],
        )
    return _checked(call, answer[1])


def _check_stopped(call: SandboxCall, exchange: Exchange, exit_: Exit) -> None:
    limits = call.limits
    if exit_.status == wire.NOT_FORKED:
        raise RetryableError(
            "SANDBOX_CRASHED", "The machine could not start another process.", retry_after=1.0
        )
    if exchange.too_large:
        raise TerminalError(
            "SANDBOX_OUTPUT_TOO_LARGE",
            f"The agent {call.agent} answered with more than {limits.output_bytes} bytes.",
            agent=call.agent,
        )
    if exchange.timed_out:
        raise RetryableError(
            "SANDBOX_TIMEOUT",
            f"The agent {call.agent} ran for {limits.wall_seconds:g} s.",
            agent=call.agent,
            limit="wall_seconds",
        )
    killed = exit_.status & 0x7F in (signal.SIGKILL, signal.SIGXCPU)
    if killed and exit_.cpu_seconds >= limits.cpu_seconds * 0.95 - _TICK_ERROR:
        raise TerminalError(
            "SANDBOX_TIMEOUT",
            f"The agent {call.agent} used {limits.cpu_seconds:g} s of CPU time.",
            agent=call.agent,
            limit="cpu_seconds",
        )
    if killed:
        raise RetryableError(
            "SANDBOX_MEMORY",
            f"The agent {call.agent} was killed by the kernel, most likely because the machine is out of memory.",
            retry_after=1.0,
            agent=call.agent,
        )


def _raise_error(call: SandboxCall, error: dict[str, Any]) -> NoReturn:
    kind, message = error.get("kind"), str(error.get("message", ""))
    if kind == wire.OUT_OF_MEMORY:
        raise TerminalError(
            "SANDBOX_MEMORY",
            f"The agent {call.agent} needed more than {call.limits.memory_bytes} bytes of memory.",
            agent=call.agent,
        )
    if kind == wire.ANSWER_TOO_LARGE:
        raise TerminalError(
            "SANDBOX_OUTPUT_TOO_LARGE", f"The agent {call.agent}: {message}.", agent=call.agent
        )
    if kind == wire.BAD_ANSWER:
        raise TerminalError("AGENT_BAD_OUTPUT", f"The agent {call.agent}: {message}.", agent=call.agent)
    if kind == wire.NOT_SET_UP:
        raise RetryableError(
            "SANDBOX_CRASHED", f"The sandbox could not be set up: {message}.", retry_after=1.0
        )
    type_, where = str(error.get("type", "error")), str(error.get("where", ""))
    raise TerminalError(
        "AGENT_FAILED",
        f"The agent {call.agent} raised {type_}: {message} ({where}).",
        agent=call.agent,
        type=type_,
        where=where,
    )


def _decode(payload: bytes) -> dict[str, Any]:
    """An ERROR frame; an agent that forged it gets an empty one."""
    if len(payload) > wire.MAX_ERROR:
        return {}
    try:
        error = json.loads(payload)
    except (ValueError, RecursionError):
        return {}
    return error if isinstance(error, dict) else {}


def _checked(call: SandboxCall, payload: bytes) -> bytes:
    """The payload, if it is a JSON object: the frame may come from the agent itself."""
    try:
        value = json.loads(payload, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise TerminalError(
            "AGENT_BAD_OUTPUT", f"The agent {call.agent}: its result is not a JSON object.", agent=call.agent
        )
    return payload


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
