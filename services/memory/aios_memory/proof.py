"""Whether a store of memory is whole: the bytes of every artifact that it knows are there."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from aios.memory.v1 import memory_pb2
from aios_core.errors import TerminalError
from aios_memory.blobs import Blobs
from aios_runtime.backup.proof import Proof
from aios_runtime.store.port import Store

PAGE: Final = 1000


async def prove(
    store: Store, workspaces: Iterable[str], folder: Path, proof: Proof, report: Callable[[int], None]
) -> None:
    """Look for each artifact's file; that its bytes are those of its name was seen before. Raises CORRUPT_STORE."""
    blobs = Blobs(folder / "artifacts")
    for workspace in workspaces:
        token = ""
        while True:
            page = await store.scan(f"{workspace}/artifact/", token=token, limit=PAGE)
            for item in page.items:
                artifact = memory_pb2.Artifact.FromString(item.head)
                sha256 = artifact.sha256.hex()
                if blobs.size(sha256) != artifact.size:
                    raise TerminalError("CORRUPT_STORE", f"The bytes of the artifact {sha256} are missing.")
                proof.artifacts.add(sha256)
            report(len(proof.artifacts))
            token = page.next_token
            if not token:
                break
    proof.holds("artifacts have their bytes", len(proof.artifacts))
