"""What the engine is asked to decide, and what it answers."""

from dataclasses import dataclass

from aios.run.v1.commands_pb2 import StartRunRequest
from aios_core.errors import AiosError
from aios_core.values import Value
from aios_orchestrator.core.decide import Input
from aios_orchestrator.model import Run


@dataclass(frozen=True, slots=True)
class Item:
    """One input for one run. `request_id` and its content hash make a client's command safe to repeat; what has an
    effect under the name `once` has none under that name again."""

    workspace: str
    run_id: str
    input: Input
    actor: str
    request_id: str = ""
    request_sha256: bytes = b""
    once: str = ""


@dataclass(frozen=True, slots=True)
class StartItem:
    """A run to start. `request_sha256` is over what the client said: the same id with other content is refused. `input`
    is what the request has, None for a fork that goes on with its source's."""

    run_id: str
    request: StartRunRequest
    request_sha256: bytes
    input: Value | None


@dataclass(slots=True)
class Answer:
    """What became of an item: the run afterwards (None when there is none), or why it was refused. `head` is the run's
    as it was committed, encoded; empty where it is not at hand. `undecided` is what nothing could be decided on, by a
    defect or because it can't be kept."""

    run: Run | None = None
    duplicate: bool = False
    refusal: AiosError | None = None
    head: bytes = b""
    undecided: bool = False
