"""ResourceService: the documents that say how AIOS is to behave."""

from aios.api.v1 import api_pb2
from aios.resource.v1 import resource_pb2
from aios_core.errors import TerminalError
from aios_core.ids import check_request_id
from aios_gateway.peers import Call

MAX_FILE_CHARS = 500


async def apply_resources(
    call: Call, request: api_pb2.ApplyResourcesRequest
) -> api_pb2.ApplyResourcesResponse:
    if len(request.file) > MAX_FILE_CHARS:
        raise TerminalError(
            "INVALID_ARGUMENT", f"file has more than {MAX_FILE_CHARS} characters.", field="file"
        )
    command = resource_pb2.ApplyResourcesRequest(
        workspace=call.workspace,
        request_id=check_request_id(request.request_id),
        yaml=request.yaml,
        file=request.file,
        dry_run=request.dry_run,
        actor=call.identity.actor,
    )
    answer = await call.command_resources("apply_resources", command, resource_pb2.ApplyResourcesResponse)
    return api_pb2.ApplyResourcesResponse(applied=answer.applied)


async def list_resources(call: Call, request: api_pb2.ListResourcesRequest) -> api_pb2.ListResourcesResponse:
    question = resource_pb2.ListResourcesRequest(workspace=call.workspace, kind=request.kind)
    answer = await call.ask("resource", "list_resources", question, resource_pb2.ListResourcesResponse)
    return api_pb2.ListResourcesResponse(resources=answer.resources)


async def get_resource(call: Call, request: api_pb2.GetResourceRequest) -> api_pb2.GetResourceResponse:
    for field in ("kind", "name"):
        if not getattr(request, field):
            raise TerminalError("INVALID_ARGUMENT", f"{field} is missing.", field=field)
    question = resource_pb2.GetResourceRequest(
        workspace=call.workspace, kind=request.kind, name=request.name, version=request.version
    )
    answer = await call.ask("resource", "get_resource", question, resource_pb2.GetResourceResponse)
    return api_pb2.GetResourceResponse(resource=answer.resource)
