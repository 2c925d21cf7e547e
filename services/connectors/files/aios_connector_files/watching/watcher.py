"""The shell around `settling`: notices, looks, notes the event durably, and hands it over until it is accepted."""

import asyncio
import errno
import logging
import time
from collections.abc import Callable
from typing import Final

from aios.event.v1.event_pb2 import AcceptEventRequest, AcceptEventResponse, ExternalEvent
from aios_connector_files.paths import REPORT, is_transient
from aios_connector_files.root import Root
from aios_connector_files.watching.folders import Folders, Owed
from aios_connector_files.watching.inotify import Inotify, Noticed
from aios_connector_files.watching.scanning import Month, Seen, look_into, scan, signature
from aios_connector_files.watching.settling import Settling
from aios_core.errors import AiosError, RetryableError
from aios_runtime.bus import subjects
from aios_runtime.bus.port import Bus
from aios_runtime.crashpoints import crash, point
from aios_runtime.telemetry.tracing import span

NOTED: Final = point("files.event_noted", "a settled folder's event is durable here, and nobody was told")
ACCEPTED: Final = point("files.event_accepted", "the event was accepted, and that is not noted here")

WITHOUT_INOTIFY_SECONDS: Final = 2.0  # between two looks where the system reports no changes
STRUCTURE_SECONDS: Final = 0.1  # new folders that come together are looked at together
COMPARED_AT_ONCE: Final = 250  # months, before others have their turn
ACCEPT_SECONDS: Final = 10.0
BACKOFF_SECONDS: Final = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)  # before the n-th try again; then the last

log = logging.getLogger("aios.connector.files")


