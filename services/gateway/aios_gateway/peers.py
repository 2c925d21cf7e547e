"""The services that decide and remember, as the gateway sees them: messages in, messages out."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from google.protobuf.message import Message as Proto

from aios_core.errors import RetryableError, TerminalError
from aios_core.ids import partition_of_run
from aios_gateway.settings import MAX_REQUEST_BYTES
from aios_gateway.tokens import Identity
from aios_runtime.bus import subjects
from aios_runtime.bus.port import Bus, Message

# For an answer, before another replica is asked; then all the time that is left.
PATIENCE_S: Final = (0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 1.0, 2.0, 4.0)
PAUSE_S: Final = 0.1  # before asking again where nobody could answer

Answer = TypeVar("Answer", bound=Proto)


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a client: who, in which trace, and until when (`deadline`, in seconds of the loop's clock)."""

    identity: Identity
    traceparent: str
    deadline: float
    bus: Bus
    part_s: float = 0.0
    patience_s: Sequence[float] = ()
    """How long to wait for an answer, try by try, before the question is asked again; then all the time that is left.
    Empty where nobody else could answer."""

    @property
    def workspace(self) -> str:
        return self.identity.workspace

    @property
    def timeout(self) -> float:
        """Seconds that are left. Raises DEADLINE_EXCEEDED when none are."""
        left = self.deadline - _now()
        if left <= 0:
            raise RetryableError("DEADLINE_EXCEEDED", "The call's deadline has passed.")
        return left

    def parted(self, seconds: float) -> "Call":
        """The call of a stream or a batch: it may last, and each part of it takes `seconds` at most."""
        return replace(self, part_s=seconds)

    def renewed(self) -> "Call":
        """For the next part of a call that was parted."""
        assert self.part_s > 0, "parted() says how long a part may take"
        return replace(self, deadline=_now() + self.part_s)

    async def ask(self, domain: str, name: str, request: Proto, answer: type[Answer]) -> Answer:
        """A question, which changes nothing. Raises what the owner answers, UNAVAILABLE or DEADLINE_EXCEEDED."""
        subject = subjects.query(domain, name, self.workspace)
        return answer.FromString(await self._asked(subject, _bounded(request)))

    async def accept(self, request: Proto, answer: type[Answer]) -> Answer:
        """Hand in an event from outside; answered once it is committed."""
        subject = subjects.accept(self.workspace)
        return answer.FromString(await self._asked(subject, _bounded(request)))

    async def _asked(self, subject: str, data: bytes) -> bytes:
        """Ask what may be asked again, and do so: the replica that got it may be frozen or cut off, and another not."""
        for patience in self.patience_s:
            try:
                return await self.bus.ask(subject, data, min(patience, self.timeout))
            except RetryableError as error:
                if error.code == "UNAVAILABLE":
                    await asyncio.sleep(PAUSE_S)
                elif error.code != "DEADLINE_EXCEEDED":
                    raise
        return await self.bus.ask(subject, data, self.timeout)

    async def command_run(self, name: str, run_id: str, request: Proto, answer: type[Answer]) -> Answer:
        """A command about one run; answered once what it led to is committed."""
        subject = subjects.run_command(name, self.workspace, partition_of_run(run_id))
        return await self._command(subject, request, answer)

    async def command_resources(self, name: str, request: Proto, answer: type[Answer]) -> Answer:
        """A command about resources."""
        return await self._command(subjects.resource_command(name, self.workspace), request, answer)

    async def _command(self, subject: str, request: Proto, answer: type[Answer]) -> Answer:
        # No message id: the broker would drop a repeated request within its window, and nobody would answer it. The
        # request id inside is what makes it safe.
        message = Message(subject, _bounded(request))
        return answer.FromString(await self.bus.command(message, self.timeout))


def _now() -> float:
    return asyncio.get_running_loop().time()


def _bounded(request: Proto) -> bytes:
    data = request.SerializeToString()
    if len(data) > MAX_REQUEST_BYTES:
        raise TerminalError(
            "TOO_LARGE", f"The request takes {len(data)} bytes; at most {MAX_REQUEST_BYTES} are carried."
        )
    return data
