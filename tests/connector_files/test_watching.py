"""A month that comes to rest is one event, handed over until somebody accepts it: real folders, bus and store."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from aios.event.v1.event_pb2 import AcceptEventRequest, AcceptEventResponse, ExternalEvent
from aios_connector_files.listing import fingerprint
from aios_connector_files.root import Root
from aios_connector_files.watching import watcher as watching
from aios_connector_files.watching.folders import Folders
from aios_connector_files.watching.watcher import Watcher
from aios_core.errors import RetryableError, TerminalError
from aios_core.hashing import content_hash
from aios_core.minting import now_ms
from aios_runtime.bus import subjects
from aios_runtime.bus.connection import NatsBus
from aios_runtime.bus.endpoint import Credentials
from aios_runtime.store.sqlite import open_store
from tests.bus.serving import Server, until

SETTLE = 0.3  # seconds


class Intake:
    """The orchestrator's side: what was accepted, in order; the same event again is the same event."""

    def __init__(self) -> None:
        self.events: list[ExternalEvent] = []
        self.duplicates = 0
        self.fail: Callable[[], None] = lambda: None

    async def answer(self, data: bytes, headers: Mapping[str, str]) -> bytes:
        self.fail()
        event = AcceptEventRequest.FromString(data).event
        duplicate = any(known.id == event.id for known in self.events)
        self.duplicates += duplicate
        if not duplicate:
            self.events.append(event)
        return AcceptEventResponse(event_id=event.id, duplicate=duplicate).SerializeToString()

    def states(self) -> list[tuple[str, list[str]]]:
        return [(event.subject, json.loads(event.data)["files"]) for event in self.events]


class Office:
    """A root with a watcher that is started and stopped like the service."""

    def __init__(self, path: Path, bus: NatsBus, intake: Intake, credentials: Credentials) -> None:
        self.path, self.root, self.bus, self.intake = path, path / "root", bus, intake
        self.credentials = credentials
        self.root.mkdir()
        self.rescan, self.all = 60.0, False

    def put(self, month: str, name: str, text: str = "x") -> Path:
        file = self.root / month / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[Watcher]:
        store = await open_store(self.path / "files.db", service="connector-files", now_ms=now_ms)
        watcher = Watcher(
            Root(self.root),
            Folders(store, "main"),
            self.bus,
            "main",
            now_ms,
            settle_seconds=SETTLE,
            rescan_seconds=self.rescan,
            report_existing=self.all,
        )
        await watcher.start()
        try:
            yield watcher
        finally:
            await watcher.stop()
            await store.close()

    async def events(self, count: int) -> list[tuple[str, list[str]]]:
        await until(lambda: len(self.intake.events) >= count)
        return self.intake.states()

    async def quiet(self) -> list[tuple[str, list[str]]]:
        """What was accepted when there was time enough for more."""
        marker = f"marker-{len(self.intake.events)}/2000-01"
        self.put(marker, "x")
        await until(lambda: any(event.subject == marker for event in self.intake.events))
        return [state for state in self.intake.states() if not state[0].startswith("marker")]


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    async with AsyncExitStack() as stack:
        server = Server(tmp_path / "bus")
        server.endpoint = await server.start()
        stack.push_async_callback(server.stop)
        buses = {}
        for name in ("orchestrator", "connector-files"):
            buses[name] = await NatsBus.connect(server.endpoint.credentials(name), service=name)
            stack.push_async_callback(buses[name].close, 1.0)
        intake = Intake()
        await buses["orchestrator"].answer(
            subjects.accept("main"), intake.answer, queue="orchestrator__accept"
        )
        credentials = server.endpoint.credentials("connector-files")
        yield Office(tmp_path, buses["connector-files"], intake, credentials)


@pytest.mark.feature("A2")
async def test_a_new_month_is_one_event_with_what_it_holds(office: Office) -> None:
    async with office.watching():
        office.put("acme/2026-10", "timesheet.csv", "date\n")
        office.put("acme/2026-10", "invoice.csv", "number\n")
        assert await office.events(1) == [("acme/2026-10", ["invoice.csv", "timesheet.csv"])]
        await office.quiet()
        event = office.intake.events[0]
        assert (event.source, event.type, event.received_by) == (
            "files",
            "files.folder_settled",
            "connector-files",
        )
        data = json.loads(event.data)
        assert (data["client"], data["month"], data["file_count"]) == ("acme", "2026-10", 2)
        assert event.traceparent


