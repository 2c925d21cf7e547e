"""Events that are none, over every door: refused by what is wrong in them, and nothing of them is taken in."""

import json
import subprocess
import sys
from pathlib import Path

import httpx
import nats
import pytest

from aios_runtime.bus.endpoint import load_endpoint
from aios_runtime.cloudevents import STRUCTURED
from tests.drill.kept import patiently
from tests.e2e.test_it_survives import unhandled
from tests.served import Server

ODD = {
    "half": ('{"name": "\\ud800"}', "INVALID_ARGUMENT", "half a character"),
    "a key of half": ('{"\\udfff": 1}', "INVALID_ARGUMENT", "half a character"),
    "broken": ('{"name": ', "INVALID_ARGUMENT", "not readable JSON"),
    "gigabyte": ('{"name": 1e999999999}', "INVALID_ARGUMENT", "digits"),
    "nothing": ('{"name": 1e-999999999}', "INVALID_ARGUMENT", "digits"),
    "beyond": ('{"name": 1e99999999999999999999}', "INVALID_ARGUMENT", "out of range"),
    "long": ('{"name": ' + "9" * 5000 + "}", "INVALID_ARGUMENT", "digits"),
    "no pointer": ('{"name": {"$artifact": "zz"}}', "INVALID_ARGUMENT", "$artifact is a SHA-256"),
    "no size": (
        f'{{"name": {{"$artifact": "{"ab" * 32}", "size": 1{"0" * 20}}}}}',
        "INVALID_ARGUMENT",
        "size",
    ),
    "no bytes": ('{"name": {"$bytes": "!"}}', "INVALID_ARGUMENT", "base64"),
    "deep": ("[" * 10_000 + "]" * 10_000, "TOO_DEEP", "nested"),
    "large": (json.dumps({"name": "x" * 70_000}), "TOO_LARGE", "65536"),
}


def taken_in(server: Server) -> set[str]:
    return {event["event_id"] for event in server.json("event", "list", "--limit", "200")}


@pytest.mark.feature("A2")
@pytest.mark.parametrize("name", ODD)
def test_over_http_data_that_no_value_can_hold_is_refused(server: Server, name: str) -> None:
    data, code, says = ODD[name]
    event = json.dumps(
        {"specversion": "1.0", "id": f"odd-http-{name}", "source": "test", "type": "visitor.came"}
    )
    answer = httpx.post(
        f"{server.http}/v1/events",
        content=f'{event[:-1]}, "data": {data}}}'.encode(),
        headers={"authorization": f"Bearer {server.token}", "content-type": STRUCTURED},
        timeout=10,
    )
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (413 if code == "TOO_LARGE" else 400, code), error
    assert says in error["message"]
    assert error["remedy"]
    assert f"odd-http-{name}" not in taken_in(server)


@pytest.mark.parametrize("name", ODD)
def test_from_the_command_line_it_is_refused_alike(server: Server, name: str, tmp_path: Path) -> None:
    data, code, says = ODD[name]
    file = tmp_path / "data.json"
    file.write_text(data)
    said = server.aios(
        "event", "publish", "visitor.came", "--id", f"odd-cli-{name}", "--data", f"@{file}", "--json"
    )
    error = said.json["error"]
    assert (said.code, error["code"]) == (2, code), error
    assert says in error["message"]
    assert error["remedy"]
    assert f"odd-cli-{name}" not in taken_in(server)


async def test_over_nats_each_is_kept_with_its_reason_and_holds_up_no_good_one(server: Server) -> None:
    endpoint = load_endpoint(server.data)
    credentials = endpoint.credentials("external")
    client = await nats.connect(credentials.url, user=credentials.user, password=credentials.password)
    attributes = {"ce-specversion": "1.0", "ce-source": "test", "ce-type": "visitor.came"}
    for number, (name, (data, code, says)) in enumerate(ODD.items()):
        before, _ = unhandled(server)
        good = f"good-after-{name}".replace(" ", "-")
        odd = {**attributes, "ce-id": f"odd-nats-{number}"}
        await client.publish("aios.in.main.test.odd", data.encode(), headers=odd)
        right = {**attributes, "ce-id": good}
        await client.publish("aios.in.main.test.good", b'{"name": "Ada"}', headers=right)
        await client.flush()
        for _ in patiently():
            if good in taken_in(server):
                break
        else:
            raise AssertionError(f"{good} was held up")
        count, last = unhandled(server)
        assert count == before + 1, name
        assert last.startswith(f"{code}: "), last
        assert says in last
        assert "aios.in.main.test.odd" in last
        assert f"odd-nats-{number}" not in taken_in(server)
    await client.close()


@pytest.mark.parametrize("size", [240_000, 1_048_000, 1_100_000, 5_000_000])
def test_however_much_too_large_an_event_is_it_is_told_so_and_not_to_try_again(
    server: Server, size: int, tmp_path: Path
) -> None:
    file = tmp_path / "data.json"
    file.write_text(json.dumps("x" * size))
    said = server.aios("event", "publish", "visitor.came", "--data", f"@{file}", "--json")
    assert (said.code, said.json["error"]["code"]) == (2, "TOO_LARGE")


def test_more_than_the_wire_takes_is_too_large_and_not_unavailable(server: Server) -> None:
    said = server.aios("event", "publish", "visitor.came", "--data", json.dumps("x" * 1_200_000), "--json")
    assert (said.code, said.json["error"]["code"]) == (2, "TOO_LARGE")


def test_an_argument_in_another_encoding_is_wrong_usage_without_a_trace(server: Server) -> None:
    for words in (
        ["event", "publish", "visitor.came", "--data", b"\xff"],
        ["run", "start", "greet", "--input", b"name=Andr\xe9"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "aios_cli", "--data-dir", str(server.data), *words, "--json"],
            capture_output=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 2
        assert "UTF-8" in json.loads(done.stdout)["error"]["message"]
        assert done.stderr == b""
