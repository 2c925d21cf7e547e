"""A simulated broker: streams with a duplicate window, durable consumers that deliver at least once, and its failures.

It promises what JetStream promises and no more, and may lose everything it holds.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Final

from aios_runtime.bus.topology import DUPLICATE_WINDOW_SECONDS, Consumer, consumers
from aios_testing.sim.loop import Call, SimLoop
from aios_testing.sim.record import Record

if TYPE_CHECKING:
    from aios_testing.sim.bus import SimBus

LATENCY: Final = 0.0008  # seconds between a process and the broker, at most twice that
LATE: Final = (
    2.0,
    8.0,
    17.0,
    30.0,
)  # seconds of a message that is delayed, some past the acknowledgement wait
CALM: Final[Mapping[str, float]] = {}  # the rates once the faults have stopped
AGAIN_SECONDS: Final = 3.0  # between two deliveries of a message that is redelivered for ever


@dataclass(slots=True, eq=False)
class Stored:
    """A message of a stream, for one of its consumers."""

    number: int
    subject: str
    data: bytes
    headers: Mapping[str, str]
    deliveries: int = 0
    done: bool = False
    timer: Call | None = None
    for_ever: bool = False


@dataclass(slots=True, eq=False)
class Queue:
    """A durable consumer: what waits, and who fetches."""

    entry: Consumer
    waiting: list[Stored] = field(default_factory=list)
    out: dict[int, Stored] = field(default_factory=dict)
    pulls: list["Pull"] = field(default_factory=list)
    pumping: bool = False


class Pull:
    """Somebody who fetches for a consumer: `room` says how many more it takes, `arrive` brings one."""

    __slots__ = ("arrive", "bus", "room")

    def __init__(self, bus: "SimBus", room: Callable[[], int], arrive: Callable[[Stored, int], None]) -> None:
        self.bus, self.room, self.arrive = bus, room, arrive
        self.bus.pulls.append(self)


class Broker:
    """One broker in all its incarnations."""

    def __init__(self, loop: SimLoop, rng: Random, record: Record, connectors: tuple[str, ...]) -> None:
        self.loop, self.rng, self.record = loop, rng, record
        self.rates: Mapping[str, float] = CALM
        self.away = False
        self.window = DUPLICATE_WINDOW_SECONDS
        self.keeps_ids = False  # when it is wiped: it then remembers ids of messages that it no longer holds
        self.heard: Callable[[str, str, bytes], None] = lambda subject, message_id, data: None
        self.lost = 0  # times that it lost what it held
        self.incarnation = 1
        self.for_ever = 0  # of the next messages so many are redelivered without end, until the faults stop
        self.queues = [Queue(entry) for entry in consumers(connectors)]
        self._filters = [(queue, _prefixes(queue.entry)) for queue in self.queues]
        self._routes: dict[str, list[Queue]] = {}
        self._ids: dict[str, float] = {}
        self._number = 0
        self.buses: list[SimBus] = []

    def draw(self, name: str) -> bool:
        """Whether a fault of this rate happens now."""
        rate = self.rates.get(name)
        if rate is None or self.rng.random() >= rate:
            return False
        self.record.count(name)
        return True

    def latency(self) -> float:
        return LATENCY * (1.0 + self.rng.random())

    def store(self, subject: str, data: bytes, headers: Mapping[str, str], message_id: str) -> bool:
        """Keep a message; False when its id is known. Nobody is told of a message that no consumer wants."""
        now = self.loop.time()
        self.heard(subject, message_id, data)
        if message_id:
            known = self._ids.get(message_id)
            if known is not None and now - known < self.window:
                self.record.count("broker deduplicated")
                return False
            self._ids[message_id] = now
        for queue in self._route(subject):
            self._number += 1
            stored = Stored(self._number, subject, data, headers, for_ever=self.for_ever > 0)
            self.for_ever -= stored.for_ever
            queue.waiting.append(stored)
            self.pump(queue)
        return True

    def _route(self, subject: str) -> list[Queue]:
        found = self._routes.get(subject)
        if found is None:
            found = [queue for queue, match in self._filters if match(subject)]
            self._routes[subject] = found
        return found

    def queue(self, consumer: str) -> Queue:
        """The consumer of this name."""
        return next(queue for queue in self.queues if queue.entry.name == consumer)

    def pump(self, queue: Queue) -> None:
        """Deliver soon what somebody has room for."""
        if not queue.pumping and queue.waiting and queue.pulls:
            queue.pumping = True
            self.loop.call_at(self.loop.time(), self._deliver, queue, context=self.loop.root.context)

    def _deliver(self, queue: Queue) -> None:
        queue.pumping = False
        if self.away:
            return
        ready = [pull for pull in queue.pulls if pull.room() > 0 and pull.bus.linked]
        while queue.waiting and ready:
            pull = ready[int(self.rng.random() * len(ready))] if len(ready) > 1 else ready[0]
            at = 0
            if len(queue.waiting) > 1 and self.draw("reorder"):
                at = int(self.rng.random() * len(queue.waiting))
            stored = queue.waiting.pop(at)
            if stored.done:
                continue
            self._send(queue, pull, stored)
            if pull.room() <= 0:
                ready.remove(pull)

    def _send(self, queue: Queue, pull: Pull, stored: Stored) -> None:
        stored.deliveries += 1
        queue.out[stored.number] = stored
        if stored.deliveries > 1:
            self.record.count("redelivered")
        loop, root = self.loop, self.loop.root
        if stored.timer is not None:
            stored.timer.gone = True
        stored.timer = loop.after(queue.entry.ack_wait, root, self.again, queue, stored)
        if self.draw("lose_delivery"):
            return
        delay = self.latency()
        if self.draw("delay"):
            delay = LATE[int(self.rng.random() * len(LATE))]
        loop.after(delay, root, self._arrive, pull, stored, self.incarnation, stored.deliveries)
        if self.draw("double"):
            loop.after(
                delay + self.latency(), root, self._arrive, pull, stored, self.incarnation, stored.deliveries
            )

    def _arrive(self, pull: Pull, stored: Stored, incarnation: int, deliveries: int) -> None:
        if pull.bus.linked and not self.away and incarnation == self.incarnation and pull.bus.node.alive:
            self.record.transitions += 1
            self.loop.call_soon(pull.arrive, stored, deliveries, context=pull.bus.node.context)

    def again(self, queue: Queue, stored: Stored) -> None:
        """It was not acknowledged in time, or was given back."""
        if queue.out.pop(stored.number, None) is not None and not stored.done:
            queue.waiting.append(stored)
            self.pump(queue)

    def acknowledged(self, queue: Queue, stored: Stored, incarnation: int) -> None:
        """The consumer is done with it."""
        if self.away or incarnation != self.incarnation:
            return
        if stored.for_ever and self.rates is not CALM:
            self.record.count("redelivered although acknowledged")
            if stored.timer is not None:
                stored.timer.gone = True
            stored.timer = self.loop.after(AGAIN_SECONDS, self.loop.root, self.again, queue, stored)
            return
        self.record.transitions += 1
        stored.done = True
        if stored.timer is not None:
            stored.timer.gone = True
        queue.out.pop(stored.number, None)

    def returned(self, queue: Queue, stored: Stored, incarnation: int, delay: float) -> None:
        """The consumer gives it back."""
        if self.away or incarnation != self.incarnation or stored.number not in queue.out:
            return
        if stored.timer is not None:  # given back twice, it comes again once
            stored.timer.gone = True
        stored.timer = self.loop.after(delay, self.loop.root, self.again, queue, stored)

    def renewed(self, queue: Queue, stored: Stored, incarnation: int) -> None:
        """Somebody still works on it."""
        if self.away or incarnation != self.incarnation or stored.number not in queue.out:
            return
        if stored.timer is not None:
            stored.timer.gone = True
        stored.timer = self.loop.after(queue.entry.ack_wait, self.loop.root, self.again, queue, stored)

    def leave(self, *, wipe: bool, purge: bool = False) -> None:
        """The broker is gone. With `wipe` it forgets everything and comes back as another one; with `purge` it loses
        its messages without knowing it, as after a loss of power."""
        self.away = True
        if wipe or purge:
            self.lost += 1
            self.incarnation += wipe
            if wipe and not self.keeps_ids:
                self._ids.clear()
            for queue in self.queues:
                for stored in (*queue.waiting, *queue.out.values()):
                    stored.done = True
                queue.waiting.clear()
                queue.out.clear()
        for bus in self.buses:
            bus.cut()

    def come_back(self) -> None:
        """It serves again; what was out and never acknowledged comes again in its own time."""
        self.away = False
        for bus in self.buses:
            bus.link()
        for queue in self.queues:
            self.pump(queue)

    def forget(self) -> None:
        """Another broker that holds nothing and has seen nothing."""
        self._ids.clear()
        self.leave(wipe=True)
        self.come_back()

    def detach(self, bus: "SimBus") -> None:
        """A process is gone."""
        self.buses = [other for other in self.buses if other is not bus]
        self.fetch_no_more(bus)

    def fetch_no_more(self, bus: "SimBus") -> None:
        """Nothing is delivered to a process from now on."""
        for queue in self.queues:
            queue.pulls = [pull for pull in queue.pulls if pull.bus is not bus]

    @property
    def quiet(self) -> bool:
        """Whether nothing waits and nothing is out."""
        return all(not queue.waiting and not queue.out for queue in self.queues)


def _prefixes(entry: Consumer) -> Callable[[str], bool]:
    """A test for the subjects of a consumer: `*` is one token, `>` the rest."""
    patterns = [pattern.split(".") for pattern in entry.filters]

    def one(pattern: list[str], tokens: list[str]) -> bool:
        for at, part in enumerate(pattern):
            if part == ">":
                return len(tokens) > at
            if at >= len(tokens) or part not in ("*", tokens[at]):
                return False
        return len(tokens) == len(pattern)

    def match(subject: str) -> bool:
        tokens = subject.split(".")
        return any(one(pattern, tokens) for pattern in patterns)

    return match
