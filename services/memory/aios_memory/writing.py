"""How the changes of a step become durable, each exactly once, and how they are taken back.

Records are apart from each other under compare-and-set, so several changes are not one transaction. They are all
checked first and nothing is written while one is refused; what then loses a race is decided anew, and a step that is
tried again finds by its effect key what it did already and goes on with the rest.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Final

from aios_core.errors import AiosError, RetryableError, TerminalError
from aios_core.hashing import sha256
from aios_memory import core
from aios_memory.model import Change, Done, Name, Provenance, Undo, Version, Written
from aios_memory.store import Records, Use
from aios_runtime.store.port import MAX_BATCH_WRITES, Committed, Result, Store, Write

MAX_TRIES: Final = 8  # times that what lost its compare-and-set is decided anew
BUSY_SECONDS: Final = 0.1  # after that, before the step is tried again


@dataclass(frozen=True, slots=True)
class _Planned:
    """A change that is to be done, and what makes it durable."""

    done: Done
    writes: tuple[Write, ...]


_Plan = Done | _Planned | AiosError


class Writing:
    """Writes the records of one workspace."""

    def __init__(self, store: Store, records: Records) -> None:
        self._store = store
        self._records = records

    async def write(self, changes: Sequence[Change], provenance: Provenance, now_ms: int) -> Written:
        """Carry out a step's changes. Raises UNAVAILABLE after `MAX_TRIES` lost races."""

        async def plan() -> list[_Plan]:
            return [await self._plan(change, provenance, now_ms) for change in changes]

        return await self._carry_out(plan)

    async def undo(self, undos: Sequence[Undo], provenance: Provenance, now_ms: int) -> Written:
        """Take versions back. One that was changed since, or from which another run made something, is refused."""

        async def plan() -> list[_Plan]:
            return [await self._plan_undo(undo, provenance, now_ms) for undo in undos]

        return await self._carry_out(plan)

    async def check_undo(self, undos: Sequence[Undo], now_ms: int) -> AiosError | None:
        """Why these versions could not be taken back now; None if they could."""
        for undo in undos:
            planned = await self._plan_undo(undo, Provenance(), now_ms)
            if isinstance(planned, AiosError):
                return planned
        return None

    async def predict(self, changes: Sequence[Change], provenance: Provenance, now_ms: int) -> Written:
        """What `write` would do now."""
        return _settled([await self._plan(change, provenance, now_ms) for change in changes])

    async def _carry_out(self, make_plan: Callable[[], Awaitable[list[_Plan]]]) -> Written:
        for _ in range(MAX_TRIES):
            plan = await make_plan()
            planned = [item for item in plan if isinstance(item, _Planned)]
            if not planned or any(isinstance(item, AiosError) for item in plan):
                return _settled([item for item in plan if not isinstance(item, _Planned)])
            if await self._commit(planned):
                return _settled(plan)
        raise RetryableError("UNAVAILABLE", "Others are writing the same records.", retry_after=BUSY_SECONDS)

    async def _commit(self, planned: Sequence[_Planned]) -> bool:
        """Whether every record was written. That a way from a source is there already is no failure."""
        writes = [write for item in planned for write in item.writes]
        if len(writes) > MAX_BATCH_WRITES:
            raise TerminalError(
                "TOO_LARGE",
                f"The step has {len(planned)} records with {len(writes) - len(planned)} sources; together they may be "
                f"{MAX_BATCH_WRITES}. Write fewer at once.",
            )
        results = await _to_the_end(self._store.commit(writes))
        records = {item.writes[-1].key for item in planned}
        return all(
            isinstance(result, Committed)
            for write, result in zip(writes, results, strict=True)
            if write.key in records
        )

    async def _plan(self, change: Change, provenance: Provenance, now_ms: int) -> _Plan:
        content = _content(change)
        effect = await self._records.effect(change.name, provenance.effect_key)
        if effect is not None:
            version, known = effect
            if known != content:
                return TerminalError(
                    "REQUEST_ID_REUSED",
                    f"The step {provenance.effect_key} wrote {change.name} already, with another content.",
                    resource=str(change.name),
                )
            return await self._done(change.name, version)
        newest = await self._records.newest(change.name)
        try:
            after = core.decide_write(newest, change, provenance, now_ms)
        except AiosError as error:
            return error
        return _Planned(Done(newest, after), self._records.write_of(after, content=content))

    async def _plan_undo(self, undo: Undo, provenance: Provenance, now_ms: int) -> _Plan:
        name = undo.name
        undone_by = await self._records.undone_by(name, undo.version)
        if undone_by:
            return await self._done(name, undone_by)
        newest = await self._records.newest(name)
        if newest is None or newest.version < undo.version:
            return TerminalError(
                "CONFLICT",
                f"{name} has no version {undo.version}; nothing of it was touched.",
                resource=str(name),
            )
        used = await self._used_by_another(newest, undo)
        if used is not None:
            return TerminalError(
                "CONFLICT",
                f"{name.kind} {name.key} was used since by {used.name.kind} {used.name.key} (run {used.run_id}). "
                "Nothing of it was touched; undo that run first.",
                resource=str(name),
                used_by=used.name.at(used.version),
                run=used.run_id,
            )
        try:
            stands = await self._standing(undo, newest)
            before = await self._records.version(name, undo.before)
            after = core.decide_undo(newest, stands, undo.version, before, provenance, now_ms)
        except AiosError as error:
            return error
        return _Planned(Done(newest, after), self._records.write_of(after))

    async def _standing(self, undo: Undo, newest: Version) -> int:
        """The version that stands. One that took another back stands while it is the newest, or all that came after it
        was taken back as well."""
        taken = await self._records.stored(undo.name, undo.version)
        if taken.provenance.undoes:
            version = newest
            while version.version != undo.version and version.provenance.undoes > 1:
                version = await self._records.stored(undo.name, version.provenance.undoes - 1)
            return version.version
        return await self._records.answered(undo.name, core.standing(newest))

    async def _used_by_another(self, newest: Version, undo: Undo) -> Use | None:
        """A version that stands and that another run made from this one, under the number it has now or had."""
        run_id = (await self._records.stored(undo.name, undo.version)).provenance.run_id
        for version in {undo.version, newest.version}:
            token = ""
            while True:
                uses, token = await self._records.uses(undo.name.at(version), token=token)
                for use in uses:
                    if not (use.undone or use.restores) and use.run_id != run_id:
                        return use
                if not token:
                    break
        return None

    async def _done(self, name: Name, version: int) -> Done:
        return Done(await self._records.version(name, version - 1), await self._records.stored(name, version))


async def _to_the_end(commit: Coroutine[None, None, list[Result]]) -> list[Result]:
    """The results, even when the step runs out of its time meanwhile: what was handed to the store can't be taken
    back, so only its outcome tells what stands."""
    task = asyncio.ensure_future(commit)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        return await task


def _settled(plan: Sequence[_Plan]) -> Written:
    return Written(
        tuple(
            item.done if isinstance(item, _Planned) else item
            for item in plan
            if not isinstance(item, AiosError)
        ),
        tuple(item for item in plan if isinstance(item, AiosError)),
    )


def _content(change: Change) -> str:
    """What makes two writes of one step the same, in hex."""
    value = b"" if change.value is None else b"=" + change.value
    return sha256(value, repr(replace(change, value=None, note="")).encode()).hex()[:32]
