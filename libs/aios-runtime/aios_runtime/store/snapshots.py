"""One moment of several stores, read from outside while their services write them.

For a moment all writers are held, and while none of them can commit, a reader is opened on each file. So what these
readers see is what a power failure at that moment would have left, of all stores together. Then the writers go on,
and the readers' view is copied at leisure.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import apsw

from aios_core.errors import RetryableError
from aios_runtime.store import migrations
from aios_runtime.store.failures import as_error

HOLD_MS: Final = (
    2000  # that one writer is waited for; a service waits 10 s for its own store before it gives up
)
COPIED_AT_ONCE: Final = 256  # pages, between two reports of progress


@contextmanager
def moment(paths: Mapping[str, Path]) -> Iterator[dict[str, apsw.Connection]]:
    """Readers of these stores, by name, that all see the same moment until the end of the context.

    Raises UNAVAILABLE (retryable) when a store can't be held within `HOLD_MS`, NEWER_STORE, CORRUPT_STORE, DATA_DIR.
    """
    with ExitStack() as readers:
        found: dict[str, apsw.Connection] = {}
        with ExitStack() as held:
            for path in paths.values():
                with _told(path):
                    writer = _open(path, held)
                    migrations.check_version(writer, str(path))
                    writer.execute("BEGIN IMMEDIATE")
                held.callback(writer.execute, "ROLLBACK")
            for name, path in paths.items():
                with _told(path):
                    found[name] = reader = _open(path, readers)
                    reader.execute("BEGIN")
                    reader.execute("SELECT count(*) FROM sqlite_schema").fetchall()
        yield found


def copy(reader: apsw.Connection, target: Path, report: Callable[[int, int], None]) -> None:
    """What a reader of a moment sees, as one whole file. `report` is told the pages that are done, and all."""
    with _told(target), ExitStack() as stack:
        target.unlink(missing_ok=True)
        written = apsw.Connection(str(target))
        stack.callback(written.close, True)
        written.pragma("synchronous", "off")  # whoever keeps the copy flushes it
        with written.backup("main", reader, "main") as copying:
            while not copying.done:
                copying.step(COPIED_AT_ONCE)
                report(copying.page_count - copying.remaining, copying.page_count)
        written.pragma("journal_mode", "delete")  # one file alone; a service that opens it chooses its own


def _open(path: Path, stack: ExitStack) -> apsw.Connection:
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    stack.callback(connection.close, True)
    connection.set_busy_timeout(HOLD_MS)
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)  # the log is its service's own
    connection.wal_autocheckpoint(0)
    return connection


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except apsw.BusyError:
        raise RetryableError(
            "UNAVAILABLE",
            f"The store {path} has been written without a pause for {HOLD_MS / 1000:g} s; try again.",
        ) from None
    except (apsw.Error, OSError) as error:
        raise as_error(error, str(path)) from error
