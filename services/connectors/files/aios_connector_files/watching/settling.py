"""When a folder has come to rest. Pure: what was seen and when comes in; what is due goes out.

A folder is pending from the first sign of a change until nothing in it has changed for `settle_ms`. Signs are what the
system reports (`touched`) and what a look at the folder shows (`seen`, by its signature): either may be missing.
"""

from dataclasses import dataclass


@dataclass(slots=True)
class _Pending:
    quiet_since_ms: int
    signature: str | None


class Settling:
    """The pending folders of one root. Times are of one clock that does not go back, in ms."""

    def __init__(self, settle_ms: int) -> None:
        self._settle_ms = settle_ms
        self._pending: dict[str, _Pending] = {}  # at most as many as a scan may find

    def touched(self, folder: str, now_ms: int) -> None:
        """Something in the folder changes now."""
        self._pending[folder] = _Pending(now_ms, None)

    def seen(self, folder: str, signature: str, now_ms: int) -> None:
        """A look found a state that is not the handled one."""
        pending = self._pending.get(folder)
        if pending is None or pending.signature not in (None, signature):
            self._pending[folder] = _Pending(now_ms, signature)
        else:
            pending.signature = signature

    def due(self, now_ms: int) -> list[str]:
        """The folders that were quiet long enough: look at each, then ask `settled`."""
        return sorted(
            folder
            for folder, pending in self._pending.items()
            if now_ms - pending.quiet_since_ms >= self._settle_ms
        )

    def settled(self, folder: str, signature: str, now_ms: int) -> bool:
        """Whether a due folder is at rest in the state just looked at; if so it is not pending any more. Otherwise it
        changed without a sign, and its time begins again."""
        pending = self._pending.get(folder)
        if pending is None or now_ms - pending.quiet_since_ms < self._settle_ms:
            return False
        if pending.signature not in (None, signature):
            self._pending[folder] = _Pending(now_ms, signature)
            return False
        del self._pending[folder]
        return True

    def pending(self, folder: str) -> bool:
        """Whether it has not come to rest."""
        return folder in self._pending

    def next_due_ms(self) -> int | None:
        """When the next folder may be due."""
        return min(
            (pending.quiet_since_ms + self._settle_ms for pending in self._pending.values()), default=None
        )

    def __len__(self) -> int:
        return len(self._pending)
