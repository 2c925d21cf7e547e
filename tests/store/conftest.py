"""A MongoDB for the tests of the store on it."""

import secrets
from collections.abc import Iterator

import pytest

from tests.mongo import some_mongo


@pytest.fixture(scope="session")
def mongo_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a MongoDB."""
    with some_mongo(tmp_path_factory.mktemp("mongodb")) as url:
        yield url


@pytest.fixture
def database() -> str:
    """The name of a database that no other test has."""
    return f"test-{secrets.token_hex(6)}"