class Watcher:
    """Watches one root. `start` returns once what was there before is known, so that a later change is an event."""

    def __init__(
        self,
        root: Root,
        folders: Folders,
        bus: Bus,
        workspace: str,
        now_ms: Callable[[], int],
        *,
        settle_seconds: float,
        rescan_seconds: float,
        report_existing: bool,
    ) -> None:
        self._root, self._folders, self._bus, self._workspace = root, folders, bus, workspace
        self._now_ms = now_ms
        self._rescan_seconds, self._report_existing = rescan_seconds, report_existing
        self._settling = Settling(round(settle_seconds * 1000))
        self._inotify: Inotify | None = None
        self._why_not = ""
        self._wake, self._owing = asyncio.Event(), asyncio.Event()
        self._look_at = 0.0  # monotonic seconds of the next look at everything
        self._tasks: list[asyncio.Task[None]] = []
        self._seen = Seen({}, (), 0)
        self._delivery = ""

    async def start(self) -> None:
        """Raises what the store raises."""
        try:
            self._inotify = Inotify()
            asyncio.get_running_loop().add_reader(self._inotify.descriptor, self._readable)
        except OSError as error:
            self._without(error)
        seen = await self._look()
        unfilled = await self._first_look(seen)
        await self._compare(seen)
        self._tasks = [
            asyncio.create_task(self._watch(), name="watch folders"),
            asyncio.create_task(self._deliver(), name="hand over folder events"),
            asyncio.create_task(self._fill(unfilled), name="read what was there before"),
        ]

    async def stop(self) -> None:
        """Stop watching. What is owed is handed over after the next start."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._inotify is not None:
            asyncio.get_running_loop().remove_reader(self._inotify.descriptor)
            self._inotify.close()
            self._inotify = None

    def facts(self) -> dict[str, str]:
        """For `aios doctor`."""
        how = "the system reports changes" if not self._why_not else f"looks every 2 s: {self._why_not}"
        facts = {
            "files root": str(self._root.path) + ("" if self._root.path.is_dir() else " (not there)"),
            "watching": f"months: {len(self._seen.months)}, clients: {len(self._seen.clients)}; {how}",
            "not yet at rest": str(len(self._settling)),
        }
        if self._seen.left_out:
            facts["folders left out"] = f"{self._seen.left_out} (hidden, not a usable name, or too many)"
        if self._delivery:
            facts["events not yet accepted"] = self._delivery
        return facts

    async def _first_look(self, seen: Seen) -> list[Month]:
        """What is there at the very first start is known, not news. Returns the months whose content is not known."""
        if not await self._folders.known_root(self._root.path):
            there = {} if self._report_existing else seen.months
            await self._folders.remember_root(self._root.path, there)
            if there:
                log.info("%d months were there at the first start; only later changes are events", len(there))
        known = [(month, await self._folders.known(month)) for month in seen.months]
        return [month for month, state in known if state is not None and state.fingerprint is None]

    async def _fill(self, months: list[Month]) -> None:
        """Read what was there before, so that a change of times alone is not taken for news."""
        for month in months:
            await self._folders.fill(month, await asyncio.to_thread(look_into, self._root, month))

    def _readable(self) -> None:
        assert self._inotify is not None
        for noticed in self._inotify.read():
            self._notice(noticed)
        self._wake.set()

    def _notice(self, noticed: Noticed) -> None:
        if noticed.lost:
            self._look_at = 0.0
        elif len(noticed.place) == 2:
            if not is_transient(noticed.name) and not (noticed.folder and noticed.name == REPORT):
                self._settling.touched("/".join(noticed.place), _monotonic_ms())
        elif noticed.folder:
            self._look_at = min(self._look_at, time.monotonic() + STRUCTURE_SECONDS)

    async def _watch(self) -> None:
        while True:
            if time.monotonic() >= self._look_at:
                await self._compare(await self._look())
            await self._settle()
            due = self._settling.next_due_ms()
            wait = min(self._look_at, due / 1000 if due is not None else self._look_at) - time.monotonic()
            self._wake.clear()
            try:
                async with asyncio.timeout(max(wait, 0.001)):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _look(self) -> Seen:
        """Look at everything, and watch every folder that there is before looking into it."""
        self._look_at = time.monotonic() + self._interval()
        seen = await asyncio.to_thread(scan, self._root)
        if self._watch_folders(seen):
            seen = await asyncio.to_thread(scan, self._root)  # what came before its folder was watched
            self._watch_folders(seen)
        self._seen = seen
        self._look_at = min(self._look_at, time.monotonic() + self._interval())
        return seen

    def _interval(self) -> float:
        """Seconds until the next look at everything, should nothing be noticed before."""
        watches_root = self._inotify is not None and self._inotify.watches(())
        return self._rescan_seconds if watches_root and not self._why_not else WITHOUT_INOTIFY_SECONDS

    def _watch_folders(self, seen: Seen) -> bool:
        """Watch what is not watched yet; whether there was any."""
        if self._inotify is None:
            return False
        places: list[tuple[str, ...]] = [(), *((client,) for client in seen.clients), *seen.months]
        new = False
        for place in places:
            try:
                new |= self._inotify.watch(place, self._root.path.joinpath(*place))
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.ENOMEM):
                    self._without(error)
                    break
        return new

    def _without(self, error: OSError) -> None:
        if not self._why_not:
            self._why_not = (error.strerror or str(error)).lower()
            log.warning("folders are looked at every %g s, since %s", WITHOUT_INOTIFY_SECONDS, self._why_not)

    async def _compare(self, seen: Seen) -> None:
        for number, (month, state) in enumerate(seen.months.items(), 1):
            known = await self._folders.known(month)
            if known is None or known.signature != state:
                self._settling.seen("/".join(month), state, _monotonic_ms())
            if number % COMPARED_AT_ONCE == 0:
                await asyncio.sleep(0)

    async def _settle(self) -> None:
        for folder in self._settling.due(_monotonic_ms()):
            client, _, name = folder.partition("/")
            month = (client, name)
            state = await asyncio.to_thread(signature, self._root, month)
            if self._settling.settled(folder, state, _monotonic_ms()):
                await self._at_rest(folder, month, state)

    async def _at_rest(self, folder: str, month: Month, state: str) -> None:
        known = await self._folders.known(month)
        if known is not None and known.signature == state and known.fingerprint is not None:
            return
        content = await asyncio.to_thread(look_into, self._root, month)
        if content.signature != state or self._settling.pending(folder):  # it changed while it was read
            self._settling.seen(folder, content.signature, _monotonic_ms())
            return
        try:
            with span("settle folder", kind="producer") as settling:
                event = await self._folders.settled(month, content, self._now_ms(), settling.traceparent)
        except AiosError as error:
            log.warning("%s came to rest, which can't be noted now: %s", folder, error)
            self._settling.seen(folder, state, _monotonic_ms())
            return
        if event is not None:
            crash(NOTED)
            log.info("%s came to rest with %d files", folder, len(content.names))
            self._owing.set()

    async def _deliver(self) -> None:
        failures = 0
        while True:
            self._owing.clear()
            owed = await self._folders.owed()
            failed = await self._hand_over(owed)
            self._delivery = f"{len(owed)}: {failed}" if failed else ""
            if failed:
                failures += 1
                await asyncio.sleep(BACKOFF_SECONDS[min(failures, len(BACKOFF_SECONDS)) - 1])
            elif owed:
                failures = 0
            else:
                await self._owing.wait()

    async def _hand_over(self, owed: list[Owed]) -> str:
        """Hand events over, each until it is accepted or refused for good; returns why the first failed."""
        for item in owed:
            try:
                await self._accept(item.event)
                crash(ACCEPTED)
                await self._folders.accepted(item)
            except RetryableError as error:
                return str(error)
            except AiosError as error:
                log.error("the event of %s was refused: %s", item.event.subject, error)
                await self._folders.accepted(item)
        return ""

    async def _accept(self, event: ExternalEvent) -> AcceptEventResponse:
        request = AcceptEventRequest(event=event).SerializeToString()
        headers = {subjects.HEADER_TRACE: event.traceparent}
        answer = await self._bus.ask(subjects.accept(self._workspace), request, ACCEPT_SECONDS, headers)
        return AcceptEventResponse.FromString(answer)


def _monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000
