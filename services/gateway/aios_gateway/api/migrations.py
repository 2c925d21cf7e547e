"""RunService: runs that go on under another version of their workflow."""

from aios.api.v1 import api_pb2
from aios.run.v1 import commands_pb2
from aios_core.ids import check_request_id
from aios_gateway.api.runs import checked_why, given, read_run
from aios_gateway.peers import Call


async def migrate_run(call: Call, request: api_pb2.MigrateRunRequest) -> api_pb2.MigrateRunResponse:
    """Whether the run can follow is the orchestrator's to say; with `dry_run` it only says so."""
    run = await read_run(call, given(request.run_id, "run_id"))
    command = commands_pb2.MigrateRunRequest(
        workspace=call.workspace,
        request_id=check_request_id(request.request_id),
        run_id=request.run_id,
        actor=call.identity.actor,
        why=checked_why(request.why),
        workflow=run.workflow,
        version=request.workflow_version,
        renamed=request.renamed,
        accept=request.accept,
    )
    if request.dry_run:
        answer = await call.ask("run", "preview_migration", command, commands_pb2.MigrateRunResponse)
    else:
        answer = await call.command_run(
            "migrate_run", request.run_id, command, commands_pb2.MigrateRunResponse
        )
        run, before = await read_run(call, request.run_id), run
        answer.from_version = answer.from_version or before.workflow_version
    return api_pb2.MigrateRunResponse(
        run=run,
        from_version=answer.from_version,
        to_version=answer.to_version,
        breaks=answer.breaks,
        again=answer.again,
    )
