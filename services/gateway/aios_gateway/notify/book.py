"""What is kept of the webhook: where it goes, and of each need whether it was told. In the gateway's store.

A need is written down before it is sent, and after it is sent that it was. So one that a crash cuts off in the middle
is sent again, under the same id; and where several gateways have one store, one of them sends it.
"""

from collections.abc import Callable
from dataclasses import asdict
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from aios_gateway.notify.needs import Need
from aios_runtime.store.port import Aggregate, Committed, Store, Write

PAGE: Final = 500

State = Literal["pending", "delivered", "undeliverable"]


class Webhook(BaseModel):
    """Where needs are told. `secret` is what they are signed with, in base64; it never leaves the gateway."""

    model_config = ConfigDict(frozen=True)

    url: str
    secret: str = Field(repr=False)
    allow_private: bool
    set_by: str
    set_time_ms: int


class Told(BaseModel):
    """A need, and how far telling it has come."""

    model_config = ConfigDict(frozen=True)

    need: dict[str, str]
    begin_time_ms: int
    state: State = "pending"
    attempts: int = 0
    last_error: str = ""


class Book:
    """The webhook of a workspace."""

    def __init__(self, store: Store, workspace: str, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._settings = f"{workspace}/notify/webhook"
        self._told = f"{workspace}/notify-told/"
        self._now_ms = now_ms

    async def webhook(self) -> Webhook | None:
        """Where needs are told, or None when they are not."""
        stored = await self._store.read(self._settings)
        return Webhook.model_validate_json(stored.head) if stored is not None and stored.head else None

    async def set(self, webhook: Webhook | None) -> None:
        """Tell them there from now on, or nowhere."""
        head = webhook.model_dump_json().encode() if webhook is not None else b""
        while True:
            stored = await self._store.read(self._settings)
            expect = stored.revision if stored is not None else 0
            (result,) = await self._store.commit([Write(self._settings, expect, head)])
            if isinstance(result, Committed):
                return

    async def all(self) -> dict[str, tuple[int, Told]]:
        """What was told or is to be, by the id of the need, with its revision."""
        found: dict[str, tuple[int, Told]] = {}
        token = ""
        while True:
            page = await self._store.scan(self._told, token=token, limit=PAGE)
            found.update({item.key.removeprefix(self._told): _told(item) for item in page.items})
            token = page.next_token
            if not token:
                return found

    async def add(self, need: Need) -> None:
        """It is to be told; if it is not in the book already."""
        told = Told(need=asdict(need), begin_time_ms=self._now_ms())
        await self._write(need.id, 0, told, self._now_ms())

    async def put(self, name: str, revision: int, told: Told, due_ms: int | None = None) -> bool:
        """Write down how far it is; False when somebody else did meanwhile."""
        return await self._write(name, revision, told, due_ms)

    async def again(self) -> None:
        """What could not be delivered, or waits for its next attempt, is to be sent now."""
        for name, (revision, told) in (await self.all()).items():
            if told.state != "delivered":
                anew = told.model_copy(update={"state": "pending", "attempts": 0})
                await self._write(name, revision, anew, self._now_ms())

    async def forget(self, name: str, revision: int) -> None:
        """It needs nobody any more, told or not."""
        await self._store.commit([Write(self._told + name, revision, None)])

    async def due(self, before_ms: int, limit: int) -> list[tuple[str, int, Told]]:
        """Those to be sent by then, the earliest first: names, revisions, and what they are."""
        return [
            (item.key.removeprefix(self._told), *_told(item))
            for item in await self._store.due(before_ms, limit)
            if item.key.startswith(self._told)
        ]

    async def next_due(self) -> int | None:
        """When something is to be sent next."""
        return await self._store.next_due()

    async def _write(self, name: str, revision: int, told: Told, due_ms: int | None) -> bool:
        head = told.model_dump_json().encode()
        (result,) = await self._store.commit([Write(self._told + name, revision, head, due_ms=due_ms)])
        return isinstance(result, Committed)


def _told(item: Aggregate) -> tuple[int, Told]:
    return item.revision, Told.model_validate_json(item.head)
