"""How the memory service is put together."""

from collections.abc import Sequence

from aios_core.errors import TerminalError
from aios_memory import settings
from aios_memory.artifacts import Artifacts
from aios_memory.blobs import Blobs
from aios_memory.cache import Cache
from aios_memory.corrections import Corrections
from aios_memory.episodes import Episodes
from aios_memory.kept_blobs import InStore, KeptBlobs, OnDisk
from aios_memory.questions import Questions
from aios_memory.steps import Steps
from aios_memory.store import Records
from aios_memory.writing import Writing
from aios_runtime.bus import subjects
from aios_runtime.bus.subscribers import EventSubscriber
from aios_runtime.lanes import LaneWorker
from aios_runtime.service.port import Context, Health
from aios_runtime.store.port import Store

SERVICE = "memory"
READS = "1"  # version of how what is read is answered
GATHER_S = 0.02  # episodes are for people: nobody misses them sooner
_DAY_MS = 24 * 3600 * 1000


def create(context: Context) -> "MemoryService":
    """The service; it opens nothing before `start`. Raises INVALID_ARGUMENT for a wrong option."""
    return MemoryService(context, settings.parse(context.options))


class MemoryService:
    """Memory of one workspace: steps of its lane, questions, and the episode log."""

    def __init__(self, context: Context, options: settings.Settings) -> None:
        self._context = context
        self._options = options
        self._store: Store | None = None
        self._lane: LaneWorker | None = None
        self._removed = 0

    async def start(self) -> None:
        """Open the store, clean up after earlier processes, then serve. Raises what the store and the disk raise."""
        context, options = self._context, self._options
        if context.service != SERVICE:
            raise TerminalError("INTERNAL", f"Memory was started as {context.service}.")
        store = self._store = await context.open_store(SERVICE)
        blobs: KeptBlobs = OnDisk(Blobs(context.data_dir / "artifacts"))
        if store.shared:
            blobs = InStore(store, context.workspace, context.now_ms)
        artifacts = Artifacts(store, blobs, context.workspace, context.now_ms)
        self._removed = await artifacts.start()
        records = Records(store, context.workspace)
        episodes = Episodes(store, context.workspace)
        if options.rebuild_episodes:
            await episodes.forget()
        cache = Cache(
            store,
            context.workspace,
            context.now_ms,
            max_entries=options.cache_entries,
            max_bytes=options.cache_bytes,
            max_age_ms=options.cache_age_days * _DAY_MS,
        )
        await cache.start()
        questions = Questions(context.workspace, records, artifacts, episodes, cache)
        for name, answer in questions.answers().items():
            await context.bus.answer(
                subjects.query(SERVICE, name, context.workspace),
                answer,
                queue=subjects.consumer(SERVICE, name),
            )
        writing = Writing(store, records)
        steps = Steps(context.workspace, records, writing, artifacts, context.now_ms)
        for name, answer in (
            ("check_undo", steps.check_undo),
            ("check_input", steps.check_input),
            ("preview_step", steps.preview),
        ):
            await context.bus.answer(
                subjects.query(SERVICE, name, context.workspace),
                answer,
                queue=subjects.consumer(SERVICE, name),
            )
        self._lane = LaneWorker(
            context.bus,
            service=SERVICE,
            workspace=context.workspace,
            lane=subjects.LANE_MEMORY,
            perform=steps.perform,
            slots=options.slots,
            batch=options.batch,
            worker=context.instance,
            version_of=lambda task: READS,
        )
        await self._lane.start()
        await self._follow(episodes, Corrections(writing, context.now_ms))

    async def _follow(self, episodes: Episodes, corrections: Corrections) -> None:
        """Hear of what happens in runs: tell it, and learn from it."""

        async def tell(partition: int, first_position: int, events: Sequence[bytes]) -> None:
            await corrections.learn(events)  # before the position says that they were told
            await episodes.append(partition, first_position, events)

        await EventSubscriber(
            self._context.bus,
            self._context.workspace,
            consumer=subjects.consumer(SERVICE, "run_events"),
            load_position=episodes.load_position,
            handle=tell,
            gather_s=GATHER_S,
        ).start()

    async def stop(self) -> None:
        """Take no more work, let what runs finish, release the store. The bus was closed before."""
        if self._lane is not None:
            await self._lane.stop()
        if self._store is not None:
            await self._store.close()

    def health(self) -> Health:
        """Ready once it serves."""
        if self._lane is None:
            return Health(False, "Memory is starting.")
        return Health(
            True, facts={"tasks at work": str(self._lane.working), "cleaned up files": str(self._removed)}
        )
