"""Events from outside: each is resolved once, and what it starts is committed together with the record of why."""

from collections.abc import Callable
from typing import Final

from google.protobuf.message import DecodeError

from aios.event.v1.event_pb2 import AcceptEventRequest, AcceptEventResponse, ExternalEvent, Resolution
from aios.run.v1.commands_pb2 import StartRunRequest
from aios.task.v1.task_pb2 import Mode
from aios_core.encoding import decode
from aios_core.errors import TerminalError
from aios_core.hashing import sha256
from aios_core.ids import run_id
from aios_core.json_values import dumps, loads
from aios_orchestrator.engine import Engine, StartItem
from aios_orchestrator.resolve import OUTCOME_INTENT, OUTCOME_QUESTION, event_key, resolve
from aios_orchestrator.resources import ResourceBook
from aios_runtime.store.port import Store, Write
from aios_runtime.telemetry.tracing import span

MAX_EVENT_BYTES: Final = 64 * 1024
MAX_FIELD_CHARS: Final = 300


def _same(one: bytes, other: bytes) -> bool:
    """Whether two events carry the same data: senders and the modes of CloudEvents differ in spaces and order."""
    return one == other or (bool(one) and bool(other) and dumps(loads(one)) == dumps(loads(other)))


class Intake:
    """Accepts external events. What it answers is committed."""

    def __init__(
        self, store: Store, resources: ResourceBook, engine: Engine, workspace: str, now_ms: Callable[[], int]
    ) -> None:
        self._store = store
        self._resources = resources
        self._engine = engine
        self._workspace = workspace
        self._now_ms = now_ms

    async def accept(self, event: ExternalEvent) -> AcceptEventResponse:
        """Resolve an event and start what it asks for. The same event again answers with the first resolution."""
        check(event, self._workspace)
        key = f"{event.workspace}/resolution/{event_key(event)}"
        known = await self._store.read(key)
        if known is not None:
            resolution = Resolution.FromString(known.head)
            if not _same(resolution.event_data, event.data):
                raise TerminalError(
                    "REQUEST_ID_REUSED",
                    f"Event {event.id!r} of {event.source!r} came before with other data.",
                    field="id",
                )
            return AcceptEventResponse(event_id=event.id, duplicate=True, resolution=resolution)
        with span("accept event", kind="consumer", parent=event.traceparent) as accepting:
            resolution = resolve(event, await self._resources.intents(event.workspace))
            resolution.time_ms = self._now_ms()
            items = []
            if resolution.outcome == OUTCOME_INTENT:
                try:
                    items.append(await self._start(event, resolution, accepting.traceparent))
                except TerminalError as error:
                    resolution.outcome, resolution.question = OUTCOME_QUESTION, error.message
                    resolution.intent = resolution.run_id = ""
            await self._engine.submit(items, [_write(key, event, resolution)])
        return AcceptEventResponse(event_id=event.id, resolution=resolution)

    async def _start(self, event: ExternalEvent, resolution: Resolution, traceparent: str) -> StartItem:
        intent = next(
            item for item in await self._resources.intents(event.workspace) if item.name == resolution.intent
        )
        workflow = await self._resources.workflow(event.workspace, intent.workflow)
        workflow.check_input(decode(resolution.parameters))
        trigger, request = f"intent:{intent.name}", f"{event.source}:{event.id}"
        resolution.run_id = run_id(event.workspace, trigger, request)
        start = StartRunRequest(
            workspace=event.workspace,
            request_id=request,
            workflow=intent.workflow,
            input=resolution.parameters,
            mode=Mode.MODE_EXECUTE,
            actor=f"event:{event.source}",
            trigger=trigger,
            resolution_id=resolution.id,
            traceparent=traceparent,
        )
        return StartItem(start, sha256(intent.workflow.encode(), resolution.parameters))

    async def answer(self, data: bytes) -> bytes:
        """The request-and-reply door: an AcceptEventRequest, answered after the commit."""
        try:
            request = AcceptEventRequest.FromString(data)
        except DecodeError:
            raise TerminalError("UNDECODABLE", "This is not an aios.event.v1.AcceptEventRequest.") from None
        return (await self.accept(request.event)).SerializeToString()


def _write(key: str, event: ExternalEvent, resolution: Resolution) -> Write:
    index = {"resolutions": event.workspace}
    if resolution.outcome == OUTCOME_QUESTION:
        index["questions"] = event.workspace
    return Write(key=key, expect=0, head=resolution.SerializeToString(), index=index)


def check(event: ExternalEvent, workspace: str) -> None:
    """Raises INVALID_ARGUMENT or TOO_LARGE, naming the field."""
    event.workspace = event.workspace or workspace
    if event.workspace != workspace:
        raise TerminalError(
            "INVALID_ARGUMENT", f"workspace: there is no workspace {event.workspace!r}.", field="workspace"
        )
    for name in ("id", "source", "type"):
        text = getattr(event, name)
        if not text or len(text) > MAX_FIELD_CHARS or not text.isprintable():
            raise TerminalError(
                "INVALID_ARGUMENT",
                f"{name}: an event needs 1 to {MAX_FIELD_CHARS} printable characters.",
                field=name,
            )
    if len(event.data) > MAX_EVENT_BYTES:
        raise TerminalError(
            "TOO_LARGE",
            f"data: {len(event.data)} bytes; an event carries at most {MAX_EVENT_BYTES}.",
            field="data",
        )
