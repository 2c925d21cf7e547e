"""Requests that nobody meant: whatever a client sends, it gets an answer or a reason, in time, and the rest goes on.

The fields of each request are drawn: names, ids and pages that there are among what makes no sense.
"""

import json
from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import Any, Final

import grpc
import grpc.aio
import httpx
import pytest
from google.protobuf.descriptor import FieldDescriptor as F
from google.protobuf.message import Message

from aios.api.v1 import api_pb2
from aios.value.v1.value_pb2 import Value
from aios_runtime.cloudevents import BATCH, STRUCTURED
from tests.gateway.serving import Api, reason, value
from tests.often import tries
from tests.served import Server, served

EACH: Final = tries(12)  # requests of each method
SEED: Final = 1
SECONDS: Final = 20.0  # until there is an answer
WATCHED: Final = 0.2  # that a run is watched which goes on
TEXTS: Final = [
    *(
        "",
        " ",
        "x",
        "-",
        "main",
        "..",
        "../../etc/passwd",
        "a/b",
        "a\nb",
        "\x00",
        "\U0001f600",
        "%",
        "*",
        ">",
        "$x",
    ),
    *(
        "greet",
        "ask-first",
        "question",
        "Workflow",
        "Budget",
        "fact",
        "run_x",
        "apr_x",
        "name",
        "words",
        "keep",
    ),
    *(
        "greet@",
        "greet@0",
        "${inputs.name}",
        "2026-01",
        "2026-13-40T99:00:00Z",
        "-1",
        "1e400",
        "0x",
        "null",
        "x" * 3000,
    ),
    *(
        "http://127.0.0.1:1/",
        "file:///etc/passwd",
        "person:owner",
        "run",
        "read",
        "admin",
        "1h",
        "P1D",
        "0 0 31 2 *",
    ),
]
NUMBERS: Final = [0, 1, 2, -1, 3, 7, 100, 1_000, 2**31 - 1, -(2**31), 2**53, 2**63 - 1, -(2**63)]
DOCUMENTS: Final = [
    b"",
    b"\xff\xfe",
    b"a: [",
    b"- 1",
    b"{}",
    b"apiVersion: aios/v1\nkind: Workflow\nmetadata: {name: own}\nspec: {steps: [{name: a, transform: 1}]}\n",
    b"apiVersion: aios/v1\nkind: Nothing\nmetadata: {name: own}\nspec: {}\n",
    b"&a [*a, *a]",
    b"[" * 2_000,
    b'{"steps": []}',
]
VALUES: Final = [
    {},
    {"name": "Ada"},
    {"name": 1},
    {"name": "Ada", "more": [1, {"a": None}]},
    [],
    "x",
    None,
    7,
]


LIKE: Final = {  # fields that mean the same as another one
    **dict.fromkeys(("other_run_id", "run_ids", "forked_from"), "run_id"),
    **dict.fromkeys(("steps", "from_step", "fork_step", "at_step"), "step"),
    **dict.fromkeys(("next_page_token",), "page_token"),
}


