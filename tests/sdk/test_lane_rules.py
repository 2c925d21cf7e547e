"""Who else may act under a connector's ledger is known from the store that it lies in, not from a setting."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from aios_runtime.service.port import Context
from aios_sdk.connector import Lookup
from aios_sdk.host.flight import Rules
from aios_sdk.host.lane import ConnectorLane
from aios_testing.store_memory import MemoryStore
from tests.sdk import toy


@pytest.mark.feature("B3", "L2")
@pytest.mark.parametrize("shared", [False, True])
def test_a_connector_whose_ledger_others_write_too_is_never_its_sole_owner(
    tmp_path: Path, shared: bool
) -> None:
    store, unused = MemoryStore(lambda: 0), SimpleNamespace()
    store.shared = shared
    bus: Any = unused
    context = Context("connector-toy", "i", "main", tmp_path, {}, bus, bus, lambda: 0, lambda prefix: prefix)
    connector = toy.connector(toy.World(tmp_path / "world"), Lookup(), lookup=True)
    lane = ConnectorLane(context, connector, store, slots=1, rules=Rules())
    assert lane._executor._effects._rules.sole_owner is not shared
