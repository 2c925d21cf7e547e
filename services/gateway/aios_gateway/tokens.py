"""Who calls: bearer tokens, kept as hashes, and the scopes that they open."""

import hashlib
import hmac
import json
import os
import re
import secrets
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict

from aios_core.errors import TerminalError
from aios_core.ids import check_request_id, derive
from aios_runtime.service.datadir import place_error
from aios_runtime.store.port import Committed, Store, Write

OWNER_ID: Final = "owner"
MAX_TOKENS: Final = 1000  # of a workspace
MAX_TOKEN_CHARS: Final = 512
MAX_NAME_CHARS: Final = 100
SECRET_BYTES: Final = 32
REPLICA_BYTES: Final = 4  # in the id of an owner's token that is one of several
PERSON: Final = "person:"
OWNER: Final = PERSON + "owner"

_TOKEN: Final = re.compile(r"aios_([a-z0-9]{1,64})_([A-Za-z0-9_-]{32,400})")


class Scope(StrEnum):
    """What a token opens. `admin` is resources and tokens; no scope contains another."""

    READ = "read"
    RUN = "run"
    APPROVE = "approve"
    EVENTS = "events"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who calls, in which workspace, and what they may."""

    token_id: str
    workspace: str
    actor: str
    scopes: frozenset[str]

    def require(self, scope: Scope) -> None:
        """Raises PERMISSION_DENIED unless the token has the scope."""
        if scope not in self.scopes:
            raise TerminalError(
                "PERMISSION_DENIED",
                f"This needs the scope {scope.value}; token {self.token_id} has {', '.join(sorted(self.scopes))}.",
                scope=scope.value,
            )


class TokenRecord(BaseModel):
    """What is stored of a token: never its secret."""

    model_config = ConfigDict(frozen=True)

    token_id: str
    name: str
    workspace: str
    actor: str
    scopes: list[str]
    secret_sha256: str
    create_time_ms: int
    expire_time_ms: int = 0
    revoked: bool = False
    request_sha256: str = ""


class Tokens:
    """The tokens of a workspace, in the gateway's store."""

    def __init__(self, store: Store, workspace: str, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._workspace = workspace
        self._now_ms = now_ms

    async def identify(self, authorization: str) -> Identity:
        """Who the `Authorization` header names. Raises UNAUTHENTICATED, with the same words for every wrong token."""
        kind, _, text = authorization.partition(" ")
        if not text:
            raise TerminalError("UNAUTHENTICATED", "The call has no bearer token.")
        match = (
            _TOKEN.fullmatch(text.strip())
            if kind.lower() == "bearer" and len(text) <= MAX_TOKEN_CHARS
            else None
        )
        record = (await self._read(match[1]))[1] if match else None
        presented = secret_hash(match[2]) if match else ""
        if (
            not hmac.compare_digest(presented, record.secret_sha256 if record else secret_hash(""))
            or record is None
        ):
            raise TerminalError("UNAUTHENTICATED", "The token is not one of this server.")
        if record.revoked or (record.expire_time_ms and record.expire_time_ms <= self._now_ms()):
            raise TerminalError("UNAUTHENTICATED", f"The token {record.token_id} was revoked or has expired.")
        return Identity(record.token_id, record.workspace, record.actor, frozenset(record.scopes))

    async def create(
        self,
        request_id: str,
        name: str,
        scopes: Collection[str],
        expire_time_ms: int,
        secret_sha256: bytes,
        actor: str,
    ) -> TokenRecord:
        """A new token, of whose secret only the hash is known here. Safe to repeat with the same request id."""
        check_request_id(request_id)
        self._check_new(name, scopes, expire_time_ms, secret_sha256)
        token_id = derive("tok", self._workspace, request_id).removeprefix("tok_")
        whose = [actor] if actor != OWNER else []
        content = json.dumps([name, sorted(scopes), expire_time_ms, secret_sha256.hex(), *whose])
        record = TokenRecord(
            token_id=token_id,
            name=name,
            workspace=self._workspace,
            actor=actor,
            scopes=sorted(scopes),
            secret_sha256=secret_sha256.hex(),
            create_time_ms=self._now_ms(),
            expire_time_ms=expire_time_ms,
            request_sha256=hashlib.sha256(content.encode()).hexdigest(),
        )
        _, known = await self._read(token_id)
        if known is None:
            if len(await self.list()) >= MAX_TOKENS:
                raise TerminalError(
                    "INVALID_ARGUMENT", f"There are {MAX_TOKENS} tokens already; revoke some of them."
                )
            if await self._write(record, 0):
                return record
            _, known = await self._read(token_id)
        if known is None or known.request_sha256 != record.request_sha256:
            raise TerminalError(
                "REQUEST_ID_REUSED", f"The request id {request_id} made another token before."
            )
        return known

    async def revoke(self, token_id: str) -> TokenRecord:
        """From now on the token opens nothing. Raises NOT_FOUND."""
        revision, record = await self._read(token_id)
        if record is None:
            raise TerminalError("NOT_FOUND", f"There is no token {token_id[:80]!r}.", field="token_id")
        if not record.revoked:
            record = record.model_copy(update={"revoked": True})
            if not await self._write(record, revision):
                return await self.revoke(token_id)
        return record

    async def list(self) -> list[TokenRecord]:
        """All tokens, revoked ones too."""
        page = await self._store.scan(f"{self._workspace}/token/", limit=MAX_TOKENS)
        return [_record(item.head) for item in page.items]

    async def ensure_owner(self, path: Path) -> None:
        """Have the owner's token in `path`, readable for its owner alone, and its hash here.

        A token that is there already (of an earlier start, or a mounted secret) is kept; a lost one is replaced. Where
        other gateways use the same store, a lost one gets an id of its own, since theirs must go on working.
        Raises READ_ONLY, DISK_FULL or DATA_DIR when it can't be written, UNREADABLE when it can't be read.
        """
        text = _read_token(path)
        if text is not None:
            await self._put_owner(text, path)
            return
        token_id = OWNER_ID + (secrets.token_hex(REPLICA_BYTES) if self._store.shared else "")
        text = f"aios_{token_id}_{secrets.token_urlsafe(SECRET_BYTES)}"
        await self._put_owner(text, path)  # before the file: what stands in the file always works
        _write_private(path, text)

    async def _put_owner(self, text: str, path: Path) -> None:
        match = _TOKEN.fullmatch(text)
        if not match:
            raise TerminalError(
                "INVALID_ARGUMENT",
                f"{path} does not hold a token: it must be aios_<id>_<secret of 32 characters or more>.",
            )
        revision, known = await self._read(match[1])
        if known and hmac.compare_digest(known.secret_sha256, secret_hash(match[2])) and not known.revoked:
            return
        record = TokenRecord(
            token_id=match[1],
            name="owner",
            workspace=self._workspace,
            actor=OWNER,
            scopes=[scope.value for scope in Scope],
            secret_sha256=secret_hash(match[2]),
            create_time_ms=self._now_ms(),
        )
        if not await self._write(record, revision):
            await self._put_owner(text, path)

    def _check_new(
        self, name: str, scopes: Collection[str], expire_time_ms: int, secret_sha256: bytes
    ) -> None:
        if not name or len(name) > MAX_NAME_CHARS or not name.isprintable():
            raise TerminalError(
                "INVALID_ARGUMENT", f"name needs 1 to {MAX_NAME_CHARS} printable characters.", field="name"
            )
        known = [scope.value for scope in Scope]
        for scope in scopes or [""]:
            if scope not in known:
                raise TerminalError(
                    "INVALID_ARGUMENT",
                    f"scopes has {scope[:40]!r}; give any of {', '.join(known)}.",
                    field="scopes",
                )
        if len(secret_sha256) != SECRET_BYTES:
            raise TerminalError(
                "INVALID_ARGUMENT", "secret_sha256 must have 32 bytes.", field="secret_sha256"
            )
        if expire_time_ms and expire_time_ms <= self._now_ms():
            raise TerminalError(
                "INVALID_ARGUMENT", "expire_time_ms has passed already.", field="expire_time_ms"
            )

    async def _read(self, token_id: str) -> tuple[int, TokenRecord | None]:
        found = await self._store.read(f"{self._workspace}/token/{token_id}")
        return (found.revision, _record(found.head)) if found else (0, None)

    async def _write(self, record: TokenRecord, expect: int) -> bool:
        key = f"{self._workspace}/token/{record.token_id}"
        (result,) = await self._store.commit([Write(key, expect, record.model_dump_json().encode())])
        return isinstance(result, Committed)


@lru_cache(MAX_TOKENS)
def _record(stored: bytes) -> TokenRecord:
    return TokenRecord.model_validate_json(stored)


def secret_hash(secret: str) -> str:
    """SHA-256 in hex; enough for a secret of 256 random bits, which nobody can guess."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _read_token(path: Path) -> str | None:
    try:
        return path.read_text().strip()[:MAX_TOKEN_CHARS]
    except FileNotFoundError:
        return None
    except OSError as error:
        raise TerminalError("UNREADABLE", f"The token file {path} can't be read: {error.strerror}.") from None


def _write_private(path: Path, text: str) -> None:
    """Atomically, durably, mode 0600."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(descriptor)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise place_error(error, path, "The token file") from None
