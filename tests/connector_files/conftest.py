from pathlib import Path

import pytest

from tests.connector_files.acting import Desk


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    desk = Desk(tmp_path)
    (desk.root / "acme" / "2026-10").mkdir(parents=True)
    return desk
