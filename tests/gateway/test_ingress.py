"""Events over HTTP: CloudEvents 1.0 in all their modes, answered after the commit; against a served AIOS."""

import asyncio
import json
from typing import Any

import httpx
import nats
import pytest

from aios.event.v1.event_pb2 import AcceptEventRequest, ExternalEvent
from aios_runtime.cloudevents import BATCH, STRUCTURED
from tests.served import Server

LOOKS = 50  # at the list of events, each of which takes a while


def post(server: Server, body: bytes | object, token: str | None = None, **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    given = {name.replace("_", "-"): text for name, text in headers.items()}
    if token != "":
        given["authorization"] = f"Bearer {token or server.token}"
    return httpx.post(f"{server.http}/v1/events", content=content, headers=given, timeout=20)


def event(identifier: str, **fields: Any) -> dict[str, Any]:
    base = {"specversion": "1.0", "id": identifier, "source": "test", "type": "visitor.came"}
    return base | {"data": {"name": "Ada"}} | fields


def binary(identifier: str, **more: str) -> dict[str, str]:
    return {
        "ce_specversion": "1.0",
        "ce_id": identifier,
        "ce_source": "test",
        "ce_type": "visitor.came",
        "content_type": "application/json",
        **more,
    }


def committed(server: Server, run_id: str) -> bool:
    return bool(server.json("run", "show", run_id)["run_id"] == run_id)


def test_a_binary_event_is_answered_with_its_run_after_the_commit(server: Server) -> None:
    answer = post(server, {"name": "Ada"}, **binary("b1"))
    assert answer.status_code == 200
    told = answer.json()
    assert (told["event_id"], told["duplicate"], told["resolution"]["intent"]) == ("b1", False, "greet")
    assert committed(server, told["run_id"])


def test_a_structured_event_means_the_same(server: Server) -> None:
    answer = post(server, event("s1"), content_type=STRUCTURED)
    assert answer.status_code == 200
    assert committed(server, answer.json()["run_id"])
    again = post(server, {"name": "Ada"}, **binary("s1"))
    assert (again.json()["duplicate"], again.json()["run_id"]) == (True, answer.json()["run_id"])


def test_of_a_batch_each_event_is_answered_on_its_own(server: Server) -> None:
    sent = [event("t1"), event("t2", data={}), event("t1", data={"name": "Other"})]
    answer = post(server, sent, content_type=BATCH)
    assert answer.status_code == 207
    first, question, refused = answer.json()
    assert committed(server, first["run_id"])
    assert question["resolution"]["outcome"] == "question"
    assert question["run_id"] == ""
    assert refused["error"]["code"] == "REQUEST_ID_REUSED"
    assert post(server, [event("t1")], content_type=BATCH).status_code == 200


def test_the_same_event_with_other_data_is_refused(server: Server) -> None:
    post(server, {"name": "Ada"}, **binary("again"))
    other = post(server, {"name": "Bob"}, **binary("again"))
    assert other.status_code == 409
    assert other.json()["error"]["code"] == "REQUEST_ID_REUSED"


@pytest.mark.parametrize(
    ("body", "headers", "status", "field"),
    [
        (b"{}", {"content_type": "application/json"}, 400, "content-type"),
        (b"not json", binary("w1"), 400, "data"),
        (b"\xff\xfe", binary("w2"), 400, "data"),
        (b"x", binary("w3", content_type="text/plain"), 400, "data"),
        (b"{}", binary("w4", ce_specversion="0.3"), 400, "specversion"),
        (b"{}", binary("w5", ce_time="yesterday"), 400, "time"),
        (b"{}", binary("w6", ce_source=""), 400, "source"),
        (b"{", {"content_type": STRUCTURED}, 400, None),
        (b"[1]", {"content_type": BATCH}, 400, "[0].body"),
        (b"{}", {"content_type": BATCH}, 400, "body"),
        (json.dumps([event(str(n)) for n in range(101)]).encode(), {"content_type": BATCH}, 413, None),
        (b"[" * 5000, {"content_type": STRUCTURED}, 400, None),
        (b"x" * 1_100_000, binary("w7"), 413, None),
    ],
)
def test_what_is_no_event_is_refused_by_what_is_wrong(
    server: Server, body: bytes, headers: dict[str, str], status: int, field: str | None
) -> None:
    answer = post(server, body, **headers)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert {"code", "message", "remedy", "details"} == error.keys()
    if field is not None:
        assert error["details"]["field"] == field


def test_events_need_a_token_that_may_publish(server: Server) -> None:
    missing = post(server, {"name": "x"}, token="", **binary("a1"))
    assert missing.status_code == 401
    assert missing.headers["www-authenticate"].startswith("Bearer")
    assert missing.json()["error"]["code"] == "UNAUTHENTICATED"
    wrong = post(server, {"name": "x"}, token="aios_tok_wrong", **binary("a1"))
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (401, "UNAUTHENTICATED")
    reader = server.json("token", "create", "http-reader", "--scope", "read")["token"]
    denied = post(server, {"name": "x"}, token=reader, **binary("a2"))
    assert (denied.status_code, denied.json()["error"]["code"]) == (403, "PERMISSION_DENIED")
    assert "events" in denied.json()["error"]["message"]
    assert {"a1", "a2"}.isdisjoint(item["event_id"] for item in server.json("event", "list"))
    publisher = server.json("token", "create", "http-publisher", "--scope", "events")["token"]
    assert post(server, {"name": "x"}, token=publisher, **binary("a3")).status_code == 200


async def test_an_event_over_nats_is_taken_from_the_external_user_who_may_do_nothing_else(
    server: Server,
) -> None:
    users = server.data / "nats-users"
    url, password = ((users / name).read_text().strip() for name in ("url", "external"))
    refused: list[Exception] = []
    all_refused = asyncio.Event()

    async def note(error: Exception) -> None:
        refused.append(error)
        if len(refused) == 2:
            all_refused.set()

    client = await nats.connect(url, user="external", password=password, error_cb=note)
    try:
        headers = {"ce-specversion": "1.0", "ce-id": "n1", "ce-source": "crm", "ce-type": "visitor.came"}
        stream = client.jetstream()
        for _ in range(2):
            taken = await stream.publish("aios.in.main.crm.visitor_came", b'{"name": "Ada"}', headers=headers)
            assert taken.stream == "AIOS_IN"
        request = AcceptEventRequest(
            event=ExternalEvent(
                id="n2", source="crm", type="visitor.came", data=b'{"name": "Bob"}', workspace="main"
            )
        )
        answer = await client.request("aios.accept.main", request.SerializeToString(), timeout=10)
        assert b"greet" in answer.data
        garbled = await client.request("aios.accept.main", b"\xff\xff", timeout=10)
        assert b"UNDECODABLE" in garbled.data
        for subject in ("aios.cmd.run.v1.start_run.main", "aios.evt.run.v1.run_started.main"):
            await client.publish(subject, b"x")
        # The client's flush sends its ping ahead of what is still to be published: its answer would say nothing.
        await asyncio.wait_for(all_refused.wait(), 20)
    finally:
        await client.close()
    assert all("permissions violation" in str(error) for error in refused)
    found: list[dict[str, Any]] = []
    for _ in range(LOOKS):
        found = [item for item in server.json("event", "list") if item["event_id"] == "n1"]
        if found:
            break
    (once,) = found
    assert committed(server, once["run_id"])


def test_the_probes_answer_anybody(server: Server) -> None:
    assert httpx.get(f"{server.http}/healthz").json() == {"alive": True}
    assert httpx.get(f"{server.http}/readyz").json()["ready"] is True
    assert httpx.get(f"{server.http}/v1/events").status_code == 405
    assert httpx.get(f"{server.http}/nothing").status_code == 404
