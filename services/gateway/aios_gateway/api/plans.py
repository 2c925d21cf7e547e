"""RunService: the plans of runs."""

from aios.api.v1 import api_pb2
from aios_gateway import plan_versions
from aios_gateway.api.runs import all_events, given, read_run
from aios_gateway.peers import Call


async def list_plans(call: Call, request: api_pb2.ListPlansRequest) -> api_pb2.ListPlansResponse:
    run = await read_run(call, given(request.run_id, "run_id"))
    return api_pb2.ListPlansResponse(plans=plan_versions.versions(await all_events(call, run.run_id)))
