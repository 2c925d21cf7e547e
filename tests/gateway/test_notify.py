"""What begins to need a person is told by a webhook: signed, once under one id, through failures and crashes."""

import asyncio
import base64
import hashlib
import hmac
import json
import socket
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aios.run.v1.state_pb2 import Approval, ApprovalKind, Failure, RunHead
from aios_core.errors import RetryableError, TerminalError
from aios_gateway.notify import notifier as notifying
from aios_gateway.notify import sending
from aios_gateway.notify.book import Book, Webhook
from aios_gateway.notify.needs import MAX_TITLE_CHARS, Need, needs
from aios_gateway.notify.notifier import CLAIM_MS, MAX_ATTEMPTS, Notifier
from aios_runtime.store.port import Store
from aios_runtime.store.sqlite import open_store
from tests.gateway.receiver import Received, Receiver
from tests.served import Server

pytestmark = pytest.mark.feature("J2")

SECRET = "whsec_" + base64.b64encode(b"a secret of thirty-two bytes, yes").decode()
NEED = Need("apr_1", "approval", "Send it", "run_1", "mail", "aios approval show apr_1")


def signature(received: Received, secret: str = SECRET) -> str:
    """As a receiver computes it, by the rules of Standard Webhooks."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    content = f"{received.headers['webhook-id']}.{received.headers['webhook-timestamp']}.".encode()
    return "v1," + base64.b64encode(hmac.new(key, content + received.body, hashlib.sha256).digest()).decode()


class Clock:
    def __init__(self) -> None:
        self.now = 1_790_000_000_000

    def __call__(self) -> int:
        return self.now


class World:
    """A notifier over a real store. `found` are the needs of now."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self.clock, self.store = clock, store
        self.found: list[Need] = []
        self.complete = True
        self.book = Book(store, "main", clock)

    def notifier(self) -> Notifier:
        async def ask() -> tuple[Sequence[Need], bool]:
            return self.found, self.complete

        return Notifier(self.book, ask, self.clock, lambda: 0.5)

    async def point_to(self, url: str) -> None:
        secret = sending.check_secret(SECRET)
        await self.book.set(
            Webhook(url=url, secret=secret, allow_private=True, set_by="person:owner", set_time_ms=1)
        )

    async def told(self, name: str = "apr_1") -> Any:
        return (await self.book.all())[name][1]


@pytest.fixture
async def kept(tmp_path: Path) -> Any:
    clock = Clock()
    store = await open_store(tmp_path / "gateway.db", service="gateway", now_ms=clock)
    try:
        yield World(store, clock)
    finally:
        await store.close()


async def test_a_need_is_told_once_and_signed(kept: World) -> None:
    with Receiver() as receiver:
        await kept.point_to(receiver.url)
        kept.found = [NEED]
        for _ in range(3):  # also after a start
            one = kept.notifier()
            await one.look()
            await one.send()
        got = receiver.next()
        assert receiver.quiet
    assert got.path == "/hook?of=me"
    assert got.headers["host"] == f"127.0.0.1:{receiver.port}"
    assert got.headers["webhook-signature"] == signature(got)
    assert got.headers["webhook-id"] == got.headers["idempotency-key"] == "apr_1"
    said = json.loads(got.body)
    assert said["type"] == "needs_person"
    assert said["data"]["command"] == "aios approval show apr_1"
    assert (await kept.told()).state == "delivered"


async def test_what_fails_is_tried_again_later_and_holds_up_nothing(kept: World) -> None:
    with Receiver() as receiver:
        receiver.answers.extend([500, 204])
        await kept.point_to(receiver.url)
        kept.found = [NEED]
        one = kept.notifier()
        await one.look()
        await one.send()
        kept.found = [NEED, replace(NEED, id="apr_2")]
        await one.look()
        await one.send()
        assert [receiver.next().headers["webhook-id"] for _ in range(2)] == ["apr_1", "apr_2"]
        told = await kept.told()
        assert (told.state, told.attempts, told.last_error) == ("pending", 1, "127.0.0.1 answered 500.")
        kept.clock.now += notifying.BACKOFF_MS[0] - 1
        await one.send()
        assert receiver.quiet
        kept.clock.now += 1
        await one.send()
        assert receiver.next().headers["webhook-id"] == "apr_1"
        assert (await kept.told()).state == "delivered"