class Rubbish:
    """Draws requests. `known` is what there is, by the name of its field."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        self.known: dict[str, list[str]] = {
            "workflow": ["greet", "ask-first", "question"],
            "kind": ["fact"] * 5,
            "step": ["words", "approve", "keep", "which"],
            "name": ["greet"],
            "scopes": ["read", "run"],
        }
        self.requests = 0

    def learn(self, message: Any) -> None:
        """What an answer tells of."""
        for field, item in message.ListFields():
            for one in item if field.is_repeated else [item]:
                if field.message_type is not None and field.message_type.GetOptions().map_entry:
                    continue
                if isinstance(one, Message):
                    self.learn(one)
                elif one and field.type in (F.TYPE_STRING, F.TYPE_BYTES):
                    known = self.known.setdefault(self.like(field), [])
                    known[:] = [*known[:5], *known[5:][-30:], one]

    @staticmethod
    def like(field: Any) -> str:
        """What a field is, by its name; bytes are not texts."""
        name = LIKE.get(field.name, str(field.name))
        return f"{name} in bytes" if field.type == F.TYPE_BYTES else name

    def request(self, kind: type[Message], depth: int = 0) -> Any:
        """One of a kind, with some of its fields."""
        message = kind()
        if isinstance(message, Value):
            return self.value()
        for field in kind.DESCRIPTOR.fields:
            left = self.rng.random() < 0.4 and field.name != "request_id"
            if left or (field.message_type is not None and depth > 4):
                continue
            self.fill(message, field, depth)
        return message

    def fill(self, message: Any, field: Any, depth: int) -> None:
        several = field.is_repeated
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            return
        for _ in range(self.rng.choice([0, 1, 1, 2, 5]) if several else 1):
            if field.message_type is not None:
                kind = (
                    type(getattr(message, field.name).add())
                    if several
                    else type(getattr(message, field.name))
                )
                drawn = self.request(kind, depth + 1)
                place = getattr(message, field.name)
                (place[-1] if several else place).CopyFrom(drawn)
            elif several:
                getattr(message, field.name).append(self.scalar(field))
            else:
                setattr(message, field.name, self.scalar(field))

    def scalar(self, field: Any) -> Any:
        rng = self.rng
        if field.name == "request_id" and rng.random() < 0.9:
            self.requests += 1
            return f"rubbish-{self.requests}"
        known = self.known.get(self.like(field))
        if known and field.type in (F.TYPE_STRING, F.TYPE_BYTES) and rng.random() < 0.8:
            return rng.choice(known)
        if field.type == F.TYPE_STRING:
            return rng.choice(TEXTS)
        if field.type == F.TYPE_BYTES:
            return rng.choice([*DOCUMENTS, rng.randbytes(32), rng.randbytes(rng.choice([1, 31, 200]))])
        if field.type == F.TYPE_BOOL:
            return rng.random() < 0.5
        if field.type == F.TYPE_ENUM:
            return rng.choice([*field.enum_type.values_by_number, 99])
        if field.type in (F.TYPE_DOUBLE, F.TYPE_FLOAT):
            return rng.choice([0.0, -1.0, 1e308, float("inf"), float("nan")])
        bits = 31 if field.cpp_type in (F.CPPTYPE_INT32, F.CPPTYPE_UINT32) else 63
        least = 0 if field.cpp_type in (F.CPPTYPE_UINT32, F.CPPTYPE_UINT64) else -(2**bits)
        return rng.choice([number for number in NUMBERS if least <= number < 2**bits])

    def value(self) -> Value:
        rng = self.rng
        if rng.random() < 0.7:
            return value(rng.choice(VALUES))  # type: ignore[arg-type]
        drawn = Value()
        node = drawn.root
        for _ in range(rng.choice([0, 1, 3, 200])):  # deeper than anybody needs
            node = node.list.items.add()
        node.label = rng.choice([0, 1, 2**32 - 1])
        if rng.random() < 0.5:
            node.decimal = rng.choice(["", "1.50", "nan", "1e9", "9" * 400])
        return drawn


def methods() -> Iterator[tuple[str, str, Any]]:
    for service in api_pb2.DESCRIPTOR.services_by_name.values():
        for method in service.methods:
            yield service.name, method.name, getattr(api_pb2, method.input_type.name)


def stub(api: Api, service: str) -> Any:
    name = service.removesuffix("Service").lower()
    return getattr(api, {"memory": name, "system": name, "notify": name}.get(name, f"{name}s"))


async def answered(api: Api, service: str, name: str, request: Message) -> Any:
    """The answer, the first of a stream, or the error."""
    method = getattr(stub(api, service), name)
    try:
        call = method(request, timeout=WATCHED if name == "WatchRun" else SECONDS, metadata=api.metadata)
        return await (call.read() if hasattr(call, "read") else call)
    except grpc.aio.AioRpcError as error:
        return error


def code_of(said: Any) -> grpc.StatusCode | None:
    return said.code() if isinstance(said, grpc.aio.AioRpcError) else None


MORE: Final = b"""apiVersion: aios/v1
kind: Workflow
metadata: {name: breaks}
spec:
  inputs: {type: object, properties: {name: {type: string}}}
  steps:
    - {name: each, map: {over: [1, 2], steps: [{name: words, agent: echo, input: {n: "${item}"}}]}}
    - {name: sure, ask: {title: Sure?, questions: [{id: q, text: "Sure?", options: [a, b]}]}}
    - {name: line, connector: files.append_line, effect: write, input: {path: rubbish.jsonl, entry: {n: 1}}, needs: []}
    - {name: reads, connector: files.read_folder, input: {client: none, month: 2026-01}, needs: [line]}
"""
OWN_TOKEN: Final = "owner"  # which the client would be without


async def prepared(api: Api, rubbish: Rubbish) -> None:
    """Runs that are done, failed, and wait, of which the requests can be about."""
    apply = api_pb2.ApplyResourcesRequest(request_id="rubbish-apply", yaml=MORE, file="rubbish.yaml")
    await api.call(api.resources.ApplyResources, apply)
    for at in range(3):
        for name in ("greet", "ask-first", "question", "breaks"):
            given = {} if name == "question" else {"name": f"Ada {at}"}
            run = (await api.start(name, f"before-{name}-{at}", **given)).run
            rubbish.learn(run)
    await api.ended(run.run_id)


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of its own: nobody knows what becomes of it."""
    yield from served(tmp_path_factory.mktemp("rubbish"))


