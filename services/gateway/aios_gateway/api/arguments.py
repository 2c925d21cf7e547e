"""What a person makes of arguments is checked by whoever would carry them out, before anything is decided."""

from typing import Final

from aios.run.v1.state_pb2 import APPROVAL_STATE_OPEN, Approval
from aios.task.v1 import task_pb2
from aios_core.errors import RetryableError, TerminalError
from aios_gateway.peers import Call
from aios_runtime.bus import subjects

CHECK_SECONDS: Final = 2.0  # for the worker to answer
_NO_WORD: Final = ("NOT_FOUND", "INTERNAL", "UNDECODABLE")  # of the worker itself, not of the arguments


async def check_edited(call: Call, approval: Approval, step: str, data: bytes) -> str:
    """Raises what the action or agent of a proposed step does not take, such as INVALID_ARGUMENT with the field.
    Returns why that could not be asked; empty where it is as it should be, or where it is not asked."""
    named = [item for item in approval.proposed if item.step == (step or item.step)]
    if approval.state != APPROVAL_STATE_OPEN or len(named) != 1:
        return ""  # the run says what is wrong with it, or that it was done before
    if not named[0].target:
        return ""  # a plan, which the run checks
    return await check_input(call, named[0].target, data, "arguments", "edit again")


async def check_input(call: Call, target: str, data: bytes, name: str, then: str) -> str:
    """Raises what an action or agent does not take, with the field below `name` and what to do `then`. Returns why that
    could not be asked; empty where it is as it should be."""
    service = service_of(target)
    question = task_pb2.CheckInputRequest(workspace=call.workspace, target=target, input=data)
    subject = subjects.query(service, "check_input", call.workspace)
    try:
        await call.bus.ask(subject, question.SerializeToString(), min(CHECK_SECONDS, call.timeout))
    except RetryableError as error:
        return f"{service} does not answer: {error.message}"
    except TerminalError as error:
        if error.code in _NO_WORD:
            return f"{service} can't say: {error.message}"
        field = error.details.get("field", "").rpartition(": ")[2].removeprefix("input").lstrip(".")
        raise TerminalError(
            error.code,
            f"{name}: {error.message.rstrip('.')}. Nothing was changed: correct it, and {then}.",
            field=f"{name}.{field}" if field else name,
        ) from None
    return ""


def service_of(target: str) -> str:
    """Whose work a target is: those of connectors and memory are named before a point, agents' have none."""
    owner, point, _ = target.partition(".")
    if not point:
        return "agent-runner"
    return owner if owner == subjects.LANE_MEMORY else subjects.connector_lane(owner)
