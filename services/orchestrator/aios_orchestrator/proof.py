"""Whether a store of the orchestrator is whole: each run is what its events say, and what it points to is named."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from aios.run.v1.state_pb2 import RunHead
from aios_core.encoding import decode
from aios_core.errors import TerminalError
from aios_core.values import pointers
from aios_orchestrator.codec import head_of, run_of
from aios_orchestrator.core.fold import fold
from aios_orchestrator.model import Run
from aios_runtime.backup.proof import Proof
from aios_runtime.store.port import Aggregate, Store

PAGE: Final = 200
EVENTS: Final = 2000  # read at once


async def prove(
    store: Store, workspaces: Iterable[str], _folder: Path, proof: Proof, report: Callable[[int], None]
) -> None:
    """Fold every run anew. `report` is told how many are done. Raises CORRUPT_STORE that names the run."""
    runs = events = 0
    for workspace in workspaces:
        token = ""
        while True:
            page = await store.scan(f"{workspace}/run/", token=token, limit=PAGE)
            for item in page.items:
                events += await _prove_run(store, item, proof)
                runs += 1
                report(runs)
            token = page.next_token
            if not token:
                break
    proof.holds("events are chained by their hashes", events)
    proof.holds("runs are what their events say", runs)


async def _prove_run(store: Store, item: Aggregate, proof: Proof) -> int:
    history: list[bytes] = []
    while page := await store.events_of(item.key, len(history), EVENTS):
        history += [filed.data for filed in page]
    records: dict[str, bytes] = {}
    while found := await store.records(item.key, after=max(records, default="")):
        records |= found
    run_id = item.key.rpartition("/")[2]
    try:
        folded, head = fold(history), RunHead.FromString(item.head)
        stored = run_of(head, records)
        whole = head_of(folded) == head and folded == stored
        for sha256 in _pointed(stored):
            proof.pointed.setdefault(sha256, run_id)
    except Exception as error:  # of damaged bytes, anything may come
        raise TerminalError(
            "CORRUPT_STORE", f"The run {run_id} can't be folded from its events: {error}."
        ) from None
    if not whole:
        raise TerminalError("CORRUPT_STORE", f"The run {run_id} is not what its events say.")
    return len(history)


def _pointed(run: Run) -> Iterator[str]:
    values = [run.input, run.outputs]
    for step in run.steps.values():
        values += [step.input, step.output]
    for data in values:
        if data:
            yield from (pointer.sha256 for pointer in pointers(decode(data)))
