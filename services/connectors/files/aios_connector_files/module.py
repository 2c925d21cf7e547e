"""How the files connector is put together."""

from typing import Final

from aios_connector_files import settings
from aios_connector_files.blobs import Blobs
from aios_connector_files.connector import NAME, files_connector
from aios_connector_files.root import Root
from aios_connector_files.watching.folders import Folders
from aios_connector_files.watching.watcher import Watcher
from aios_core.errors import TerminalError
from aios_runtime.service.port import Context, Health
from aios_runtime.store.port import Store
from aios_sdk.host.flight import Rules
from aios_sdk.host.lane import ConnectorLane

SERVICE: Final = "connector-files"


def create(context: Context) -> "FilesConnectorService":
    """The service; it opens nothing before `start`. Raises INVALID_ARGUMENT for a wrong option."""
    return FilesConnectorService(context, settings.parse(context.options))


class FilesConnectorService:
    """The actions of `files.*` on their lane, and the events of folders that come to rest."""

    def __init__(self, context: Context, options: settings.Settings) -> None:
        self._context, self._options = context, options
        self._store: Store | None = None
        self._lane: ConnectorLane | None = None
        self._watcher: Watcher | None = None

    async def start(self) -> None:
        """Open the ledger, settle what was interrupted, then serve and watch. Raises what the store and disk raise."""
        context, options = self._context, self._options
        if context.service != SERVICE:
            raise TerminalError("INTERNAL", f"The files connector was started as {context.service}.")
        root = Root(options.root.absolute())
        store = self._store = await context.open_store(SERVICE)
        shared = (store, context.workspace) if store.shared else None
        connector = files_connector(root, Blobs(context.data_dir / SERVICE, shared))
        rules = Rules(needs_approval=options.approval == "required")
        self._lane = ConnectorLane(context, connector, store, slots=options.slots, rules=rules)
        if options.watch:
            self._watcher = Watcher(
                root,
                Folders(store, context.workspace),
                context.bus,
                context.workspace,
                context.now_ms,
                settle_seconds=options.settle_seconds,
                rescan_seconds=options.rescan_seconds,
                report_existing=options.initial == "all",
            )
            await self._watcher.start()
        await self._lane.start()

    async def stop(self) -> None:
        """Let what runs finish, stop watching, release the store."""
        if self._watcher is not None:
            await self._watcher.stop()
        if self._lane is not None:
            await self._lane.stop()
        if self._store is not None:
            await self._store.close()

    def health(self) -> Health:
        """Ready once it serves; a root that is not there is told, and found when it comes."""
        if self._lane is None:
            return Health(False, f"{NAME} is starting.")
        facts = dict(self._lane.facts())
        facts |= self._watcher.facts() if self._watcher else {"watching": "off"}
        return Health(True, facts=facts, restore=self._lane.restore())
