"""From what a document says of concurrency to what holds for the runs that it starts."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from aios_core.errors import TerminalError
from aios_core.json_values import dumps
from aios_core.values import Value, plain
from aios_orchestrator.document import Document
from aios_orchestrator.mapping import Mapped, compile_mapping
from aios_orchestrator.workflow import Queueing

MAX_LIMIT: Final = 1_000  # runs that are under way at once, where there is a limit
MAX_WAITING: Final = 1_000  # runs that wait for their turn
MAX_KEY_CHARS: Final = 300
WORDS: Final = ("allow", "queue", "skip", "replace")
"""What triggers say of a run that comes while the one before goes on."""


class Place(Protocol):
    """Where in a document it stands, and how its fields are read."""

    document: Document
    path: str

    def count(self, data: Any, name: str, most: int) -> int: ...

    def mapping(self, data: Any, name: str) -> Mapped: ...


@dataclass(slots=True)
class Spec:
    """The `spec` of a document whose other fields are read elsewhere."""

    document: Document
    path: str = "spec"

    def count(self, data: Any, name: str, most: int) -> int:
        """A whole number from 1 on. Raises BAD_RESOURCE."""
        if isinstance(data, bool) or not isinstance(data, int) or not 1 <= data <= most:
            message = f"must be a whole number from 1 to {most}."
            raise self.document.error("BAD_RESOURCE", f"{self.path}.{name}", message)
        return data

    def mapping(self, data: Any, name: str) -> Mapped:
        """What is computed. Raises BAD_EXPRESSION."""
        path = f"{self.path}.{name}"
        try:
            return compile_mapping(data, path)
        except TerminalError as error:
            raise self.document.error(error.code, path, error.message) from None


def compile_of_intent(document: Document, spec: Mapping[str, Any]) -> Queueing | None:
    """Compile `concurrency` of an intent: a word, or all that a workflow may say. Raises as `compile_queueing`."""
    said = spec.get("concurrency", WORDS[0])
    if isinstance(said, Mapping):
        return compile_queueing(Spec(document), spec)
    if said not in WORDS:
        raise document.error("BAD_RESOURCE", "spec.concurrency", f"must be one of {', '.join(WORDS)}.")
    return Queueing(said) if said != WORDS[0] else None


def key_of(queueing: Queueing, inputs: Value) -> str:
    """What a run with these inputs shares with those that count as one with it; '' where all do. A text that is empty
    is a key as any other. Raises INVALID_ARGUMENT."""
    if queueing.key is None:
        return ""
    data = plain(queueing.key.evaluate(lambda root: inputs if root == "inputs" else None))
    key = data if data and isinstance(data, str) else dumps(data).decode()
    if len(key) > MAX_KEY_CHARS:
        message = f"concurrency.key: {len(key)} characters; a key has at most {MAX_KEY_CHARS}."
        raise TerminalError("INVALID_ARGUMENT", message, field="concurrency.key")
    return key


def compile_queueing(place: Place, spec: Mapping[str, Any]) -> Queueing | None:
    """Compile `concurrency` where it is a map. Raises UNKNOWN_FIELD, BAD_RESOURCE, BAD_EXPRESSION."""
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
