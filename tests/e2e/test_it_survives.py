"""What goes wrong from outside, met end to end: said clearly, nothing lost, nothing half done."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import nats
import nats.errors
import pytest

from aios.api.v1 import api_pb2
from aios.run.v1 import state_pb2
from aios_runtime.bus.endpoint import load_endpoint
from tests.drill.kept import patiently
from tests.drill.served import CLIENT, MONTH, Served, check_written
from tests.gateway.serving import reason
from tests.served import Server

START = (
    "run",
    "start",
    "monthly-client-report",
    "--input",
    f"client={CLIENT}",
    "--input",
    f"month={MONTH}",
    "--wait",
)
FOREIGN = "written by somebody else\n"


def until_state(served: Served, run: str, *states: str) -> Any:
    """The run when it is in one of the states, or needs a person."""
    shown: Any = {}
    for _ in patiently():
        shown = served.aios("run", "show", run)
        if shown["state"] in states or (not states and shown["pending_approvals"]):
            return shown
    raise AssertionError(shown)


def plainly(served: Served, *command: str) -> str:
    """What a person reads, as one line."""
    said = subprocess.run(
        [sys.executable, "-m", "aios_cli", "--data-dir", str(served.data), *command],
        capture_output=True,
        check=True,
        timeout=60,
        text=True,
    )
    return " ".join(said.stdout.split())


@pytest.mark.feature("H10", "D4")
@pytest.mark.parametrize("happened", ["yes", "no"])
def test_a_change_that_nobody_can_be_sure_of_parks_and_asks(tmp_path: Path, happened: str) -> None:
    """The connector dies between its INTENT and the change, and somebody else writes the file before it is back."""

    def meanwhile(served: Served) -> None:
        if served.starts == 1:
            served.report.mkdir()
            (served.report / "report.md").write_text(FOREIGN)

    with Served(tmp_path, "connector.intent:1", meanwhile) as served:
        run = str(served.aios(*START, "--request-id", "unknown")["run_id"])
        (gate,) = until_state(served, run)["pending_approvals"]
        served.aios("approval", "approve", gate, "--request-id", "approve")
        parked = until_state(served, run)
        (question,) = parked["pending_approvals"]
        asked = served.aios("approval", "show", question)
        assert parked["state"] == "running"
        assert asked["kind"] == "unknown"
        assert "please check" in asked["title"]
        assert (served.report / "report.md").read_text() == FOREIGN
        for command in ((), ("run", "show", run), ("approval", "list"), ("approval", "show", question)):
            words = plainly(served, *command)
            assert "could not confirm" in words, command
            assert "please check" in words, command
        assert "whether it was written" in plainly(served, "approval", "show", question)
        served.kill()
        unsure = served.aios("approval", "answer", question, "perhaps", "--request-id", "perhaps")
        assert unsure["error"]["code"] == "BAD_ANSWER"
        assert "yes, no" in unsure["error"]["message"]
        assert until_state(served, run)["pending_approvals"] == [question], (
            "asked once, and still after a crash"
        )
        if happened == "no":
            (served.report / "report.md").unlink()
        served.aios("approval", "answer", question, happened, "--request-id", "answer")
        ended = until_state(served, run, "succeeded", "failed")
        assert ended["state"] == "succeeded", ended["error"]
        if happened == "no":
            check_written(served, run)
        else:
            assert (served.report / "report.md").read_text() == FOREIGN
            assert len((served.report / "index.jsonl").read_text().splitlines()) == 1


def unhandled(server: Server) -> tuple[int, str]:
    """How many messages became dead letters so far, and why the last one did, as a person is told."""
    (check,) = [check for check in server.json("doctor")["checks"] if check["name"] == "orchestrator"]
    facts = check["facts"]
    return int(facts.get("messages that could not be handled", 0)), facts.get("the last of them", "")


@pytest.mark.feature("A2", "B2")
async def test_messages_from_outside_that_can_not_be_handled_are_kept_and_hold_nothing_up(
    server: Server,
) -> None:
    endpoint = load_endpoint(server.data)
    credentials = endpoint.credentials("external")
    client = await nats.connect(credentials.url, user=credentials.user, password=credentials.password)
    before, _ = unhandled(server)
    good = {"specversion": "1.0", "id": "after-the-rubbish", "source": "test", "type": "nobody.cares"}
    await client.publish("aios.in.main.test.rubbish", b"\xff not an event")
    await client.publish("aios.in.main.test.rubbish", json.dumps({"specversion": "1.0"}).encode())
    await client.publish("aios.in.main.test.nobody", json.dumps(good).encode())
    with pytest.raises(nats.errors.MaxPayloadError):
        await client.publish("aios.in.main.test.rubbish", bytes(client.max_payload + 1))
    await client.flush()
    for _ in patiently():
        if any(event["event_id"] == good["id"] for event in server.json("event", "list")):
            break
    else:
        raise AssertionError("the good event was never taken in")
    count, last = unhandled(server)
    assert count == before + 2
    assert last.startswith("INVALID_ARGUMENT: ")
    assert "aios.in.main.test.rubbish" in last
    await client.close()


@pytest.mark.feature("I4")
async def test_an_approval_that_was_tampered_with_is_refused_and_recorded(server: Server) -> None:
    server.month("tampered", "2026-03")
    server.month("other", "2026-03")
    mine, other = (
        server.aios("run", "start", "monthly-client-report", "--input", f"client={client}", "--input",
            "month=2026-03", "--wait", "--json")
        for client in ("tampered", "other")
    )  # fmt: skip
    run = json.loads(mine.out)["run_id"]
    (approval,) = json.loads(mine.out)["pending_approvals"]
    (foreign,) = json.loads(other.out)["pending_approvals"]
    async with server.client() as api:
        shown = await api.call(api.approvals.GetApproval, api_pb2.GetApprovalRequest(approval_id=approval))
        seen = shown.approval.arguments_sha256

        async def decide(request_id: str, sha256: bytes, identity: str = approval, of: str = run) -> str:
            request = api_pb2.DecideApprovalRequest(
                request_id=request_id,
                approval_id=identity,
                decision=state_pb2.APPROVAL_STATE_APPROVED,
                arguments_sha256=sha256,
            )
            try:
                await api.call(api.approvals.DecideApproval, request)
            except grpc.aio.AioRpcError as error:
                return reason(error)[0]
            return "approved"

        assert await decide("flipped", bytes([seen[0] ^ 1]) + seen[1:]) == "APPROVAL_STALE"
        assert await decide("absent", b"") == "INVALID_ARGUMENT"
        assert await decide("foreign", seen, foreign) == "APPROVAL_STALE"
        assert await decide("right", seen) == "approved"
        assert await decide("right", seen) == "approved", "a repeated click"
    story = json.dumps(server.json("run", "show", run)["timeline"])
    assert story.count("did not count") == 2, story


@contextmanager
def small_disk(place: Path, size: str) -> Iterator[Path]:
    """A file system of its own, small. Skips where none can be mounted."""
    place.mkdir()
    if (
        os.geteuid()
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], check=False
        ).returncode
    ):
        pytest.skip("this user can't mount, so no small disk can be made")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=False)


def publish(served: Served, place: Path, identity: str) -> Any:
    """An event as large as they come."""
    data = place / "event.json"
    data.write_text(json.dumps({"text": "x" * 60_000}))
    return served.aios("event", "publish", "nobody.cares", "--id", identity, "--data", f"@{data}")


async def publish_until_refused(served: Served) -> None:
    """Bare events, which only the bus writes, until it can't and is ended for it."""
    credentials = load_endpoint(served.data).credentials("external")
    client = await nats.connect(
        credentials.url, user=credentials.user, password=credentials.password, allow_reconnect=False
    )
    with contextlib.suppress(nats.errors.Error, ConnectionError):
        for _ in range(100_000):
            await client.publish("aios.in.main.test.filler", bytes(10_000))
            await client.flush()
    assert client.is_closed


