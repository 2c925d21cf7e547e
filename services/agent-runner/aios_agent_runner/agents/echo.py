"""The smallest code agent: it answers with its request. Benches and tests of the sandbox use it."""

from pathlib import Path
from typing import Any


def run(request: dict[str, Any], files: Path, out: Path) -> dict[str, Any]:
    """Return `request` as it came; reads no file and writes none."""
    return request
