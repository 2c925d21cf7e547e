"""The mark of a ledger that was restored from a backup; it stands in the store until a person closes the restore."""

import json
from dataclasses import asdict, dataclass
from typing import Final

RESTORE_META: Final = "restore"


@dataclass(frozen=True, slots=True)
class RestoreMark:
    """Which restore, of a backup from when; times in ms of the wall clock."""

    restore_id: str
    backup_time_ms: int
    restore_time_ms: int

    def encode(self) -> bytes:
        """As it is stored."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def decode(cls, data: bytes | None) -> "RestoreMark | None":
        """The mark of its stored form; None for nothing, which is a ledger that is not or no longer marked."""
        return cls(**json.loads(data)) if data else None
