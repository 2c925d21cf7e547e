"""From what a document says of concurrency to what holds for the runs that it starts."""

from collections.abc import Mapping
from typing import Any, Final, Protocol

from aios_core.errors import TerminalError
from aios_orchestrator.document import Document
from aios_orchestrator.mapping import Mapped
from aios_orchestrator.workflow import Queueing

MAX_LIMIT: Final = 1_000  # runs that are under way at once, where there is a limit
MAX_WAITING: Final = 1_000  # runs that wait for their turn
WORDS: Final = ("allow", "queue", "skip", "replace")
"""What triggers say of a run that comes while the one before goes on."""


class Place(Protocol):
    """Where in a document it stands, and how its fields are read."""

    document: Document
    path: str

    def count(self, data: Any, name: str, most: int) -> int: ...

    def mapping(self, data: Any, name: str) -> Mapped: ...


def compile_queueing(place: Place, spec: Mapping[str, Any]) -> Queueing | None:
    """Compile `concurrency` of a workflow. Raises UNKNOWN_FIELD, BAD_RESOURCE, BAD_EXPRESSION."""
    if "concurrency" not in spec:
        return None
    path = f"{place.path}.concurrency"
    data = place.document.known(path, spec["concurrency"], ("key", "policy", "limit", "waiting"))

    def wrong(name: str, message: str) -> TerminalError:
        return place.document.error("BAD_RESOURCE", f"{path}.{name}", message)

    policy = data.get("policy", "replace")
    if policy not in WORDS[1:]:
        raise wrong("policy", "must be 'replace', 'queue' or 'skip'.")
    if policy == "replace" and "limit" in data:
        raise wrong("limit", "runs that replace each other are one at a time; leave it out, or queue them.")
    if policy != "queue" and "waiting" in data:
        raise wrong("waiting", f"nobody waits where policy is {policy!r}; leave it out, or queue them.")
    return Queueing(
        policy=policy,
        key=place.mapping(data["key"], "concurrency.key") if "key" in data else None,
        limit=place.count(data.get("limit", 1), "concurrency.limit", MAX_LIMIT),
        waiting=place.count(data.get("waiting", 100), "concurrency.waiting", MAX_WAITING),
    )
