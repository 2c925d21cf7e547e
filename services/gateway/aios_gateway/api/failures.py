"""FailureService: runs that failed, and having them go on."""

from aios.api.v1 import api_pb2
from aios.run.v1 import commands_pb2, queries_pb2
from aios_core.errors import TerminalError
from aios_core.ids import check_request_id
from aios_gateway import values
from aios_gateway.api.arguments import check_input
from aios_gateway.api.runs import checked_why, given, read_run
from aios_gateway.peers import Call
from aios_gateway.tokens import Scope


async def list_failures(call: Call, request: api_pb2.ListFailuresRequest) -> api_pb2.ListFailuresResponse:
    answer = await call.ask(
        "run",
        "list_failures",
        queries_pb2.ListFailuresRequest(
            workspace=call.workspace,
            cause=request.cause,
            page_size=request.page_size,
            page_token=request.page_token,
        ),
        queries_pb2.ListFailuresResponse,
    )
    return api_pb2.ListFailuresResponse(failures=answer.failures, next_page_token=answer.next_page_token)


async def get_failure(call: Call, request: api_pb2.GetFailureRequest) -> api_pb2.GetFailureResponse:
    question = queries_pb2.GetFailureRequest(workspace=call.workspace, run_id=given(request.run_id, "run_id"))
    answer = await call.ask("run", "get_failure", question, queries_pb2.GetFailureResponse)
    return api_pb2.GetFailureResponse(failure=answer.failure)


async def recover_run(call: Call, request: api_pb2.RecoverRunRequest) -> api_pb2.RecoverRunResponse:
    """Whether the run can go on is the orchestrator's to say; with `dry_run` it only says so."""
    if request.cap_micros < 0:
        raise TerminalError("INVALID_ARGUMENT", "cap_micros must not be negative.", field="cap_micros")
    if request.cap_micros:
        call.identity.require(Scope.APPROVE)  # whoever may start runs may not thereby spend more
    command = commands_pb2.RecoverRunRequest(
        workspace=call.workspace,
        request_id=check_request_id(request.request_id),
        run_id=given(request.run_id, "run_id"),
        actor=call.identity.actor,
        why=checked_why(request.why),
        recovery=request.recovery,
        step=request.step,
        value=values.canonical(request.value, "value") if request.HasField("value") else b"",
        cap_micros=request.cap_micros,
    )
    meant = commands_pb2.RecoverRunResponse()
    if request.dry_run or command.value:
        try:
            meant = await call.ask("run", "preview_recovery", command, commands_pb2.RecoverRunResponse)
        except TerminalError:
            if request.dry_run:
                raise  # else the command says so, unless it was carried out before
    unchecked = ""
    if meant.target:
        unchecked = await check_input(call, meant.target, command.value, "value", "give it again")
    if not request.dry_run:
        await call.command_run("recover_run", request.run_id, command, commands_pb2.RecoverRunResponse)
    again = meant.again if request.dry_run else []
    run = await read_run(call, request.run_id)
    return api_pb2.RecoverRunResponse(run=run, again=again, unchecked=unchecked)