async def test_after_days_it_is_given_up_said_so_and_sent_again_when_it_is_set_anew(kept: World) -> None:
    with Receiver() as receiver:
        receiver.answers.extend([503] * 200)
        await kept.point_to(receiver.url)
        kept.found = [NEED]
        one = kept.notifier()
        await one.look()
        began = kept.clock.now
        while (due := await kept.book.next_due()) is not None:
            kept.clock.now = due
            await one.send()
        assert 71 <= (kept.clock.now - began) / 3_600_000 <= 73
        told = await kept.told()
        assert (told.state, told.attempts) == ("undeliverable", MAX_ATTEMPTS)
        await kept.book.again()
        await one.send()
        told = await kept.told()
        assert (told.state, told.attempts) == ("pending", 1)  # it has all its attempts once more
        receiver.answers.clear()
        await kept.book.again()
        await one.send()
        assert (await kept.told()).state == "delivered"


async def test_one_that_dies_while_it_sends_is_followed_by_one_that_sends_the_same(
    kept: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Receiver() as receiver:
        await kept.point_to(receiver.url)
        kept.found = [NEED]
        one = kept.notifier()
        await one.look()
        post = sending.post

        async def dies(*given: Any) -> None:
            await post(*given)
            raise asyncio.CancelledError  # it arrived; that it did is not written down

        with monkeypatch.context() as patched:
            patched.setattr(sending, "post", dies)
            with pytest.raises(asyncio.CancelledError):
                await one.send()
        first = receiver.next()
        other = kept.notifier()
        await other.send()
        assert receiver.quiet  # it may still be under way
        kept.clock.now += CLAIM_MS
        await other.send()
        again = receiver.next()
        assert again.headers["webhook-id"] == first.headers["webhook-id"]
        assert json.loads(again.body) == json.loads(first.body)


async def test_one_that_answers_slowly_does_not_keep_new_needs_from_being_seen(kept: World) -> None:
    with Receiver() as receiver:
        await kept.point_to(receiver.url)
        kept.found = [replace(NEED, id=f"apr_{number}") for number in range(notifying.AT_ONCE + 1)]
        one = kept.notifier()
        await one.look()
        await one.send()
        states = [told.state for _, told in (await kept.book.all()).values()]
        assert states.count("pending") == 1  # between two sendings it is looked again
        assert await kept.book.next_due() == kept.clock.now


def test_the_secret_stands_in_no_text_of_the_webhook() -> None:
    webhook = Webhook(url="https://x", secret="kept", allow_private=False, set_by="me", set_time_ms=1)
    assert "kept" not in f"{webhook} {webhook!r}"


async def test_of_two_gateways_one_sends(kept: World) -> None:
    with Receiver() as receiver:
        await kept.point_to(receiver.url)
        kept.found = [NEED]
        one, other = kept.notifier(), kept.notifier()
        await asyncio.gather(one.look(), other.look())
        await asyncio.gather(one.send(), other.send())
        receiver.next()
        assert receiver.quiet


async def test_what_is_over_is_forgotten_unless_the_list_was_not_whole(kept: World) -> None:
    kept.found = [NEED]
    one = kept.notifier()
    await one.look()
    kept.found, kept.complete = [], False
    await one.look()
    assert list(await kept.book.all()) == ["apr_1"]
    kept.complete = True
    await one.look()
    assert await kept.book.all() == {}


async def test_a_redirect_is_not_followed(kept: World) -> None:
    with Receiver() as receiver, Receiver() as elsewhere:
        receiver.answers.append(307)
        receiver.location = elsewhere.url
        await kept.point_to(receiver.url)
        kept.found = [NEED]
        one = kept.notifier()
        await one.look()
        await one.send()
        receiver.next()
        assert elsewhere.quiet
        told = await kept.told()
        assert (told.state, told.last_error) == (
            "undeliverable",
            "127.0.0.1 redirects (307); give the address it redirects to.",
        )


async def test_the_address_that_was_looked_at_is_the_one_that_is_called(
    kept: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    asked: list[str] = []

    async def changing(host: str, port: int, **_: object) -> list[Any]:
        asked.append(host)
        address = "127.0.0.1" if len(asked) == 1 else "203.0.113.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(loop, "getaddrinfo", changing)
    with Receiver() as receiver:
        await kept.point_to(receiver.url.replace("127.0.0.1", "hook.test"))
        kept.found = [NEED]
        one = kept.notifier()
        await one.look()
        await one.send()
        assert receiver.next().headers["host"] == f"hook.test:{receiver.port}"
    assert asked[0] == "hook.test"


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0", "100.64.0.1",
        "224.0.0.1", "255.255.255.255", "::1", "fe80::1", "fc00::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
        "2002:7f00:1::", "64:ff9b::7f00:1",
    ],
)  # fmt: skip
async def test_addresses_of_the_own_network_are_refused(address: str) -> None:
    with pytest.raises(TerminalError) as refused:
        await sending.resolve(address, 443, allow_private=False)
    assert refused.value.code == "INVALID_ARGUMENT"
    assert refused.value.details["field"] == "url"
    assert "--allow-private" in refused.value.message


