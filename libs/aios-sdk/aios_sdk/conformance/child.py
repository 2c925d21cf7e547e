"""The process that the suite kills: `python -m aios_sdk.conformance.child FILE CLASS DIRECTORY`."""

import asyncio
import sys
from pathlib import Path

from aios.task.v1.task_pb2 import Task
from aios_sdk.conformance.hosting import hosted, load_subject


async def main(file: str, name: str, directory: Path) -> None:
    """Perform `directory/task.bin` and write `directory/outcome.bin`."""
    task = Task.FromString((directory / "task.bin").read_bytes())
    async with hosted(load_subject(file, name), directory) as executor:
        outcome = await executor.perform(task)
        (directory / "outcome.bin").write_bytes(outcome.SerializeToString())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], Path(sys.argv[3])))
