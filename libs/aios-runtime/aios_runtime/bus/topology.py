"""Streams and durable consumers: their names, bounds and settings in one table, and how they are made.

The stores hold the truth, so a stream may be lost at any time; its incarnation says that it was.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js import JetStreamContext
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DeliverPolicy,
    DiscardPolicy,
    RetentionPolicy,
    StorageType,
    StreamConfig,
    StreamInfo,
)
from nats.js.errors import APIError, NotFoundError, ServiceUnavailableError

from aios_core.errors import RetryableError, TerminalError
from aios_runtime.bus import subjects
from aios_runtime.bus.subjects import STREAM_CMD, STREAM_DLQ, STREAM_EVT, STREAM_IN

log = logging.getLogger("aios.bus")

TOPOLOGY_OWNER: Final = (
    "orchestrator"  # the one service that makes streams and consumers; the others wait for them
)
DEFAULT_CONNECTORS: Final = ("files",)

MEGABYTE: Final = 1024 * 1024
SERVER_MAX_PAYLOAD_BYTES: Final = (
    288 * 1024
)  # a message of MAX_MESSAGE_BYTES still fits as a dead letter around it
# Ids that the broker remembers cost it memory, and a dispatch number makes ids differ anyhow: only quick repeats.
DUPLICATE_WINDOW_SECONDS: Final = 10.0
# How long after a worker's death its messages come again. A worker renews it with heartbeats three times as often.
ACK_WAIT_SECONDS: Final = 15.0
FETCH_SECONDS: Final = 60.0
# Another replica of the orchestrator decides within seconds when one is gone; what that one had must come by then, too.
DECIDER_ACK_WAIT_SECONDS: Final = 3.0
DECIDER_FETCH_SECONDS: Final = 2.0
MAX_ACK_PENDING_MESSAGES: Final = 4096
MAX_WAITING_PULLS: Final = 512  # replicas of a service that wait at once
ATTEMPTS: Final = 20
ATTEMPT_SECONDS: Final = 0.25
API_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Stream:
    """A stream and its bounds. `refuse_when_full`: publishers get an error; otherwise the oldest messages go."""

    name: str
    subjects: tuple[str, ...]
    max_bytes: int
    max_age_seconds: float
    work_queue: bool = False
    refuse_when_full: bool = False


@dataclass(frozen=True, slots=True)
class Consumer:
    """A durable pull consumer. It redelivers without end: who handles it decides what is poison."""

    service: str
    handler: str
    stream: str
    filters: tuple[str, ...]
    ack_wait: float = ACK_WAIT_SECONDS
    fetch: float = FETCH_SECONDS
    """Seconds for which a fetch waits at the server: so long one that is frozen or cut off is still given messages."""

    @property
    def name(self) -> str:
        return subjects.consumer(self.service, self.handler)


DAY: Final = 24 * 3600.0

STREAMS: Final = (
    # What is refused stays in the sender's outbox.
    Stream(STREAM_CMD, ("aios.cmd.>",), 1024 * MEGABYTE, 0, work_queue=True, refuse_when_full=True),
    # News of what was committed; who misses some reads it from the owner.
    Stream(STREAM_EVT, ("aios.evt.>",), 256 * MEGABYTE, DAY),
    Stream(STREAM_IN, ("aios.in.>",), 512 * MEGABYTE, 7 * DAY),
    Stream(STREAM_DLQ, ("aios.dlq.>",), 256 * MEGABYTE, 30 * DAY),
)


def lane_consumer(service: str, lane: str) -> Consumer:
    """The consumer of a work lane, in every workspace and priority."""
    return Consumer(service, "perform", STREAM_CMD, (subjects.perform("*", lane).rsplit(".", 1)[0] + ".*",))


def consumers(connectors: Sequence[str] = DEFAULT_CONNECTORS) -> tuple[Consumer, ...]:
    """Every durable consumer. On a work queue no two filters may overlap."""
    return (
        Consumer(
            "orchestrator",
            "report_outcomes",
            STREAM_CMD,
            ("aios.cmd.run.v1.report_outcomes.>",),
            DECIDER_ACK_WAIT_SECONDS,
            DECIDER_FETCH_SECONDS,
        ),
        Consumer(
            "orchestrator",
            "commands",
            STREAM_CMD,
            (
                "aios.cmd.run.v1.start_run.>",
                "aios.cmd.run.v1.start_runs.>",
                "aios.cmd.run.v1.cancel_run.>",
                "aios.cmd.run.v1.undo_run.>",
                "aios.cmd.run.v1.redo_run.>",
                "aios.cmd.run.v1.recover_run.>",
                "aios.cmd.run.v1.migrate_run.>",
                "aios.cmd.run.v1.decide_approval.>",
                "aios.cmd.run.v1.edit_approval.>",
                "aios.cmd.resource.v1.>",
            ),
            DECIDER_ACK_WAIT_SECONDS,
            DECIDER_FETCH_SECONDS,
        ),
        Consumer("orchestrator", "intake", STREAM_IN, ("aios.in.>",)),
        lane_consumer("agent-runner", subjects.LANE_AGENT),
        lane_consumer("memory", subjects.LANE_MEMORY),
        Consumer("memory", "commands", STREAM_CMD, ("aios.cmd.memory.v1.>",)),
        Consumer("memory", "run_events", STREAM_EVT, ("aios.evt.run.v1.filed.>",)),
        *(lane_consumer(subjects.connector_lane(name), subjects.connector_lane(name)) for name in connectors),
    )


def stream_config(stream: Stream, replicas: int = 1) -> StreamConfig:
    """The stream as the server takes it."""
    return StreamConfig(
        name=stream.name,
        subjects=list(stream.subjects),
        retention=RetentionPolicy.WORK_QUEUE if stream.work_queue else RetentionPolicy.LIMITS,
        discard=DiscardPolicy.NEW if stream.refuse_when_full else DiscardPolicy.OLD,
        storage=StorageType.FILE,
        max_bytes=stream.max_bytes,
        max_age=stream.max_age_seconds,
        max_msg_size=SERVER_MAX_PAYLOAD_BYTES,
        duplicate_window=DUPLICATE_WINDOW_SECONDS,
        num_replicas=replicas,
        deny_delete=False,
        allow_direct=False,
    )


def consumer_config(consumer: Consumer) -> ConsumerConfig:
    """The consumer as the server takes it."""
    single = len(consumer.filters) == 1
    return ConsumerConfig(
        name=consumer.name,
        durable_name=consumer.name,
        ack_policy=AckPolicy.EXPLICIT,
        deliver_policy=DeliverPolicy.ALL,
        ack_wait=consumer.ack_wait,
        max_deliver=-1,
        max_ack_pending=MAX_ACK_PENDING_MESSAGES,
        max_waiting=MAX_WAITING_PULLS,
        filter_subject=consumer.filters[0] if single else None,
        filter_subjects=None if single else list(consumer.filters),
    )


async def declare(js: JetStreamContext, connectors: Sequence[str], replicas: int = 1) -> None:
    """Make, or bring up to date, every stream and consumer. Several may call it at once, and again.

    Raises BUS_FAILED: retryable when the server can't do it now, terminal when it refuses the configuration.
    """
    for stream in STREAMS:
        await _insist(partial(_declare_stream, js, stream_config(stream, replicas)))
    for consumer in consumers(connectors):
        await _insist(partial(_declare_consumer, js, consumer))


async def incarnation(js: JetStreamContext) -> str:
    """What the broker is now: it changes when any stream was lost and made again. Empty while one is missing.

    It is made of the streams' creation times, which the server stores with the streams themselves.
    """
    try:
        infos = await asyncio.gather(*(js.stream_info(stream.name) for stream in STREAMS))
    except (NotFoundError, ServiceUnavailableError, NoRespondersError):
        return ""
    return ";".join(_created(info) for info in infos)


def _created(info: StreamInfo) -> str:
    return f"{info.config.name}@{info.created.isoformat() if info.created else ''}"


async def _insist(make: Callable[[], Awaitable[None]]) -> None:
    """A server that has just started, or is electing a leader, refuses for a moment."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            await make()
            return
        except (APIError, NatsTimeoutError, NoRespondersError) as error:
            passing = not isinstance(error, APIError) or error.code is None or error.code >= 500
            if not passing:
                raise TerminalError(
                    "BUS_FAILED", f"The message bus refuses AIOS's configuration: {error}."
                ) from error
            if attempt == ATTEMPTS:
                raise RetryableError(
                    "BUS_FAILED", f"The message bus can't be set up now: {error}."
                ) from error
            await asyncio.sleep(ATTEMPT_SECONDS)


async def _declare_stream(js: JetStreamContext, config: StreamConfig) -> None:
    try:
        # To ask first costs a round trip, and spares the server a race: of two who make the same stream at once, both
        # reserve its bytes, and the loser's stay reserved until the server is restarted.
        await js.stream_info(str(config.name))
        await js.update_stream(config)
    except NotFoundError:
        await js.add_stream(config)


async def _declare_consumer(js: JetStreamContext, consumer: Consumer) -> None:
    """A consumer that is ahead of its stream is that of a stream that was lost: it would pass over all that comes, up
    to where it was. It is made anew."""
    info = await js.add_consumer(consumer.stream, consumer_config(consumer))
    reached = info.delivered.stream_seq if info.delivered else 0
    if reached and reached > (await js.stream_info(consumer.stream)).state.last_seq:
        log.warning(
            "a consumer of the bus is ahead of its stream; it is made anew", extra={"consumer": consumer.name}
        )
        await js.delete_consumer(consumer.stream, consumer.name)
        await js.add_consumer(consumer.stream, consumer_config(consumer))
