"""What the steps of an open approval would change, as whoever would do them sees it now. It never holds an approval:
where nobody can say in time, that is said instead."""

import asyncio
from typing import Final

from google.protobuf.message import DecodeError

from aios.run.v1.state_pb2 import APPROVAL_KIND_GATE, APPROVAL_STATE_OPEN, Approval, ProposedStep
from aios.task.v1 import task_pb2
from aios_core.errors import AiosError
from aios_gateway.api.arguments import service_of
from aios_gateway.peers import Call
from aios_runtime.bus import subjects

PREVIEW_SECONDS: Final = 2.5  # for all of an approval
MAX_PREVIEWS: Final = 20  # steps of one approval


async def add_previews(call: Call, approval: Approval) -> None:
    """Fill in `changes` and `summary` of what is proposed, or `no_preview`."""
    if approval.state != APPROVAL_STATE_OPEN or approval.kind != APPROVAL_KIND_GATE:
        return
    items = [
        item for item in approval.proposed if service_of(item.target) != "agent-runner"
    ]  # those change nothing
    for item in items[MAX_PREVIEWS:]:
        item.no_preview = f"only the first {MAX_PREVIEWS} are asked about"
    await asyncio.gather(*(_add(call, approval.run_id, item) for item in items[:MAX_PREVIEWS]))


async def _add(call: Call, run_id: str, item: ProposedStep) -> None:
    """Bound to what will run: the answer names the hash of the arguments that it is of."""
    question = task_pb2.PreviewStepRequest(
        workspace=call.workspace, target=item.target, input=item.arguments, run_id=run_id, step=item.step
    )
    service = service_of(item.target)
    subject = subjects.query(service, "preview_step", call.workspace)
    try:
        data = await call.bus.ask(subject, question.SerializeToString(), min(PREVIEW_SECONDS, call.timeout))
        found = task_pb2.PreviewStepResponse.FromString(data)
    except DecodeError:
        item.no_preview = f"{service} answers in a way that can't be read"
        return
    except AiosError as error:
        said = "does not answer" if error.code in ("UNAVAILABLE", "DEADLINE_EXCEEDED") else "says"
        item.no_preview = f"{service} {said}: {error.message}"
        return
    if found.input_sha256 != item.arguments_sha256:
        item.no_preview = f"{service} answered for other arguments"
        return
    item.changes.extend(found.changes)
    item.summary = found.summary
