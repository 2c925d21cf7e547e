"""Events from outside: each is resolved once, and what it starts is committed together with the record of why."""

from collections.abc import Awaitable, Callable
from typing import Final

from google.protobuf.message import DecodeError

from aios.event.v1.event_pb2 import AcceptEventRequest, AcceptEventResponse, ExternalEvent, Resolution
from aios.run.v1.commands_pb2 import Queueing, StartRunRequest
from aios.task.v1.task_pb2 import Mode
from aios_core.encoding import decode
from aios_core.errors import TerminalError
from aios_core.ids import run_id
from aios_core.json_values import dumps, loads
from aios_core.values import Value
from aios_orchestrator import workflow
from aios_orchestrator.correlation import correlations_of
from aios_orchestrator.mailbox import UNHEARD, heard_as
from aios_orchestrator.queueing import key_of
from aios_orchestrator.repository import stored_run
from aios_orchestrator.resolve import OUTCOME_INTENT, OUTCOME_QUESTION, event_key, resolve
from aios_orchestrator.resources import ResourceBook
from aios_runtime.store.port import Committed, Store, Write
from aios_runtime.telemetry.tracing import span

MAX_EVENT_BYTES: Final = 64 * 1024
MAX_FIELD_CHARS: Final = 300
Starting = Callable[[StartRunRequest], Awaitable[None]]
"""Starts a run; what was started already stays as it is."""


def _same(one: bytes, other: bytes) -> bool:
    """Whether two events carry the same data: senders and the modes of CloudEvents differ in spaces and order."""
    return one == other or (bool(one) and bool(other) and dumps(loads(one)) == dumps(loads(other)))


class Intake:
    """Accepts external events. What it answers is committed.

    What an event means is committed before what it starts, so that a change of the intents in between can't make two
    things of it; if only the first of the two stands, the event that comes again is started then.
    """

    def __init__(
        self,
        store: Store,
        resources: ResourceBook,
        start: Starting,
        workspace: str,
        now_ms: Callable[[], int],
        accepted: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._accepted = accepted
        self._resources = resources
        self._start = start
        self._workspace = workspace
        self._now_ms = now_ms

    async def accept(self, event: ExternalEvent) -> AcceptEventResponse:
        """Resolve an event and start what it asks for. The same event again answers with the first resolution."""
        check(event, self._workspace)
        key = f"{event.workspace}/resolution/{event_key(event)}"
        known = await self._known(key, event)
        if known is not None:
            return known
        with span("accept event", kind="consumer", parent=event.traceparent) as accepting:
            await self._resources.refresh()
            resolution = resolve(event, await self._resources.intents(event.workspace))
            resolution.time_ms = self._now_ms()
            resolution.correlations.extend(await self._awaited_by(event, resolution))
            start = None
            if resolution.outcome == OUTCOME_INTENT:
                try:
                    start = await self._begin(event, resolution, accepting.traceparent)
                except TerminalError as error:
                    resolution.outcome, resolution.question = OUTCOME_QUESTION, error.message
                    resolution.intent = resolution.run_id = ""
            (result,) = await self._store.commit([_write(key, event, resolution)])
            if not isinstance(result, Committed):  # it came twice at once
                known = await self._known(key, event)
                if known is not None:
                    return known
            if start is not None:
                await self._start(start)
            if resolution.correlations:
                self._accepted()
        return AcceptEventResponse(event_id=event.id, resolution=resolution)

    async def _awaited_by(self, event: ExternalEvent, resolution: Resolution) -> list[str]:
        expressions = await self._resources.correlations(event.workspace, event.type)
        return correlations_of(event.workspace, resolution, expressions)

    async def _known(self, key: str, event: ExternalEvent) -> AcceptEventResponse | None:
        """The answer to an event that came before."""
        known = await self._store.read(key)
        if known is None:
            return None
        resolution = Resolution.FromString(known.head)
        if not _same(resolution.event_data, event.data):
            raise TerminalError(
                "REQUEST_ID_REUSED",
                f"Event {event.id!r} of {event.source!r} came before with other data.",
                field="id",
            )
        run = resolution.run_id
        if run and await stored_run(self._store, event.workspace, run) is None:
            await self._start(await self._begin(event, resolution, event.traceparent))
        return AcceptEventResponse(event_id=event.id, duplicate=True, resolution=resolution)

    async def _begin(self, event: ExternalEvent, resolution: Resolution, traceparent: str) -> StartRunRequest:
        """The run that a resolution asks for. Raises TerminalError when it can't be started so."""
        intents = await self._resources.intents(event.workspace)
        intent = next((item for item in intents if item.name == resolution.intent), None)
        if intent is None:
            raise TerminalError(
                "NOT_FOUND", f"There is no intent {resolution.intent!r} any more.", field="intent"
            )
        meant = await self._resources.workflow(event.workspace, intent.workflow)
        inputs = meant.check_input(decode(resolution.parameters))
        trigger, request = f"intent:{intent.name}", f"{event.source}:{event.id}"
        resolution.run_id = run_id(event.workspace, trigger, request)
        return StartRunRequest(
            workspace=event.workspace,
            request_id=request,
            workflow=intent.workflow,
            input=resolution.parameters,
            mode=Mode.MODE_EXECUTE,
            actor=f"event:{event.source}",
            trigger=trigger,
            resolution_id=resolution.id,
            traceparent=traceparent,
            concurrency=_queueing(intent.concurrency, inputs),
        )

    async def answer(self, data: bytes) -> bytes:
        """The request-and-reply door: an AcceptEventRequest, answered after the commit."""
        try:
            request = AcceptEventRequest.FromString(data)
        except DecodeError:
            raise TerminalError("UNDECODABLE", "This is not an aios.event.v1.AcceptEventRequest.") from None
        return (await self.accept(request.event)).SerializeToString()


def _write(key: str, event: ExternalEvent, resolution: Resolution) -> Write:
    index = {"resolutions": event.workspace}
    index |= {heard_as(correlation): event.workspace for correlation in resolution.correlations}
    if resolution.correlations:
        index[UNHEARD] = event.workspace
    if resolution.outcome == OUTCOME_QUESTION:
        index["questions"] = event.workspace
    return Write(key=key, expect=0, head=resolution.SerializeToString(), index=index)


def _queueing(said: workflow.Queueing | None, inputs: Value) -> Queueing | None:
    if said is None:
        return None
    return Queueing(policy=said.policy, key=key_of(said, inputs), limit=said.limit, waiting=said.waiting)


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
