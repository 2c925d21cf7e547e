"""What each bus identity may do, as the server enforces it."""

import asyncio

import nats
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.errors import NotFoundError

from aios_core.errors import AiosError, TerminalError
from aios_runtime.bus import subjects
from aios_runtime.bus.connection import NatsBus
from aios_runtime.bus.permissions import EXTERNAL, identities, permissions
from aios_runtime.bus.port import Message
from aios_runtime.bus.topology import DEFAULT_CONNECTORS
from tests.bus.serving import Connect, Server

DECIDE = subjects.run_command("decide_approval", "main", 0)
START = subjects.run_command("start_run", "main", 0)
REPORT = subjects.report_outcomes("main", 0)
PASSED_ON = subjects.passed_on("report_outcomes", "main", "replica-1")
TASK = subjects.perform("main", "connector-files")

FORBIDDEN = [
    *((who, DECIDE) for who in ("agent-runner", "memory", "connector-files")),
    *((who, START) for who in ("agent-runner", "memory", "connector-files")),
    *((who, TASK) for who in ("agent-runner", "memory", "connector-files", "gateway")),
    *(
        (who, subjects.run_events("main", 0))
        for who in ("agent-runner", "memory", "connector-files", "gateway")
    ),
    ("gateway", REPORT),
    *((who, PASSED_ON) for who in ("agent-runner", "memory", "connector-files", "gateway")),
    ("agent-runner", subjects.dead_letter("memory", "perform")),
    ("connector-files", subjects.external("main", "mail", "received")),
]


@pytest.mark.parametrize(("who", "subject"), FORBIDDEN)
async def test_a_service_can_not_say_what_is_not_its_to_say(
    orchestrator: NatsBus, connect: Connect, who: str, subject: str
) -> None:
    bus = await connect(who)
    async with asyncio.timeout(3):  # it is told so, and does not wait for a time-out
        with pytest.raises(TerminalError) as caught:
            await bus.publish([Message(subject, b"")])
    assert caught.value.code == "PERMISSION_DENIED"


ALLOWED = [
    ("gateway", DECIDE),
    ("gateway", START),
    ("orchestrator", TASK),
    ("orchestrator", subjects.run_events("main", 0)),
    *((who, REPORT) for who in ("agent-runner", "memory", "connector-files")),
    ("connector-files", subjects.external("main", "files", "folder.settled")),
    *((who, subjects.dead_letter(who, "perform")) for who in ("agent-runner", "memory", "connector-files")),
]


@pytest.mark.parametrize(("who", "subject"), ALLOWED)
async def test_a_service_can_say_what_is_its_to_say(
    orchestrator: NatsBus, connect: Connect, who: str, subject: str
) -> None:
    bus = orchestrator if who == "orchestrator" else await connect(who)
    await bus.publish([Message(subject, b"")])


@pytest.mark.parametrize("who", ["agent-runner", "memory", "connector-files", "gateway", "external"])
async def test_only_the_orchestrator_makes_streams_and_consumers(
    server: Server, orchestrator: NatsBus, who: str
) -> None:
    """A stream that republishes, or a consumer that delivers anywhere, would get round every other permission."""
    client = await raw(server, who)
    js = client.jetstream(timeout=0.3)
    for attempt in (
        js.add_stream(name="X", subjects=["x.>"]),
        js.add_consumer(subjects.STREAM_IN, deliver_subject=DECIDE, durable_name="x"),
        js.delete_stream(subjects.STREAM_CMD),
        js.purge_stream(subjects.STREAM_CMD),
    ):
        with pytest.raises(NatsError):
            await attempt
    await client.close()
    manager = await raw(server, "orchestrator")
    with pytest.raises(NotFoundError):
        await manager.jetstream().stream_info("X")
    with pytest.raises(NotFoundError):
        await manager.jetstream().consumer_info(subjects.STREAM_IN, "x")
    await manager.close()


async def test_the_outside_may_hand_in_events_and_nothing_else(server: Server, orchestrator: NatsBus) -> None:
    client = await raw(server, "external")
    ack = await client.jetstream().publish(subjects.external("main", "shop", "order.paid"), b"{}")
    assert ack.stream == subjects.STREAM_IN
    for subject in (
        START,
        DECIDE,
        REPORT,
        subjects.query("run", "get_run", "main"),
        "aios.inbox.gateway.x.1",
    ):
        with pytest.raises(NatsError):
            await client.request(subject, b"", timeout=0.2)
    await client.close()


async def test_nobody_hears_the_answers_for_another(
    server: Server, orchestrator: NatsBus, connect: Connect
) -> None:
    gateway = await connect("gateway")
    client = await raw(server, "external")
    heard: list[bytes] = []

    async def hear(message: Msg) -> None:
        heard.append(message.data)

    for subject in (">", "aios.inbox.>", "aios.inbox.gateway.>", "aios.cmd.>"):
        await client.subscribe(subject, cb=hear)
    await client.flush()
    await client.flush()

    async def handle(data: bytes, headers: object) -> bytes:
        return b"secret"

    subject = subjects.query("run", "get_run", "main")
    await orchestrator.answer(subject, handle, queue="orchestrator")
    assert await gateway.ask(subject, b"", 5) == b"secret"
    await client.flush()
    await client.flush()
    assert heard == []
    await client.close()


async def test_a_command_can_not_make_the_orchestrator_speak_elsewhere(
    orchestrator: NatsBus, connect: Connect
) -> None:
    gateway = await connect("gateway")
    heard: list[bytes] = []
    done = asyncio.Event()

    async def hear(data: bytes) -> None:
        heard.append(data)

    async def handle(deliveries: object) -> None:
        for delivery in deliveries:  # type: ignore[attr-defined]
            await orchestrator.reply(delivery, b"yes")
            await delivery.ack()
        done.set()

    await gateway.listen("aios.evt.>", hear)
    await orchestrator.consume("orchestrator__commands", handle, batch=1, slots=1)
    await gateway.publish(
        [Message(START, b"", headers={subjects.HEADER_REPLY: subjects.run_events("main", 0)})]
    )
    await done.wait()
    await orchestrator.publish([Message(subjects.run_events("main", 1), b"end")])
    async with asyncio.timeout(5):
        while not heard:
            await asyncio.sleep(0.01)
    assert heard == [b"end"]


def test_no_two_identities_share_an_inbox() -> None:
    names = identities(DEFAULT_CONNECTORS)
    inboxes = [
        subject
        for name in names
        for subject in permissions(name, DEFAULT_CONNECTORS).subscribe
        if "inbox" in subject.lower()
    ]
    assert len(inboxes) == len(set(inboxes)) == len(names)


async def test_a_denial_does_not_cost_the_connection(orchestrator: NatsBus, connect: Connect) -> None:
    agent = await connect("agent-runner")
    with pytest.raises(AiosError):
        await agent.publish([Message(DECIDE, b"")])
    await agent.publish([Message(REPORT, b"")])


async def raw(server: Server, who: str) -> Client:
    async def ignore(error: Exception) -> None:
        pass

    credentials = server.endpoint.credentials(who)
    inbox = "_INBOX" if who == EXTERNAL else subjects.inbox(who)
    return await nats.connect(
        credentials.url, user=who, password=credentials.password, error_cb=ignore, inbox_prefix=inbox
    )
