"""QueueService: what waits for a place, what is out, and which limits hold."""

from aios.api.v1 import api_pb2
from aios.run.v1 import queries_pb2
from aios_gateway.peers import Call


async def show_queues(call: Call, request: api_pb2.ShowQueuesRequest) -> api_pb2.ShowQueuesResponse:
    question = queries_pb2.ShowQueuesRequest(workspace=call.workspace)
    answer = await call.ask("run", "show_queues", question, queries_pb2.ShowQueuesResponse)
    return api_pb2.ShowQueuesResponse(lanes=answer.lanes, limits=answer.limits)