@pytest.mark.parametrize("bus_first", [False, True], ids=["the store notices first", "the bus notices first"])
def test_a_disk_that_fills_up_in_the_middle_refuses_loses_nothing_and_goes_on(
    tmp_path: Path, bus_first: bool
) -> None:
    with small_disk(tmp_path / "disk", "96m") as disk, Served(disk) as served:
        run = str(served.aios(*START, "--request-id", "before")["run_id"])
        (gate,) = until_state(served, run)["pending_approvals"]
        filler = disk / "filler"
        subprocess.run(["dd", "if=/dev/zero", f"of={filler}", "bs=4k"], capture_output=True, check=False)
        if bus_first:
            asyncio.run(publish_until_refused(served))
        accepted: list[str] = []
        for number in range(160):  # the log of the store may have room for some yet
            said = publish(served, tmp_path, f"e{number}")
            if "error" in said:
                break
            accepted.append(f"e{number}")
        assert said["error"]["code"] == "DISK_FULL", said
        assert said["error"]["remedy"]
        assert not served.report.exists()
        filler.unlink()
        for _ in patiently():
            again = publish(served, tmp_path, f"e{len(accepted)}")  # the same event, however often it comes
            if "error" not in again:
                break
            assert again["error"]["code"] == "DISK_FULL", "the bus that was ended for it is not back yet"
        assert "error" not in again, again
        listed = {event["event_id"] for event in served.aios("event", "list")}
        assert {*accepted, f"e{len(accepted)}"} <= listed
        served.aios("approval", "approve", gate, "--request-id", "approve")
        assert until_state(served, run, "succeeded", "failed")["state"] == "succeeded"
        check_written(served, run)
        assert served.starts == 1


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("spec: [", "BAD_YAML"),
        ("- x\n" * 200_000, "TOO_LARGE"),
        ("a: " + "[" * 5000, "TOO_DEEP"),
        ("a: &a [1,1]\nb: &b [*a,*a]\nc: [*b,*b]\n", "BAD_YAML"),
    ],
    ids=["broken", "huge", "deep", "laughs"],
)
def test_a_document_that_is_none_applies_nothing(
    server: Server, tmp_path: Path, text: str, code: str
) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("apiVersion: aios/v1\nkind: Workflow\nmetadata: {name: never}\n" + text)
    said = server.aios("apply", str(file), "--json")
    assert said.code == 2
    assert json.loads(said.out)["error"]["code"] == code, said.out[:400]
    assert "never" not in {item["name"] for item in server.json("resource", "list")}
