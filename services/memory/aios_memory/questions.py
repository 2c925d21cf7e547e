"""What other services ask of memory directly, by request and reply: one question, one method, one message each way."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from aios.memory.v1 import memory_pb2
from aios_core.errors import TerminalError
from aios_memory.artifacts import Artifacts
from aios_memory.cache import Cache
from aios_memory.codec import parse, to_record
from aios_memory.episodes import Episodes
from aios_memory.model import Kind, Name, check_key, check_kind, check_source
from aios_memory.store import Records
from aios_runtime.bus.port import Answer

MAX_PAGE: Final = 200  # rows of one answer
DEFAULT_PAGE: Final = 50
MAX_PAGE_BYTES: Final = 160 * 1024  # of one answer; it is below a message's limit by more than one record
LIST_CHUNK: Final = 4  # records read at once, so that a page ends between two of them
MAX_TOKEN_CHARS: Final = 1000


class Questions:
    """Answers in one workspace. Raises INVALID_ARGUMENT, NOT_FOUND, UNDECODABLE and what the artifacts raise."""

    def __init__(
        self, workspace: str, records: Records, artifacts: Artifacts, episodes: Episodes, cache: Cache
    ) -> None:
        self._workspace = workspace
        self._records = records
        self._artifacts = artifacts
        self._episodes = episodes
        self._cache = cache

    def answers(self) -> Mapping[str, Answer]:
        """The questions by name, as the bus takes them."""
        methods: tuple[Callable[[bytes], Awaitable[bytes]], ...] = (
            self.put_artifact,
            self.get_artifact,
            self.get_record,
            self.list_records,
            self.list_versions,
            self.list_uses,
            self.list_episodes,
            self.get_cached,
            self.put_cached,
        )
        return {method.__name__: _without_headers(method) for method in methods}

    async def put_artifact(self, data: bytes) -> bytes:
        """PutArtifactRequest → PutArtifactResponse."""
        request = parse(memory_pb2.PutArtifactRequest, data)
        self._check(request.workspace)
        return (await self._artifacts.put(request)).SerializeToString()

    async def get_artifact(self, data: bytes) -> bytes:
        """GetArtifactRequest → GetArtifactResponse."""
        request = parse(memory_pb2.GetArtifactRequest, data)
        self._check(request.workspace)
        return (await self._artifacts.get(request)).SerializeToString()

    async def get_record(self, data: bytes) -> bytes:
        """GetRecordRequest → GetRecordResponse: the newest version, a given one, or the one that stood at a time."""
        request = parse(memory_pb2.GetRecordRequest, data)
        self._check(request.workspace)
        name = _name(request.kind, request.key)
        if request.version and request.as_of_ms:
            raise TerminalError("INVALID_ARGUMENT", "Give either version or as_of_ms.", field="version")
        if request.version:
            found = await self._records.version(name, request.version)
        elif request.as_of_ms:
            found = await self._records.as_of(name, request.as_of_ms)
        else:
            found = await self._records.newest(name)
        if found is None:
            raise TerminalError("NOT_FOUND", f"There is no such version of {name}.", resource=str(name))
        return memory_pb2.GetRecordResponse(record=to_record(self._workspace, found)).SerializeToString()

    async def list_records(self, data: bytes) -> bytes:
        """ListRecordsRequest → ListRecordsResponse: newest versions by prefix; deleted records are marked so."""
        request = parse(memory_pb2.ListRecordsRequest, data)
        self._check(request.workspace)
        kind, prefix = check_kind(request.kind, "kind"), check_key(request.prefix, "prefix", prefix=True)
        limit, token = _page(request.page_size), _token(request.page_token)
        response = memory_pb2.ListRecordsResponse()
        while len(response.records) < limit and response.ByteSize() < MAX_PAGE_BYTES:
            chunk = min(LIST_CHUNK, limit - len(response.records))
            versions, token = await self._records.page(kind, prefix, token, chunk)
            response.records.extend(to_record(self._workspace, version) for version in versions)
            if not token:
                break
        response.next_page_token = token
        return response.SerializeToString()

    async def list_versions(self, data: bytes) -> bytes:
        """ListVersionsRequest → ListVersionsResponse: the oldest first."""
        request = parse(memory_pb2.ListVersionsRequest, data)
        self._check(request.workspace)
        name = _name(request.kind, request.key)
        newest = await self._records.newest(name)
        if newest is None:
            raise TerminalError("NOT_FOUND", f"There is no {name}.", resource=str(name))
        limit, after = _page(request.page_size), _number(request.page_token)
        response = memory_pb2.ListVersionsResponse()
        while (
            len(response.records) < limit and response.ByteSize() < MAX_PAGE_BYTES and after < newest.version
        ):
            chunk = min(LIST_CHUNK, limit - len(response.records))
            for version in await self._records.versions(name, after, chunk):
                response.records.append(to_record(self._workspace, version))
                after = version.version
        response.next_page_token = str(after) if after < newest.version else ""
        return response.SerializeToString()

    async def list_uses(self, data: bytes) -> bytes:
        """ListUsesRequest → ListUsesResponse: what was made from a source."""
        request = parse(memory_pb2.ListUsesRequest, data)
        self._check(request.workspace)
        source = check_source(request.source, "source")
        uses, token = await self._records.uses(
            source, token=_token(request.page_token), limit=_page(request.page_size)
        )
        return memory_pb2.ListUsesResponse(
            uses=[
                memory_pb2.Use(kind=use.name.kind, key=use.name.key, version=use.version, undone=use.undone)
                for use in uses
            ],
            next_page_token=token,
        ).SerializeToString()

    async def list_episodes(self, data: bytes) -> bytes:
        """ListEpisodesRequest → ListEpisodesResponse: what happened in a run, in order; go on after the last one."""
        request = parse(memory_pb2.ListEpisodesRequest, data)
        self._check(request.workspace)
        if not request.run_id or len(request.run_id) > MAX_TOKEN_CHARS or request.after_sequence < 0:
            raise TerminalError("INVALID_ARGUMENT", "run_id must name a run.", field="run_id")
        response = memory_pb2.ListEpisodesResponse()
        for episode in await self._episodes.of_run(
            request.run_id, request.after_sequence, _page(request.page_size)
        ):
            response.episodes.append(episode)
            if response.ByteSize() >= MAX_PAGE_BYTES:
                break
        return response.SerializeToString()

    async def get_cached(self, data: bytes) -> bytes:
        """GetCachedRequest → GetCachedResponse."""
        request = parse(memory_pb2.GetCachedRequest, data)
        self._check(request.workspace)
        return (await self._cache.get(request.key_sha256)).SerializeToString()

    async def put_cached(self, data: bytes) -> bytes:
        """PutCachedRequest → PutCachedResponse; an answer that is there already stays."""
        request = parse(memory_pb2.PutCachedRequest, data)
        self._check(request.workspace)
        await self._cache.put(request.key_sha256, request.value)
        return memory_pb2.PutCachedResponse().SerializeToString()

    def _check(self, workspace: str) -> None:
        if workspace != self._workspace:
            raise TerminalError(
                "NOT_FOUND",
                f"This memory keeps workspace {self._workspace}, not {workspace[:80]!r}.",
                field="workspace",
            )


def _without_headers(method: Callable[[bytes], Awaitable[bytes]]) -> Answer:
    async def answer(data: bytes, headers: Mapping[str, str]) -> bytes:
        return await method(data)

    return answer


def _name(kind: str, key: str) -> Name:
    checked: Kind = check_kind(kind, "kind")
    return Name(checked, check_key(key, "key"))


def _page(size: int) -> int:
    return min(size or DEFAULT_PAGE, MAX_PAGE)


def _token(token: str) -> str:
    if len(token) > MAX_TOKEN_CHARS:
        raise TerminalError(
            "INVALID_ARGUMENT", "page_token is not one that a listing gave out.", field="page_token"
        )
    return token


def _number(token: str) -> int:
    if token and not (token.isascii() and token.isdigit() and len(token) <= 10):
        raise TerminalError(
            "INVALID_ARGUMENT", "page_token is not one that a listing gave out.", field="page_token"
        )
    return int(token or 0)