async def test_it_waits_until_nothing_has_changed_for_the_time_of_rest(office: Office) -> None:
    async with office.watching():
        loop = asyncio.get_running_loop()
        for part in range(6):
            office.put("acme/2026-10", "timesheet.csv", "x" * part)
            last = loop.time()
            await asyncio.sleep(SETTLE / 4)
        final = fingerprint([("timesheet.csv", content_hash(b"xxxxx"))])
        await until(
            lambda: any(json.loads(event.data)["fingerprint"] == final for event in office.intake.events)
        )
        assert loop.time() - last >= SETTLE
        assert len(office.intake.events) < 6, "the states between are no events of their own"


async def test_a_later_change_is_a_new_event_and_so_is_a_state_that_comes_back(office: Office) -> None:
    async with office.watching():
        for number, text in enumerate(("one", "two", "one"), 1):
            office.put("acme/2026-10", "a.csv", text)
            await office.events(number)
        prints = [json.loads(event.data)["fingerprint"] for event in office.intake.events]
        assert prints[0] == prints[2] != prints[1]
        assert len({event.id for event in office.intake.events}) == 3


async def test_what_changes_no_content_is_no_event(office: Office) -> None:
    async with office.watching():
        file = office.put("acme/2026-10", "a.csv", "one")
        await office.events(1)
        os.utime(file, ns=(0, 0))
        file.write_text("one")
        office.put("acme/2026-10", ".~lock.a.csv#")
        office.put("acme/2026-10", "b.csv.part")
        assert await office.quiet() == [("acme/2026-10", ["a.csv"])]


@pytest.mark.feature("M1")
async def test_the_report_that_is_written_there_is_no_event(office: Office) -> None:
    async with office.watching():
        office.put("acme/2026-10", "a.csv")
        await office.events(1)
        office.put("acme/2026-10/report", "report.md", "ours")
        office.put("acme/2026-10/report", "report.md", "ours again")
        assert len(await office.quiet()) == 1


async def test_what_lies_elsewhere_is_no_event(office: Office) -> None:
    async with office.watching():
        office.put("acme", "notes.md")
        office.put("acme/2026-13", "a.csv")
        office.put("acme/drafts", "a.csv")
        office.put(".hidden/2026-10", "a.csv")
        (office.root / "linked").symlink_to(office.path)
        assert await office.quiet() == []


async def test_at_the_first_start_what_is_there_is_known_and_later_changes_are_events(office: Office) -> None:
    for month in ("2026-07", "2026-08", "2026-09"):
        office.put(f"acme/{month}", "a.csv")
    async with office.watching():
        assert await office.quiet() == []
        office.put("acme/2026-09", "b.csv")
        assert await office.quiet() == [("acme/2026-09", ["a.csv", "b.csv"])]
    async with office.watching():
        os.utime(office.root / "acme/2026-07/a.csv", ns=(0, 0))
        assert len(await office.quiet()) == 1, "a change of times alone is no news, of old months neither"


async def test_at_the_first_start_all_may_be_reported_where_that_is_wanted(office: Office) -> None:
    office.put("acme/2026-08", "a.csv")
    office.put("acme/2026-09", "a.csv")
    office.all = True
    async with office.watching():
        assert sorted(await office.events(2)) == [("acme/2026-08", ["a.csv"]), ("acme/2026-09", ["a.csv"])]


@pytest.mark.feature("B1")
async def test_what_changed_while_it_was_down_is_found_at_the_next_start(office: Office) -> None:
    async with office.watching():
        office.put("acme/2026-10", "a.csv")
        await office.events(1)
    office.put("acme/2026-10", "b.csv")
    office.put("new-client/2026-10", "a.csv")
    async with office.watching():
        later = (await office.events(3))[1:]
        assert sorted(later) == [("acme/2026-10", ["a.csv", "b.csv"]), ("new-client/2026-10", ["a.csv"])]
        assert len(await office.quiet()) == 3


@pytest.mark.feature("B1")
async def test_an_event_that_nobody_took_is_handed_over_after_the_next_start(office: Office) -> None:
    def away() -> None:
        raise RetryableError("UNAVAILABLE", "The orchestrator is starting.")

    office.intake.fail = away
    async with office.watching() as watcher:
        office.put("acme/2026-10", "a.csv")
        await until(lambda: "events not yet accepted" in watcher.facts())
    assert office.intake.events == []
    office.intake.fail = lambda: None
    async with office.watching():
        assert await office.events(1) == [("acme/2026-10", ["a.csv"])]
        assert len(await office.quiet()) == 1


async def generation_is(watcher: Watcher, count: int) -> bool:
    known = await watcher._folders.known(("acme", "2026-10"))
    return known is not None and known.generation == count


