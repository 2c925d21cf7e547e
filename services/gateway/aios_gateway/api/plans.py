"""RunService: the plans of runs."""

from aios.api.v1 import api_pb2
from aios.run.v1 import commands_pb2
from aios.run.v1.state_pb2 import Recovery
from aios_core.ids import check_request_id
from aios_gateway import plan_versions
from aios_gateway.api.runs import all_events, checked_why, given, read_run
from aios_gateway.peers import Call


async def list_plans(call: Call, request: api_pb2.ListPlansRequest) -> api_pb2.ListPlansResponse:
    run = await read_run(call, given(request.run_id, "run_id"))
    return api_pb2.ListPlansResponse(plans=plan_versions.versions(await all_events(call, run.run_id)))


async def revise_plan(call: Call, request: api_pb2.RevisePlanRequest) -> api_pb2.RevisePlanResponse:
    """Whether there is a plan to revise is the orchestrator's to say."""
    command = commands_pb2.RecoverRunRequest(
        workspace=call.workspace,
        request_id=check_request_id(request.request_id),
        run_id=given(request.run_id, "run_id"),
        actor=call.identity.actor,
        why=checked_why(request.note),
        recovery=Recovery.RECOVERY_REPLAN,
        step=request.step,
    )
    await call.command_run("recover_run", request.run_id, command, commands_pb2.RecoverRunResponse)
    return api_pb2.RevisePlanResponse(run=await read_run(call, request.run_id))
