"""From what a document says of attempts to what the core does after a failure."""

import re
from typing import Any, Final, Protocol

from aios_core.errors import TerminalError
from aios_orchestrator.document import Document
from aios_orchestrator.workflow import Retry

_CODE: Final = re.compile(r"[A-Z][A-Z0-9_]{1,63}")


class Place(Protocol):
    """Where in a document the step stands, and how its fields are read."""

    document: Document
    path: str

    def duration(self, data: Any, name: str) -> int: ...


def compile_retry(place: Place, data: Any) -> Retry:
    """Compile `retry`. Raises UNKNOWN_FIELD, BAD_RESOURCE."""
    names = ("limit", "backoff", "max_backoff", "jitter", "never")
    fields = place.document.known(f"{place.path}.retry", data, names)

    def wrong(name: str, message: str) -> TerminalError:
        return place.document.error("BAD_RESOURCE", f"{place.path}.retry.{name}", message)

    limit = fields.get("limit", Retry().limit)
    if not isinstance(limit, int) or not 1 <= limit <= 100:
        raise wrong("limit", "must be a whole number from 1 to 100.")
    never = fields.get("never", [])
    if not isinstance(never, list) or not all(_CODE.fullmatch(str(code)) for code in never):
        raise wrong("never", "must be a list of reason codes such as MAIL_REFUSED.")
    jitter = fields.get("jitter", 20)
    if isinstance(jitter, bool) or not isinstance(jitter, int) or not 0 <= jitter <= 100:
        raise wrong("jitter", "must be a whole number of percent from 0 to 100.")
    return Retry(
        limit=limit,
        backoff_ms=place.duration(fields.get("backoff", "1s"), "retry.backoff"),
        cap_ms=place.duration(fields.get("max_backoff", "1m"), "retry.max_backoff"),
        jitter=jitter,
        never=tuple(map(str, never)),
    )
