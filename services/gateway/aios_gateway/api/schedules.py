"""ScheduleService: what is started at which times, and a person's say in it."""

from aios.api.v1 import api_pb2
from aios.resource.v1 import resource_pb2
from aios_core.errors import TerminalError
from aios_core.ids import check_name, check_request_id
from aios_gateway.peers import Call

MAX_TIMES = 20


async def list_schedules(call: Call, request: api_pb2.ListSchedulesRequest) -> api_pb2.ListSchedulesResponse:
    if request.times > MAX_TIMES:
        raise TerminalError("INVALID_ARGUMENT", f"times: at most {MAX_TIMES} are told.", field="times")
    question = resource_pb2.ListSchedulesRequest(
        workspace=call.workspace, name=request.name, times=request.times
    )
    answer = await call.ask("resource", "list_schedules", question, resource_pb2.ListSchedulesResponse)
    return api_pb2.ListSchedulesResponse(schedules=answer.schedules)


async def pause_schedule(call: Call, request: api_pb2.PauseScheduleRequest) -> api_pb2.PauseScheduleResponse:
    answer = await _change(call, request.request_id, request.name, "pause")
    return api_pb2.PauseScheduleResponse(schedule=answer.schedule)


async def resume_schedule(
    call: Call, request: api_pb2.ResumeScheduleRequest
) -> api_pb2.ResumeScheduleResponse:
    answer = await _change(call, request.request_id, request.name, "resume")
    return api_pb2.ResumeScheduleResponse(schedule=answer.schedule)


async def run_schedule(call: Call, request: api_pb2.RunScheduleRequest) -> api_pb2.RunScheduleResponse:
    answer = await _change(call, request.request_id, request.name, "run")
    return api_pb2.RunScheduleResponse(run_id=answer.run_id, duplicate=answer.duplicate)


async def _change(call: Call, request_id: str, name: str, action: str) -> resource_pb2.ChangeScheduleResponse:
    command = resource_pb2.ChangeScheduleRequest(
        workspace=call.workspace,
        request_id=check_request_id(request_id),
        name=check_name(name, "name"),
        action=action,
        actor=call.identity.actor,
    )
    return await call.command_resources("change_schedule", command, resource_pb2.ChangeScheduleResponse)
