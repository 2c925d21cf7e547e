"""The MongoDB of a test."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from aios_testing import mongodb


def built_server(file: Path) -> mongodb.MongoServer:
    """A server of the test's own, not started; skips the test where there is none to be had."""
    if not mongodb.built():
        if os.environ.get("CI"):
            pytest.fail(mongodb.HOW)
        pytest.skip(mongodb.HOW)
    return mongodb.MongoServer(file)


@contextmanager
def some_mongo(place: Path) -> Iterator[str]:
    """The address of a MongoDB: the one that the environment names, or one of the test's own in `place`."""
    address = os.environ.get(mongodb.ADDRESS)
    if address:
        yield address
        return
    server = built_server(place / "data.mv").start()
    try:
        yield server.url
    finally:
        server.kill()
