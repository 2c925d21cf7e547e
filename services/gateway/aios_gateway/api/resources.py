"""ResourceService: the documents that say how AIOS is to behave."""

from aios.api.v1 import api_pb2
from aios.resource.v1 import resource_pb2
from aios_core.errors import TerminalError
from aios_core.ids import check_request_id
from aios_gateway.peers import Call

MAX_FILE_CHARS = 500
MAX_ANSWER_BYTES = 3 * 1024 * 1024  # of one that was not asked for by its length; clients take 4 MiB


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
    question = resource_pb2.ListResourcesRequest(
        workspace=call.workspace,
        kind=request.kind,
        page_size=request.page_size,
        page_token=request.page_token,
    )
    found = api_pb2.ListResourcesResponse()
    while True:
        answer = await call.ask("resource", "list_resources", question, resource_pb2.ListResourcesResponse)
        found.resources.extend(answer.resources)
        found.next_page_token = question.page_token = answer.next_page_token
        if request.page_size or not answer.next_page_token or found.ByteSize() > MAX_ANSWER_BYTES:
            return found


async def get_resource(call: Call, request: api_pb2.GetResourceRequest) -> api_pb2.GetResourceResponse:
    for field in ("kind", "name"):
        if not getattr(request, field):
            raise TerminalError("INVALID_ARGUMENT", f"{field} is missing.", field=field)
    question = resource_pb2.GetResourceRequest(
        workspace=call.workspace, kind=request.kind, name=request.name, version=request.version
    )
    answer = await call.ask("resource", "get_resource", question, resource_pb2.GetResourceResponse)
    return api_pb2.GetResourceResponse(resource=answer.resource)
