"""What each bus identity may do. The server enforces it, so that a service that was taken over can't speak for another.

Only the orchestrator makes streams and consumers: a stream that republishes, or a consumer that delivers to a subject,
would get round every permission to publish.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from aios_runtime.bus import subjects
from aios_runtime.bus.topology import TOPOLOGY_OWNER, consumers

EXTERNAL: Final = "external"  # events from outside; it may do nothing else
CORE_SERVICES: Final = ("gateway", "orchestrator", "memory", "agent-runner")


@dataclass(frozen=True, slots=True)
class Permissions:
    """Subjects that an identity may publish to and subscribe to; everything else is refused.

    `answers`: it may also answer whoever asked it, on the reply subject of that question alone.
    """

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    answers: bool = False


def identities(connectors: Sequence[str]) -> tuple[str, ...]:
    """Every bus identity: a user per service, one for the outside."""
    return (*CORE_SERVICES, *(subjects.connector_lane(name) for name in connectors), EXTERNAL)


def permissions(identity: str, connectors: Sequence[str]) -> Permissions:
    """What `identity` (one of `identities`) may do."""
    if identity == EXTERNAL:
        return Permissions(publish=("aios.in.>", "aios.accept.>"), subscribe=("_INBOX.>",))
    own = _OWN.get(identity, _WORKER)
    publish = [*own.publish, f"aios.dlq.{identity}.*", "$JS.API.INFO", "$JS.API.STREAM.INFO.*"]
    for consumer in consumers(connectors):
        if consumer.service == identity:
            place = f"{consumer.stream}.{consumer.name}"
            publish.append(f"$JS.API.CONSUMER.INFO.{place}")
            publish.append(f"$JS.API.CONSUMER.MSG.NEXT.{place}")
            publish.append(f"$JS.ACK.{place}.>")
            publish.append(f"$JS.ACK.*.*.{place}.>")  # the longer form, with domain and account
    if identity == TOPOLOGY_OWNER:
        publish += [f"$JS.API.{verb}" for verb in _OWNS_TOPOLOGY]
    if identity not in _OWN:
        connector = identity.removeprefix("connector-")
        publish += [f"aios.in.*.{connector}.>", "aios.accept.*"]
    subscribe = (*own.subscribe, f"{subjects.inbox(identity)}.>", f"aios.qry.{identity}.>")
    return Permissions(tuple(publish), subscribe, answers=True)


# Streams and consumers are made and looked at; no stream is deleted or purged, and no consumer but one that is ahead of
# its stream.
_OWNS_TOPOLOGY: Final = (
    "STREAM.CREATE.*",
    "STREAM.UPDATE.*",
    "STREAM.MSG.GET.*",
    "CONSUMER.CREATE.>",
    "CONSUMER.DELETE.>",
    "CONSUMER.INFO.>",
)
# What a worker of a lane does: reports outcomes, asks memory and stores artifacts there.
_WORKER: Final = Permissions(
    publish=("aios.cmd.run.v1.report_outcomes.>", "aios.cmd.memory.>", "aios.qry.memory.>"), subscribe=()
)
_OWN: Final = {
    "gateway": Permissions(
        publish=(
            "aios.cmd.run.v1.start_run.>",
            "aios.cmd.run.v1.start_runs.>",
            "aios.cmd.run.v1.cancel_run.>",
            "aios.cmd.run.v1.undo_run.>",
            "aios.cmd.run.v1.redo_run.>",
            "aios.cmd.run.v1.recover_run.>",
            "aios.cmd.run.v1.migrate_run.>",
            "aios.cmd.run.v1.decide_approval.>",
            "aios.cmd.run.v1.edit_approval.>",
            "aios.cmd.resource.>",
            "aios.cmd.memory.>",
            "aios.qry.>",
            "aios.accept.*",
            "aios.in.>",
        ),
        subscribe=("aios.evt.>",),
    ),
    "orchestrator": Permissions(
        publish=(
            "aios.cmd.task.>",
            "aios.cmd.run.>",
            "aios.cmd.memory.>",
            "aios.evt.>",
            "aios.own.>",
            "aios.qry.>",
            "aios.inbox.>",
        ),
        subscribe=(
            "aios.own.>",
            "aios.qry.run.>",
            "aios.qry.resource.>",
            "aios.qry.event.>",
            "aios.qry.approval.>",
            "aios.accept.*",
            "aios.evt.>",
        ),
    ),
    "memory": Permissions(
        publish=(*_WORKER.publish, "aios.qry.run.>", "aios.evt.memory.>", "aios.inbox.>"),
        subscribe=("aios.evt.>",),
    ),
    "agent-runner": _WORKER,
}
