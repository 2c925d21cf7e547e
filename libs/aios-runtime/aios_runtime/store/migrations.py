"""Forward migrations of the embedded store: each is one transaction that also raises the version of the file.

A file below the last version is brought up step by step; a process that dies on the way leaves the last whole step,
and the next start goes on from there. A file above it belongs to a later release and is left alone.
"""

from collections.abc import Callable, Sequence
from typing import Final

import apsw

from aios_core.errors import TerminalError
from aios_runtime.store import schema

Migration = Callable[[apsw.Connection], None]


def _create(connection: apsw.Connection) -> None:
    connection.pragma("application_id", schema.APPLICATION_ID)
    for statement in schema.VERSION_1:
        connection.execute(statement)


# The n-th brings a file from version n to n + 1. Never edited once released: a recorded file of each version is tested.
MIGRATIONS: Final[tuple[Migration, ...]] = (_create,)


def check_version(connection: apsw.Connection, path: str, known: int = len(MIGRATIONS)) -> int:
    """The version of a file; raises NEWER_STORE, or CORRUPT_STORE for a database that is no store of AIOS."""
    found = int(connection.pragma("user_version"))
    application = int(connection.pragma("application_id"))
    if application != schema.APPLICATION_ID:
        if (found, application, connection.execute("SELECT count(*) FROM sqlite_schema").get) != (0, 0, 0):
            raise TerminalError(
                "CORRUPT_STORE", f"The file {path} is a database of another program.", path=path
            )
        return 0
    if found > known:
        raise TerminalError(
            "NEWER_STORE",
            f"The store {path} has version {found}, this release knows versions up to {known}; "
            "use the release that wrote it or a later one.",
            path=path,
            found=str(found),
            known=str(known),
        )
    return found


def migrate(connection: apsw.Connection, path: str, migrations: Sequence[Migration] = MIGRATIONS) -> int:
    """Bring a file to the last version, one transaction a step; returns how many steps were made."""
    found = check_version(connection, path, len(migrations))
    for version in range(found, len(migrations)):
        connection.execute("BEGIN IMMEDIATE")
        try:
            migrations[version](connection)
            connection.pragma("user_version", version + 1)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
    return len(migrations) - found
