"""EventService, and the one way in for events from outside, whichever door they take."""

from aios.api.v1 import api_pb2
from aios.event.v1.event_pb2 import AcceptEventRequest, AcceptEventResponse, ExternalEvent
from aios.run.v1 import queries_pb2
from aios_core.errors import TerminalError
from aios_gateway.peers import Call
from aios_runtime.cloudevents import checked


async def accept(call: Call, event: ExternalEvent, now_ms: int) -> AcceptEventResponse:
    """Hand in a checked event; answered after the commit. Who sent it and when it came are ours to say."""
    accepted = ExternalEvent()
    accepted.CopyFrom(event)
    accepted.workspace = call.workspace
    accepted.received_by = f"token:{call.identity.token_id}"
    accepted.traceparent = call.traceparent
    accepted.time_ms = event.time_ms or now_ms
    accepted.data_content_type = event.data_content_type or "application/json"
    return await call.accept(AcceptEventRequest(event=accepted), AcceptEventResponse)


async def publish_event(
    call: Call, request: api_pb2.PublishEventRequest, now_ms: int
) -> api_pb2.PublishEventResponse:
    if not request.HasField("event"):
        raise TerminalError("INVALID_ARGUMENT", "event is missing.", field="event")
    answer = await accept(call, checked(request.event), now_ms)
    return api_pb2.PublishEventResponse(
        event_id=answer.event_id, duplicate=answer.duplicate, resolution=answer.resolution
    )


async def list_resolutions(
    call: Call, request: api_pb2.ListResolutionsRequest
) -> api_pb2.ListResolutionsResponse:
    question = queries_pb2.ListResolutionsRequest(
        workspace=call.workspace, page_size=request.page_size, page_token=request.page_token
    )
    answer = await call.ask("run", "list_resolutions", question, queries_pb2.ListResolutionsResponse)
    return api_pb2.ListResolutionsResponse(
        resolutions=answer.resolutions, next_page_token=answer.next_page_token
    )
