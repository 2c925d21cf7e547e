"""MemoryService: artifacts and records, as memory holds them."""

from collections.abc import AsyncIterator

from aios.api.v1 import api_pb2
from aios.memory.v1 import memory_pb2
from aios_core.errors import TerminalError
from aios_gateway.peers import Call
from aios_gateway.settings import ARTIFACT_CHUNK_BYTES

SHA256_BYTES = 32


async def get_artifact(
    call: Call, request: api_pb2.GetArtifactRequest
) -> AsyncIterator[api_pb2.GetArtifactResponse]:
    """The artifact in chunks; size, media type and name stand in the first."""
    if len(request.sha256) != SHA256_BYTES:
        raise TerminalError("INVALID_ARGUMENT", "sha256 must have 32 bytes.", field="sha256")
    offset = 0
    while True:
        answer = await call.renewed().ask(
            "memory",
            "get_artifact",
            memory_pb2.GetArtifactRequest(
                workspace=call.workspace, sha256=request.sha256, offset=offset, limit=ARTIFACT_CHUNK_BYTES
            ),
            memory_pb2.GetArtifactResponse,
        )
        first = offset == 0
        yield api_pb2.GetArtifactResponse(
            chunk=answer.chunk,
            size=answer.size,
            media_type=answer.media_type if first else "",
            name=answer.name if first else "",
        )
        offset += len(answer.chunk)
        if offset >= answer.size:
            return
        if not answer.chunk:
            raise TerminalError("CORRUPT_STORE", f"The artifact ends after {offset} of {answer.size} bytes.")


async def list_records(call: Call, request: api_pb2.ListRecordsRequest) -> api_pb2.ListRecordsResponse:
    question = memory_pb2.ListRecordsRequest(
        workspace=call.workspace,
        kind=request.kind,
        prefix=request.prefix,
        page_size=request.page_size,
        page_token=request.page_token,
    )
    answer = await call.ask("memory", "list_records", question, memory_pb2.ListRecordsResponse)
    return api_pb2.ListRecordsResponse(records=answer.records, next_page_token=answer.next_page_token)


async def get_record(call: Call, request: api_pb2.GetRecordRequest) -> api_pb2.GetRecordResponse:
    for field in ("kind", "key"):
        if not getattr(request, field):
            raise TerminalError("INVALID_ARGUMENT", f"{field} is missing.", field=field)
    question = memory_pb2.GetRecordRequest(
        workspace=call.workspace, kind=request.kind, key=request.key, version=request.version
    )
    answer = await call.ask("memory", "get_record", question, memory_pb2.GetRecordResponse)
    return api_pb2.GetRecordResponse(record=answer.record)