@pytest.mark.hypothesis  # a property as those are: `make properties` tries it more often
async def test_whatever_is_asked_there_is_an_answer_or_a_reason(apart: Server) -> None:
    rubbish, met = Rubbish(SEED), Counter[str]()
    async with apart.client() as api:
        await prepared(api, rubbish)
        for _ in range(EACH):
            for service, name, kind in methods():
                request = rubbish.request(kind)
                if getattr(request, "token_id", "").startswith(OWN_TOKEN):
                    continue
                said = await answered(api, service, name, request)
                if name == "WatchRun" and code_of(said) == grpc.StatusCode.DEADLINE_EXCEEDED:
                    continue
                met[f"{name} {check(said, f'{service}.{name}({request!r})')}"] += 1
                if isinstance(said, Message):
                    rubbish.learn(said)
        for run in (await api.call(api.runs.ListRuns, api_pb2.ListRunsRequest(page_size=100))).runs:
            for name, kind in (
                ("GetRun", api_pb2.GetRunRequest),
                ("GetTimeline", api_pb2.GetTimelineRequest),
            ):
                said = await answered(api, "RunService", name, kind(run_id=run.run_id))
                assert code_of(said) is None, f"{name} {run.run_id}: {said!r}"
    print(*(f"{times:6} {what}" for what, times in sorted(met.items())), sep="\n")
    answers = {what.partition(" ")[0] for what in met if what.endswith(" answered")}
    assert len(answers) > len(list(methods())) / 3, "many make sense now and then"


def check(said: Any, told: str) -> str:
    """The reason code of a refusal that is as one has to be."""
    if not isinstance(said, grpc.aio.AioRpcError):
        return "answered"
    told = f"{told}: {said!r}"[:2500]
    assert said.code() not in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN), told
    assert any(key == "grpc-status-details-bin" for key, _ in said.trailing_metadata() or ()), told
    code, _, _ = reason(said)
    assert code not in ("INTERNAL", "UNAVAILABLE", "DEADLINE_EXCEEDED", "UNAUTHENTICATED"), told
    assert said.details(), told
    return code


KINDS: Final = [
    STRUCTURED,
    BATCH,
    "application/json",
    "application/json; charset=utf-16",
    "text/plain",
    "",
    "x",
    "a/b;c",
]
ODD: Final[list[Any]] = [
    *(
        "",
        " ",
        "x" * 5_000,
        "%",
        "%00",
        "%ff",
        "a b",
        "1.0",
        "0.3",
        "2026-02-30T00:00:00Z",
        "2026-01-01T00:00:00Z",
    ),
    *("\u00e4", "\U0001f600", "\x00", "visitor.came", "e1", "test", "application/json", "QQ==", "?"),
    *(None, True, 0, -1, 1.5, 1e300, 10**40, [], {}, [[]], {"name": "Ada"}, {"name": {"a": [1]}}),
]
FIELDS: Final = [
    "specversion",
    "id",
    "source",
    "type",
    "time",
    "subject",
    "datacontenttype",
    "dataschema",
    "traceparent",
]


class Events(Rubbish):
    """Draws events and what might be taken for one."""

    def event(self) -> dict[str, Any]:
        """One that is right but for a field or two."""
        self.requests += 1
        fields: dict[str, Any] = {"specversion": "1.0", "id": f"e{self.requests}", "source": "test"}
        fields |= {"type": "visitor.came", "data": {"name": "Ada"}}
        for _ in range(self.rng.choice([0, 1, 1, 2])):
            fields[self.rng.choice([*FIELDS, "data", "data_base64", "Odd", "odd-er", ""])] = self.rng.choice(
                ODD
            )
        return fields

    def sent(self) -> tuple[dict[str, bytes], bytes]:
        """The headers and the body of a request."""
        rng, event = self.rng, self.event()
        headers = {"content-type": rng.choice(KINDS).encode()}
        if rng.random() < 0.4:
            texts = {name: str(item) for name, item in event.items() if name and not name.startswith("data")}
            headers |= {
                f"ce-{name}": text.replace("\x00", "").strip().encode()[:4_000]
                for name, text in texts.items()
            }
            body: Any = event["data"]
        else:
            body = [self.event() for _ in range(rng.choice([0, 1, 3]))] if rng.random() < 0.3 else event
        data = json.dumps(body).encode()
        if rng.random() < 0.2:
            data = rng.choice([data[: rng.randrange(len(data) + 1)], data.replace(b'"', b"'", 1), *DOCUMENTS])
        return headers, data


@pytest.mark.hypothesis
def test_whatever_comes_as_an_event_is_taken_or_refused_with_a_reason(apart: Server) -> None:
    drawn, met = Events(SEED), Counter[str]()
    with httpx.Client(base_url=apart.http, timeout=SECONDS) as client:
        for _ in range(tries(200)):
            headers, body = drawn.sent()
            headers["authorization"] = f"Bearer {apart.token}".encode()
            answer = client.post("/v1/events", content=body, headers=headers)
            told = f"{headers} {body!r}: {answer.status_code} {answer.text}"[:2_000]
            assert answer.status_code < 500, told
            said = answer.json()
            for one in said if isinstance(said, list) else [said]:
                code = one["error"]["code"] if "error" in one else "answered"
                assert code != "INTERNAL" and (code == "answered" or one["error"]["message"]), told
                met[code] += 1
    print(met)
    assert met["answered"] > 20 and len(met) > 2, met
