"""What becomes of a message whose handler failed: it comes again, or it is kept as a dead letter with the reason."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from aios.bus.v1.bus_pb2 import DeadLetter
from aios_core.errors import AiosError, RetryableError, TerminalError
from aios_core.minting import now_ms
from aios_runtime.bus.port import MAX_MESSAGE_BYTES
from aios_runtime.bus.replies import error_to_proto

RETRY_SECONDS: Final = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)  # by deliveries; then the last again
BUG_DELIVERIES: Final = 5  # so often is tried what fails by a defect
DATA_BYTES: Final = MAX_MESSAGE_BYTES - 32 * 1024  # kept of a message; more is cut off
HEADERS: Final = 32  # kept of a message
TEXT_CHARS: Final = 256  # kept of a header


def verdict(error: Exception, deliveries: int) -> float | AiosError:
    """Seconds until the message comes again; or why it is a dead letter. `deliveries` counts from 1."""
    growing = RETRY_SECONDS[min(max(deliveries, 1), len(RETRY_SECONDS)) - 1]
    if isinstance(error, RetryableError):
        return growing if error.retry_after is None else error.retry_after
    if isinstance(error, AiosError):
        return error
    if deliveries < BUG_DELIVERIES:
        return growing
    return TerminalError("INTERNAL", f"A defect, {deliveries} times: {type(error).__name__}: {error}"[:1000])


@dataclass(slots=True)
class Buried:
    """What became dead letters since this process started, for the health of its service."""

    count: int = 0
    last: str = ""

    def note(self, subject: str, error: AiosError) -> None:
        self.count += 1
        self.last = f"{error.code}: {error.message} ({subject})"[:TEXT_CHARS]

    def facts(self) -> dict[str, str]:
        """Nothing while there is none."""
        if not self.count:
            return {}
        return {"messages that could not be handled": str(self.count), "the last of them": self.last}


def dead_letter(
    subject: str, data: bytes, headers: Mapping[str, str], deliveries: int, error: AiosError
) -> DeadLetter:
    """What is kept of a message that can't be handled. Of a longer one the end is cut, which the reason then says."""
    reason = error_to_proto(error)
    if len(data) > DATA_BYTES:
        reason.details["cut_from_bytes"] = str(len(data))
    kept = list(headers.items())[:HEADERS]
    return DeadLetter(
        subject=subject,
        data=data[:DATA_BYTES],
        headers={name[:TEXT_CHARS]: text[:TEXT_CHARS] for name, text in kept},
        reason=reason,
        time_ms=now_ms(),
        deliveries=deliveries,
    )
