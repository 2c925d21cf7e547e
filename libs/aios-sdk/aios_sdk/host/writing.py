"""Putting entries into the ledger, where another worker may do so as well."""

import asyncio

from aios.effect.v1.effect_pb2 import LedgerEntry
from aios_core.errors import RetryableError
from aios_runtime.lanes import UnansweredError
from aios_sdk.host import core
from aios_sdk.host.ledger import Ledger


async def written(ledger: Ledger, entry: LedgerEntry, revision: int) -> int:
    """Put an entry in the place of a revision; returns its own. Raises UnansweredError when it may not stand: another
    worker, or this one when the task comes again, finds out."""
    try:
        return await ledger.write(entry, revision)
    except RetryableError as error:
        raise UnansweredError(error.message) from error


async def intended(ledger: Ledger, entry: LedgerEntry, revision: int, *, sole_owner: bool) -> int:
    """Put an INTENT, as `written`. Whoever hears so late that it stands that another worker may have dealt with it
    looks again before the call. Raises UnansweredError when one has."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    own = await written(ledger, entry, revision)
    while not sole_owner and (loop.time() - began) * 1000 > core.ANOTHERS_MS / 2:
        began = loop.time()
        try:
            stored = await ledger.read(entry.effect_key)
        except RetryableError as error:
            raise UnansweredError(error.message) from error
        if stored.revision != own:
            raise UnansweredError("another worker has dealt with it meanwhile")
    return own