async def test_public_addresses_are_taken_and_unknown_names_tried_again_later() -> None:
    assert await sending.resolve("8.8.8.8", 443, allow_private=False) == "8.8.8.8"
    with pytest.raises(RetryableError):
        await sending.resolve("no-such-host.invalid", 443, allow_private=False)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://example.com", "needs to be like https"),
        ("https://", "needs to be like https"),
        ("example.com", "needs to be like https"),
        ("https://example.com:99999/", "needs to be like https"),
        ("https://[::1", "needs to be like https"),
        ("http://example.com/", "needs to be https"),
        ("https://user:word@example.com/", "must not have a user or password"),
        ("https://example.com/#part", "must not have a fragment"),
        ("https://example.com/a b", "printable ASCII"),
        ("https://exämple.com/", "printable ASCII"),
        ("https://example.com/" + "x" * 2000, "at most 2000"),
    ],
)
def test_urls_that_can_not_be_called_are_refused(url: str, said: str) -> None:
    with pytest.raises(TerminalError, match=said) as refused:
        sending.check_url(url, allow_private=False)
    assert refused.value.details["field"] == "url"


@pytest.mark.parametrize(
    "secret", ["short", "whsec_not-base64!", "whsec_" + base64.b64encode(b"x" * 65).decode()]
)
def test_secrets_that_prove_nothing_are_refused(secret: str) -> None:
    with pytest.raises(TerminalError, match="24 to 64 bytes"):
        sending.check_secret(secret)


def test_a_need_has_an_id_for_each_time_that_it_needs_somebody() -> None:
    approval = Approval(
        approval_id="apr_1", title="Send\nit\x1b[2J " + "x" * 300, run_id="run_1", workflow="mail"
    )
    unknown = Approval(approval_id="apr_2", kind=ApprovalKind.APPROVAL_KIND_UNKNOWN, step="pay", reminders=2)
    failure = Failure(run_id="run_2", step="read", time_ms=7)
    failure.error.message = "No such folder."
    found = needs([approval, unknown], [failure], [RunHead(run_id="run_3", workflow="mail", late_time_ms=9)])
    assert [(need.id, need.kind) for need in found] == [
        ("apr_1", "approval"),
        ("apr_2.2", "unknown"),
        ("run_2.failed.7", "failure"),
        ("run_3.late.9", "late"),
    ]
    assert found[0].title.startswith("Send it [2J x")
    assert len(found[0].title) == MAX_TITLE_CHARS
    assert found[2].title == "read: No such folder."


def test_a_person_sets_tries_and_ends_it_and_is_told_of_an_approval(server: Server, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(SECRET + "\n")
    private = server.aios("notify", "set", "https://127.0.0.1/", "--secret-file", str(secret), "--json")
    assert private.json["error"]["code"] == "INVALID_ARGUMENT"
    assert server.json("notify", "show") is None
    assert server.aios("notify", "test", "--json").json["error"]["code"] == "NOT_FOUND"
    with Receiver() as receiver:
        shown = server.json("notify", "set", receiver.url, "--secret-file", str(secret), "--allow-private")
        assert shown["url"] == receiver.url
        assert server.json("notify", "test") == {"delivered": True, "error": None}
        tested = receiver.next()
        while json.loads(tested.body)["type"] != "test":  # what other tests have left needs somebody as well
            tested = receiver.next()
        assert tested.headers["webhook-signature"] == signature(tested)
        run = server.json("run", "start", "ask-first", "-i", "name=Ada")["run_id"]
        while (told := json.loads(receiver.next().body)["data"]).get("run_id") != run:
            pass
        assert (told["kind"], told["title"], told["workflow"]) == ("approval", "Remember Ada", "ask-first")
        for said in (
            server.aios("notify", "show"),
            server.aios("notify", "show", "--json"),
            server.aios("--json"),
        ):
            assert SECRET not in said.out
            assert said.code == 0
        server.json("approval", "reject", told["id"])
    assert server.aios("notify", "test", "--json").code == 1
    assert server.json("notify", "off") is None
    assert server.json("notify", "show") is None
    logs = [file.read_text() for file in (server.data / "logs").iterdir()]
    assert not any("hook?of=me" in log for log in logs)
    assert not any(SECRET in log or SECRET.removeprefix("whsec_") in log for log in logs)


def test_without_a_secret_one_is_made_and_shown_once(server: Server) -> None:
    with Receiver() as receiver:
        made = server.json("notify", "set", receiver.url, "--allow-private")["secret"]
        assert server.json("notify", "test")["delivered"]
        got = receiver.next()
        while json.loads(got.body)["type"] != "test":
            got = receiver.next()
        assert got.headers["webhook-signature"] == signature(got, made)
        assert "secret" not in server.json("notify", "show")
        server.json("notify", "off")
