"""How often a property is tried: by `make properties TIMES=100` a hundred times as often as by `make test`."""

import os
from typing import Final

TIMES: Final = int(os.environ.get("AIOS_TEST_PROPERTIES", "1"))


def tries(count: int) -> int:
    """The examples of a property that `make test` tries `count` of."""
    return count * TIMES