async def test_the_latest_state_is_what_is_owed(office: Office) -> None:
    def away() -> None:
        raise RetryableError("UNAVAILABLE", "The orchestrator is starting.")

    office.intake.fail = away
    async with office.watching() as watcher:
        for count, name in enumerate(("a.csv", "b.csv"), 1):
            office.put("acme/2026-10", name)
            await until(partial(generation_is, watcher, count))
        office.intake.fail = lambda: None
        assert await office.events(1) == [("acme/2026-10", ["a.csv", "b.csv"])]
        assert len(await office.quiet()) == 1


async def test_an_event_that_is_refused_for_good_is_not_sent_for_ever(office: Office) -> None:
    refusals: list[int] = []

    def refuse() -> None:
        refusals.append(1)
        raise TerminalError("INVALID_ARGUMENT", "No such workspace.")

    office.intake.fail = refuse
    async with office.watching():
        office.put("acme/2026-10", "a.csv")
        await until(lambda: bool(refusals))
        office.intake.fail = lambda: None
        assert await office.quiet() == []
    assert len(refusals) == 1


async def test_a_client_that_is_renamed_is_watched_under_both_names(office: Office) -> None:
    async with office.watching():
        office.put("acme/2026-10", "a.csv")
        await office.events(1)
        (office.root / "acme").rename(office.root / "acme-inc")
        assert (await office.events(2))[1] == ("acme-inc/2026-10", ["a.csv"])
        office.put("acme-inc/2026-10", "b.csv")
        assert (await office.events(3))[2] == ("acme-inc/2026-10", ["a.csv", "b.csv"])
        office.put("acme/2026-10", "c.csv")
        assert (await office.events(4))[3] == ("acme/2026-10", ["c.csv"])


async def test_a_month_that_is_emptied_and_filled_again_is_an_event(office: Office) -> None:
    async with office.watching() as watcher:
        file = office.put("acme/2026-10", "a.csv")
        await office.events(1)
        file.unlink()

        async def seen_empty() -> bool:
            known = await watcher._folders.known(("acme", "2026-10"))
            return known is not None and not known.signature

        await until(seen_empty)
        office.put("acme/2026-10", "a.csv")
        assert len(await office.events(2)) == 2


async def test_a_root_that_comes_later_is_found(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "WITHOUT_INOTIFY_SECONDS", 0.1)
    office.root.rmdir()
    async with office.watching() as watcher:
        assert "(not there)" in watcher.facts()["files root"]
        office.put("acme/2026-10", "a.csv")
        assert await office.events(1) == [("acme/2026-10", ["a.csv"])]


async def test_without_reports_of_the_system_it_looks_by_itself(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_inotify() -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(watching, "WITHOUT_INOTIFY_SECONDS", 0.1)
    monkeypatch.setattr(watching, "Inotify", no_inotify)
    async with office.watching() as watcher:
        assert "too many open files" in watcher.facts()["watching"]
        office.put("acme/2026-10", "a.csv")
        assert await office.events(1) == [("acme/2026-10", ["a.csv"])]
        office.put("acme/2026-10", "b.csv")
        assert len(await office.events(2)) == 2


async def test_links_and_pipes_in_a_month_neither_count_nor_hang(office: Office) -> None:
    async with office.watching():
        file = office.put("acme/2026-10", "a.csv")
        file.unlink()
        file.symlink_to("/nowhere")
        os.mkfifo(office.root / "acme/2026-10/pipe.csv")
        office.put("acme/2026-10", "b.csv")
        assert await office.events(1) == [("acme/2026-10", ["b.csv"])]


@pytest.mark.feature("B1")
@pytest.mark.parametrize(
    ("crash_at", "twice"), [("files.event_noted", False), ("files.event_accepted", True)]
)
async def test_killed_around_the_hand_over_it_is_still_one_event(
    office: Office, crash_at: str, twice: bool
) -> None:
    url, password = office.credentials.url, office.credentials.password
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).with_name("watching_child.py")),
        *(str(office.path), url, password),
        env={**os.environ, "AIOS_CRASH_AT": crash_at},
        stdout=asyncio.subprocess.PIPE,
    )
    assert child.stdout is not None
    assert await child.stdout.readline() == b"watching\n"
    office.put("acme/2026-10", "a.csv")
    assert await asyncio.wait_for(child.wait(), 30) == -9
    assert len(office.intake.events) == int(twice)
    async with office.watching():
        assert await office.events(1) == [("acme/2026-10", ["a.csv"])]
        await until(lambda: office.intake.duplicates == int(twice))
        assert len(await office.quiet()) == 1
