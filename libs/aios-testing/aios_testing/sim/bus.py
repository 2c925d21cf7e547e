"""The bus port of one simulated process."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from aios_core.errors import AiosError, RetryableError, TerminalError
from aios_runtime.bus import subjects
from aios_runtime.bus.failures import dead_letter, verdict
from aios_runtime.bus.port import Answer, Batch, Message, Receive
from aios_runtime.bus.replies import fitting, unpack
from aios_runtime.bus.session import check_size
from aios_testing.sim.broker import Broker, Pull, Queue, Stored
from aios_testing.sim.loop import Node

PATIENCE: Final = 1.0  # seconds until a publish into nothing fails
RELINK: Final = 0.05  # seconds until a process sees that the broker is back
SUBSCRIBED_AT_ONCE: Final = 8


class Delivered:
    """A delivery in the hands of a process."""

    __slots__ = ("_incarnation", "_server", "_stored", "deliveries", "settled")

    def __init__(self, server: "Server", stored: Stored, incarnation: int, deliveries: int) -> None:
        self._server, self._stored, self._incarnation = server, stored, incarnation
        self.deliveries = deliveries
        self.settled = False

    @property
    def subject(self) -> str:
        return self._stored.subject

    @property
    def data(self) -> bytes:
        return self._stored.data

    @property
    def headers(self) -> Mapping[str, str]:
        return self._stored.headers

    async def ack(self) -> None:
        self._settle(0.0, back=False)

    async def retry(self, delay: float = 0.0) -> None:
        self._settle(delay, back=True)

    def _settle(self, delay: float, *, back: bool) -> None:
        if self.settled:
            return
        self.settled = True
        bus = self._server.bus
        broker = bus.broker
        self._server.release()
        if not bus.linked or broker.draw("lose_ack"):
            return
        queue, after = self._server.queue, broker.latency()
        if back:
            broker.loop.after(
                after, broker.loop.root, broker.returned, queue, self._stored, self._incarnation, delay
            )
        else:
            broker.loop.after(
                after, broker.loop.root, broker.acknowledged, queue, self._stored, self._incarnation
            )

    async def working(self) -> None:
        bus = self._server.bus
        if not self.settled and bus.linked:
            bus.broker.renewed(self._server.queue, self._stored, self._incarnation)

    async def dead(self, error: AiosError) -> None:
        if self.settled:
            return
        entry = self._server.queue.entry
        letter = dead_letter(self.subject, self.data, self.headers, self.deliveries, error)
        subject = subjects.dead_letter(entry.service, entry.handler)
        await self._server.bus.publish([Message(subject, letter.SerializeToString())])
        self._server.bus.broker.record.tell(f"dead letter {subject} {error.code}")
        self._server.bus.dead.append(f"{subject}: {error}")
        await self.ack()

    def let_go(self) -> None:
        if not self.settled:
            self.settled = True
            self._server.release()


class Server:
    """A handler on a durable consumer."""

    def __init__(
        self, bus: "SimBus", queue: Queue, handler: Batch, batch: int, slots: int, calls: int
    ) -> None:
        self.bus, self.queue = bus, queue
        self._handler, self._batch, self._slots, self._calls = handler, batch, slots, calls
        self._in_hand = 0
        self._running: set[asyncio.Task[None]] = set()
        self._closing = False
        self._waiting: deque[Delivered] = deque()
        self._scheduled = False
        self.pull = Pull(bus, lambda: self._slots - self._in_hand, self._arrived)
        queue.pulls.append(self.pull)
        bus.servers.append(self)

    def release(self) -> None:
        self._in_hand -= 1
        self.bus.broker.pump(self.queue)

    def _arrived(self, stored: Stored, deliveries: int) -> None:
        self._in_hand += 1
        self._waiting.append(Delivered(self, stored, self.bus.broker.incarnation, deliveries))
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._hand_over, context=self.bus.node.context)

    def _hand_over(self) -> None:
        self._scheduled = False
        while self._waiting and len(self._running) < self._calls and not self._closing:
            taken = [self._waiting.popleft() for _ in range(min(self._batch, len(self._waiting)))]
            task = asyncio.get_running_loop().create_task(self._handle(taken))
            self._running.add(task)

    async def close(self, grace: float) -> None:
        """Give back what waits, and let what runs finish within `grace` seconds."""
        self._closing = True
        waiting, self._waiting = list(self._waiting), deque()
        for delivery in waiting:
            await delivery.retry()
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=grace)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _handle(self, deliveries: Sequence[Delivered]) -> None:
        try:
            await self._attempt(deliveries)
        except RetryableError:
            pass  # the bus is gone: what is not settled comes again
        finally:
            for delivery in deliveries:
                delivery.let_go()
            self._running.discard(asyncio.current_task())
            if self._waiting:
                self._schedule()

    async def _attempt(self, deliveries: Sequence[Delivered]) -> None:
        try:
            await self._handler(deliveries)
        except Exception as error:
            if not isinstance(error, AiosError):
                self.bus.broker.loop.defect(self.bus.node, f"handler of {self.queue.entry.name}", error)
            await self._judge([delivery for delivery in deliveries if not delivery.settled], error)

    async def _judge(self, deliveries: Sequence[Delivered], error: Exception) -> None:
        if len(deliveries) > 1 and not isinstance(error, RetryableError):
            for delivery in deliveries:
                await self._attempt([delivery])
            return
        for delivery in deliveries:
            decided = verdict(error, delivery.deliveries)
            if isinstance(decided, AiosError):
                await delivery.dead(decided)
            else:
                await delivery.retry(decided)


class SimBus:
    """What a process says to the others through. `linked` is false while it is cut off."""

    def __init__(self, broker: Broker, node: Node) -> None:
        self.broker, self.node = broker, node
        self.pulls: list[Pull] = []
        self.servers: list[Server] = []
        self._answering: set[asyncio.Task[None]] = set()
        self._closers: list[Callable[[], Awaitable[None]]] = []
        self.partitioned = False
        self.dead: list[str] = []
        self.answers: dict[str, Answer] = {}
        self._listeners: list[Callable[[bool], Awaitable[None]]] = []
        self._seen = broker.incarnation
        self._replies: dict[str, asyncio.Future[bytes]] = {}
        self._tokens = 0
        self._told = 0
        self._arrival = 0.0  # when what was published last reaches the broker: a connection keeps its order
        broker.buses.append(self)

    @property
    def incarnation(self) -> str:
        return str(self._seen)

    @property
    def linked(self) -> bool:
        return not self.partitioned and not self.broker.away and self.node.alive

    async def publish(self, messages: Sequence[Message]) -> None:
        for message in messages:
            check_size(message, message.headers)
        await self._away()
        broker, loop = self.broker, self.broker.loop
        lost = broker.draw("lose_confirmation")
        self._arrival = max(self._arrival, loop.time() + broker.latency())
        for message in messages:
            if broker.draw("lose_message"):
                lost = True
                break  # what comes after it on the same connection is lost with it
            loop.call_at(self._arrival, self._store, message, broker.incarnation, context=loop.root.context)
        await asyncio.sleep(PATIENCE if lost else broker.latency() + self._arrival - loop.time())
        if lost or not self.linked:
            raise RetryableError("BUS_FAILED", "The message bus did not confirm.")

    def _store(self, message: Message, incarnation: int) -> None:
        if not self.broker.away and incarnation == self.broker.incarnation:
            self.broker.record.transitions += 1
            self.broker.store(message.subject, message.data, message.headers, message.message_id)

    async def _away(self) -> None:
        if not self.linked:
            await asyncio.sleep(RELINK)
            raise RetryableError("BUS_FAILED", "There is no message bus.")

    async def command(self, message: Message, timeout: float) -> bytes:
        self._tokens += 1
        token = f"{subjects.inbox(self.node.name)}.{self._tokens}"
        future = self._replies[token] = asyncio.get_running_loop().create_future()
        headers = {**message.headers, subjects.HEADER_REPLY: token}
        try:
            async with asyncio.timeout(timeout):
                while True:
                    try:
                        await self.publish(
                            [Message(message.subject, message.data, message.message_id, headers)]
                        )
                        break
                    except RetryableError:
                        await asyncio.sleep(0.2)
                return unpack(await future)
        except TimeoutError:
            raise RetryableError("DEADLINE_EXCEEDED", f"{message.subject} was not answered.") from None
        finally:
            self._replies.pop(token, None)

    async def ping(self, timeout: float) -> None:
        await self._away()
        await asyncio.sleep(2 * self.broker.latency())
        await self._away()

    async def reply(self, delivery: Delivered, payload: bytes | AiosError) -> None:
        token = delivery.headers.get(subjects.HEADER_REPLY, "")
        if not token or not self.linked or self.broker.draw("lose_answer"):
            return
        data = fitting(token, payload)
        for bus in self.broker.buses:
            if token in bus._replies:
                self.broker.loop.after(self.broker.latency(), bus.node, bus._replied, token, data)

    def _replied(self, token: str, data: bytes) -> None:
        future = self._replies.get(token)
        if future is not None and not future.done() and self.linked:
            future.set_result(data)

    async def ask(
        self, subject: str, data: bytes, timeout: float, headers: Mapping[str, str] | None = None
    ) -> bytes:
        await self._away()
        servers = [bus for bus in self.broker.buses if subject in bus.answers and bus.linked]
        if not servers:
            await asyncio.sleep(self.broker.latency())
            raise RetryableError("UNAVAILABLE", f"Nobody answers {subject} now.", retry_after=0.5)
        server = servers[int(self.broker.rng.random() * len(servers))]
        self._tokens += 1
        token = f"{subjects.inbox(self.node.name)}.{self._tokens}"
        future = self._replies[token] = asyncio.get_running_loop().create_future()
        loop = self.broker.loop
        if not self.broker.draw("lose_answer"):
            loop.after(
                self.broker.latency(), server.node, server._asked, subject, data, headers or {}, self, token
            )
        try:
            async with asyncio.timeout(timeout):
                return unpack(await future)
        except TimeoutError:
            raise RetryableError("DEADLINE_EXCEEDED", f"{subject} was not answered.") from None
        finally:
            self._replies.pop(token, None)

    def _asked(
        self, subject: str, data: bytes, headers: Mapping[str, str], asker: "SimBus", token: str
    ) -> None:
        handler = self.answers.get(subject)
        if self.linked and handler is not None:
            task = self.broker.loop.create_task(self._answer(handler, subject, data, headers, asker, token))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)

    async def _answer(
        self,
        handler: Answer,
        subject: str,
        data: bytes,
        headers: Mapping[str, str],
        asker: "SimBus",
        token: str,
    ) -> None:
        result: bytes | AiosError
        try:
            result = await handler(data, headers)
        except AiosError as error:
            result = error
        except Exception as error:
            self.broker.loop.defect(self.node, f"answer to {subject}", error)
            result = TerminalError("INTERNAL", "a defect")
        if self.linked and asker.linked and not self.broker.draw("lose_answer"):
            self.broker.loop.after(
                self.broker.latency(), asker.node, asker._replied, token, fitting(subject, result)
            )

    async def answer(self, subject: str, handler: Answer, *, queue: str) -> None:
        self.answers[subject] = handler

    async def consume(self, consumer: str, handler: Batch, *, batch: int, slots: int, calls: int = 8) -> None:
        queue = self.broker.queue(consumer)
        Server(self, queue, handler, batch, slots, calls)
        self.broker.pump(queue)

    async def subscribe(self, consumer: str, handler: Receive) -> None:
        async def one(deliveries: Sequence[Delivered]) -> None:
            (delivery,) = deliveries
            await handler(delivery.subject, delivery.data, delivery.headers)
            await delivery.ack()

        await self.consume(consumer, one, batch=1, slots=SUBSCRIBED_AT_ONCE, calls=SUBSCRIBED_AT_ONCE)  # type: ignore[arg-type]

    async def listen(self, subject: str, handler: Callable[[bytes], Awaitable[None]]) -> None:
        raise NotImplementedError("nobody in the simulation listens")

    def on_restart(self, callback: Callable[[bool], Awaitable[None]]) -> None:
        self._listeners.append(callback)

    def on_close(self, callback: Callable[[], Awaitable[None]]) -> None:
        self._closers.append(callback)

    async def drain(self, grace: float = 5.0) -> None:
        closers, self._closers = self._closers, []
        for callback in closers:
            await callback()
        self.answers = {}
        servers, self.servers = self.servers, []
        self.broker.fetch_no_more(self)
        await asyncio.gather(*(server.close(grace) for server in servers))
        if self._answering:
            await asyncio.wait(self._answering, timeout=grace)

    async def close(self, grace: float = 5.0) -> None:
        await self.drain(grace)
        self.broker.detach(self)

    def cut(self) -> None:
        """The connection is lost."""
        self._told += 1

    def link(self) -> None:
        """The broker can be reached again: those who asked for it are told."""
        if not self.linked:
            return
        if self._listeners:
            self.broker.loop.after(RELINK, self.node, self._back, self._told)
        else:  # nobody is there yet who could be told that it is another one
            self._seen = self.broker.incarnation

    def _back(self, told: int) -> None:
        if self.linked and told == self._told:
            self.broker.loop.create_task(self._tell())

    async def _tell(self) -> None:
        wiped, self._seen = self._seen != self.broker.incarnation, self.broker.incarnation
        for callback in self._listeners:
            while True:
                try:
                    await callback(wiped)
                    break
                except RetryableError:
                    await asyncio.sleep(0.5)
