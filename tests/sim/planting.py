"""How a defect is planted: what the code looks up is another thing meanwhile."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def replaced(*changes: tuple[Any, str, Any]) -> Iterator[None]:
    """Attributes of modules and classes, changed while it is entered."""
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in changes]
    try:
        for owner, name, planted in changes:
            setattr(owner, name, planted)
        yield
    finally:
        for owner, name, original in before:
            setattr(owner, name, original)
