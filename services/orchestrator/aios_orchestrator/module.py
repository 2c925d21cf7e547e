"""How the orchestrator is put together."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final

from pydantic import BaseModel

from aios.event.v1.event_pb2 import ExternalEvent
from aios.resource.v1.resource_pb2 import ApplyResourcesRequest
from aios_core.errors import RetryableError, TerminalError
from aios_orchestrator.accounts import AccountBook
from aios_orchestrator.announcer import Announcer
from aios_orchestrator.commands import Commands
from aios_orchestrator.engine import Engine
from aios_orchestrator.funding import Funding
from aios_orchestrator.handlers import Handlers
from aios_orchestrator.intake import Intake
from aios_orchestrator.kept_answers import KeptAnswers
from aios_orchestrator.limits import Limits
from aios_orchestrator.live_runs import LiveRuns
from aios_orchestrator.mailbox import Mailbox
from aios_orchestrator.model import Run
from aios_orchestrator.ownership import Ownership, SharedOwnership, Taken
from aios_orchestrator.publisher import Publisher
from aios_orchestrator.queries import QUEUE, Queries
from aios_orchestrator.repository import Repository
from aios_orchestrator.resources import ResourceBook
from aios_orchestrator.routing import Router
from aios_orchestrator.schedules import Schedules
from aios_orchestrator.takeover import Takeover, redispatch
from aios_orchestrator.timers import Timers
from aios_orchestrator.turns import Turns
from aios_orchestrator.uses import used_first
from aios_orchestrator.workflow import Workflow
from aios_runtime.bus import subjects
from aios_runtime.service.port import Context, Health, Service
from aios_runtime.store.port import Store

SERVICE: Final = "orchestrator"
PLAYBOOKS: Final = Path(__file__).parent / "playbooks"
APPLY_TRIES: Final = 5  # when another replica applies the same documents at the same time
MAX_RESOURCE_FILES: Final = 1000


class Options(BaseModel):
    """`resources` is a folder of YAML documents that are applied at every start."""

    resources: Path | None = None


class Orchestrator:
    """The service."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._options = Options.model_validate(dict(context.options))
        self._store: Store | None = None
        self._engine: Engine | None = None
        self._timers: Timers | None = None
        self._takeover: Takeover | None = None
        self._accounts: AccountBook | None = None
        self._live: LiveRuns | None = None
        self._mailbox: Mailbox | None = None
        self._turns: Turns | None = None
        self._funding: Funding | None = None
        self._ownership: Ownership | None = None
        self._publisher: Publisher | None = None
        self._announcer: Announcer | None = None
        self._clock: asyncio.Task[None] | None = None

    async def start(self) -> None:
        context = self._context
        store = self._store = await context.open_store(SERVICE)
        resources = ResourceBook(store, context.workspace, context.now_ms)
        await self._apply(resources)
        repository = Repository(store)
        answers = KeptAnswers(store, context.workspace)
        publisher = self._publisher = Publisher(context.bus, context.workspace, answers, context.now_ms)
        announcer = self._announcer = Announcer(context.bus, context.workspace)
        accounts = self._accounts = AccountBook(repository, resources, context.workspace, context.now_ms)
        engine = self._engine = Engine(repository, resources, publisher, announcer, accounts, context.now_ms)
        ownership = self._ownership = self._share(store)
        engine.decider.owns = accounts.owns = publisher.owns = ownership.owns_run
        commands = Commands(engine, resources)
        router = Router(context.bus, ownership, commands, repository, context.workspace)
        schedules = commands.schedules = Schedules(
            store, resources, ownership, router.start, router.cancel, context.workspace, context.now_ms
        )

        limits = _limiting(resources, ownership, context.workspace)
        router.queues = publisher.queues
        publisher.fetch = _fetching(repository, resources, context.workspace)
        publisher.delivery.limits = await limits()
        turns = self._turns = Turns(store, router.admit, ownership, context.workspace)
        funding = self._funding = Funding(
            repository, accounts, resources, router.fund, ownership, context.workspace, context.now_ms
        )
        timers = self._timers = Timers(
            store, engine, publisher, ownership, schedules, turns, funding, limits, context.workspace, context.now_ms
        )  # fmt: skip
        engine.turns = turns.changed
        engine.due = resources.changed = timers.wake
        publisher.room_at = timers.look_at
        await accounts.start()
        engine.start()
        mailbox = self._mailbox = Mailbox(store, router.hear, context.workspace)
        engine.waiting = mailbox.waits
        takeover = self._takeover = Takeover(
            repository, resources, engine, publisher, announcer, ownership, mailbox, context.workspace
        )
        await router.serve()
        context.bus.on_restart(self._restarted)  # before anything is handed out that a wiped bus can lose
        await self._own(ownership, takeover, schedules, turns, funding, timers, publisher)
        live = self._live = LiveRuns(repository, context.workspace, context.now_ms)
        await Queries(
            repository, resources, ownership, schedules, router.show_queues, accounts, live, context.now_ms
        ).serve(context.bus, context.workspace)
        await self._serve(Handlers(context.bus, router))
        await self._serve_intake(
            Intake(store, resources, router.start, context.workspace, context.now_ms, mailbox.accepted)
        )
        await announcer.announce_heads(store)
        timers.start()
        takeover.start()

    def _share(self, store: Store) -> Ownership:
        context = self._context
        if not store.shared:
            return Ownership()
        return SharedOwnership(
            store, context.bus, context.workspace, context.mint("replica"), context.instance
        )

    async def _own(
        self,
        ownership: Ownership,
        takeover: Takeover,
        schedules: Schedules,
        turns: Turns,
        funding: Funding,
        timers: Timers,
        publisher: Publisher,
    ) -> None:
        async def taken(partitions: Taken) -> None:
            await takeover.taken(partitions)
            schedules.taken()
            turns.taken()
            funding.taken()
            timers.wake(0)

        def lost(partitions: frozenset[int]) -> None:
            takeover.lost(partitions)
            timers.wake(0)

        ownership.taken, ownership.lost = taken, lost
        ownership.behind = publisher.behind
        await ownership.start()

    async def _apply(self, resources: ResourceBook) -> None:
        """The playbooks that ship, then the person's own documents."""
        files = sorted(PLAYBOOKS.glob("*.yaml"))
        if self._options.resources is not None:
            if not self._options.resources.is_dir():
                raise TerminalError(
                    "NOT_FOUND", f"--resources: there is no folder {self._options.resources}."
                )
            own = sorted(self._options.resources.glob("*.y*ml"))
            if len(own) > MAX_RESOURCE_FILES:
                raise TerminalError(
                    "TOO_LARGE",
                    f"--resources: {self._options.resources} has {len(own):,} documents; at most"
                    f" {MAX_RESOURCE_FILES:,} are applied. Put several into one file.",
                )
            files += own
        for name, text in used_first([(file.name, file.read_bytes()) for file in files]):
            request = ApplyResourcesRequest(
                workspace=self._context.workspace, yaml=text, file=name, actor="service:orchestrator"
            )
            for tries in range(1, APPLY_TRIES + 1):
                try:
                    await resources.apply(request)
                    break
                except RetryableError:
                    if tries == APPLY_TRIES:
                        raise

    async def _serve(self, handlers: Handlers) -> None:
        bus = self._context.bus
        await bus.consume(
            subjects.consumer(SERVICE, "report_outcomes"), handlers.outcomes, batch=256, slots=2048
        )
        await bus.consume(subjects.consumer(SERVICE, "commands"), handlers.commands, batch=256, slots=1024)

    async def _serve_intake(self, intake: Intake) -> None:
        from aios_runtime.bus.subscribers import IntakeSubscriber

        async def answer(data: bytes, headers: Mapping[str, str]) -> bytes:
            return await intake.answer(data)

        async def handle(event: ExternalEvent) -> None:
            await intake.accept(event)

        bus, workspace = self._context.bus, self._context.workspace
        await bus.answer(subjects.accept(workspace), answer, queue=QUEUE)
        self._intake = IntakeSubscriber(bus, workspace, handle)
        await self._intake.start()

    async def _restarted(self, wiped: bool) -> None:
        """The bus is back. If it lost what it held, hand out again all that was on it."""
        assert self._publisher is not None
        assert self._engine is not None
        assert self._ownership is not None
        if wiped:
            self._ownership.bus_wiped()
            keys = [key for key in self._publisher.delivery.all_out() if self._ownership.owns_run(key.run_id)]
            await self._engine.submit(redispatch(self._context.workspace, keys, "the message bus lost it"))

    async def stop(self) -> None:
        if self._takeover is not None:
            await self._takeover.stop()
        if self._accounts is not None:
            await self._accounts.stop()
        if self._live is not None:
            await self._live.stop()
        if self._timers is not None:
            await self._timers.stop()
        if self._turns is not None:
            await self._turns.stop()
        if self._funding is not None:
            await self._funding.stop()
        if self._mailbox is not None:
            await self._mailbox.stop()
        if self._engine is not None:
            await self._engine.stop()
        if self._ownership is not None:
            await self._ownership.stop()
        if self._announcer is not None:
            await self._announcer.stop()
        if self._store is not None:
            await self._store.close()

    def health(self) -> Health:
        if self._engine is None or self._publisher is None:
            return Health(False, "starting")
        lanes = {
            lane: f"{out} out, {waiting} waiting"
            for lane, (out, waiting) in self._publisher.delivery.counts().items()
        }
        return Health(True, facts={**self._ownership.facts(), **lanes} if self._ownership else lanes)


def _limiting(
    resources: ResourceBook, ownership: Ownership, workspace: str
) -> Callable[[], Awaitable[Limits]]:
    """Reads the limits that hold for this replica."""

    async def limits() -> Limits:
        return Limits(await resources.limits(workspace), ownership.share)

    return limits


def _fetching(
    repository: Repository, resources: ResourceBook, workspace: str
) -> Callable[[str], Awaitable[tuple[Run, Workflow] | None]]:
    """Reads a run with the version of its workflow that it follows."""

    async def fetch(run_id: str) -> tuple[Run, Workflow] | None:
        stored = await repository.load(workspace, run_id)
        if stored is None:
            return None
        run = stored.run
        return run, await resources.followed(run)

    return fetch


def create(context: Context) -> Service:
    """The orchestrator, not yet started."""
    return Orchestrator(context)
