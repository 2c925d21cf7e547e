"""What holds for every test: nothing of the person's own settings or servers is seen or touched."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, Phase, settings

from tests import aside
from tests.often import tries

if TYPE_CHECKING:
    from tests.served import Server

KEPT = ("AIOS_TEST_", "AIOS_DRILL", "AIOS_BENCH", "AIOS_CLUSTER")

for name in [name for name in os.environ if name.startswith("AIOS_") and not name.startswith(KEPT)]:
    del os.environ[name]
for name in ("XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME"):
    os.environ[name] = tempfile.mkdtemp(prefix="aios-tests-")
    atexit.register(shutil.rmtree, os.environ[name], ignore_errors=True)

# No deadline for one example: the machine is shared. A failure prints how to repeat it; it is not explained, since the
# tracing that this takes makes it ten times slower to tell, which is longer than a test may take.
settings.register_profile(
    "workspace",
    max_examples=tries(100),
    deadline=None,
    print_blob=True,
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.target, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("workspace")


def pytest_configure(config: pytest.Config) -> None:
    aside.register(config)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Server]":
    """A served AIOS that all tests of a session share."""
    from tests.served import served

    yield from served(tmp_path_factory.mktemp("served"))
