"""Record runs of every kind of event: `python -m tests.histories.transitions`, once there are events of a new kind.

The simulator makes them, under faults. `tests/histories/transitions/<n>.json.gz` has whole runs, which no later version
may read otherwise: their stored events, and the head and records that stood when the last of them was committed. A file
never changes; what it lacks of kinds that are new stands in the next one.
"""

import base64
import gzip
import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from aios.run.v1.events_pb2 import RunEvent
from aios_runtime.store.port import Committed, Write
from aios_testing.sim.invariants import Invariants
from aios_testing.sim.run import simulate

PLACE: Final = Path(__file__).parent / "transitions"
KINDS: Final = frozenset(field.name for field in RunEvent.DESCRIPTOR.oneofs_by_name["body"].fields)
SEEDS: Final = range(2_000)
MOST: Final = 400  # events of one run


@dataclass
class Told:
    """A run as it was stored."""

    events: list[bytes] = field(default_factory=list)
    head: bytes = b""
    records: dict[str, bytes] = field(default_factory=dict)

    @property
    def kinds(self) -> set[str]:
        """What happened in it."""
        return {str(RunEvent.FromString(data).WhichOneof("body")) for data in self.events}


def kept() -> dict[str, list[Told]]:
    """Every file's runs, by its name."""
    return {
        file.name: [_read(item) for item in json.loads(gzip.decompress(file.read_bytes()))]
        for file in sorted(PLACE.glob("*.json.gz"))
    }


def covered(runs: Iterable[Told]) -> set[str]:
    """The kinds of events that stand in these runs."""
    return {kind for run in runs for kind in run.kinds}


def _read(item: Mapping[str, Any]) -> Told:
    decode = base64.b64decode
    records = {name: decode(data) for name, data in item["records"].items()}
    return Told([decode(data) for data in item["events"]], decode(item["head"]), records)


def _written(run: Told) -> dict[str, Any]:
    encode = base64.b64encode
    return {
        "events": [encode(data).decode() for data in run.events],
        "head": encode(run.head).decode(),
        "records": {name: encode(data).decode() for name, data in sorted(run.records.items())},
    }


def watched(seed: int) -> dict[str, Told]:
    """The runs of one seed, by their keys."""
    runs: dict[str, Told] = {}
    original = Invariants._run_committed

    def committed(self: Invariants, write: Write, result: Committed) -> None:
        if "/run/" in write.key and write.head is not None:
            run = runs.setdefault(write.key, Told())
            run.events += [event.data for event in write.events]
            run.head = write.head
            for name, data in write.records.items():
                if data is None:
                    run.records.pop(name, None)
                else:
                    run.records[name] = data
        original(self, write, result)

    Invariants._run_committed = committed  # type: ignore[method-assign]
    try:
        simulate(seed)
    finally:
        Invariants._run_committed = original  # type: ignore[method-assign]
    return runs


def main() -> None:
    before = kept()
    missing = KINDS - covered(run for runs in before.values() for run in runs)
    chosen: list[Told] = []
    for seed in SEEDS:
        if not missing:
            break
        for run in watched(seed).values():
            if len(run.events) <= MOST and run.kinds & missing:
                missing -= run.kinds
                chosen.append(run)
                print(f"seed {seed}: {len(run.events)} events; still missing: {', '.join(sorted(missing))}")
    if missing:
        sys.exit(f"no seed has {', '.join(sorted(missing))}")
    if not chosen:
        sys.exit("every kind of event is there already")
    PLACE.mkdir(exist_ok=True)
    data = json.dumps([_written(run) for run in chosen]).encode()
    file = PLACE / f"{len(before) + 1}.json.gz"
    file.write_bytes(gzip.compress(data, mtime=0))
    print(f"{file}: {len(chosen)} runs, {file.stat().st_size} bytes")


if __name__ == "__main__":
    main()
