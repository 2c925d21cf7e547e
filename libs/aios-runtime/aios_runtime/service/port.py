"""What the launcher gives to a service, and what it expects back. A service's `module.py` has `create(context)`."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from aios_runtime.bus.port import Bus
from aios_runtime.store.port import Store


@dataclass(frozen=True, slots=True)
class Restore:
    """A restore from a backup that nobody has closed; times in ms. `found` changes were looked up and found done, and
    about `asked` a person was asked, since this process started."""

    restore_id: str
    backup_time_ms: int
    restore_time_ms: int
    found: int
    asked: int


@dataclass(frozen=True, slots=True)
class Health:
    """Whether a service can work now, and in words why not. `facts` are shown by `aios doctor`; `restore` is that of a
    connector whose ledger is a backup's."""

    ready: bool
    detail: str = ""
    facts: Mapping[str, str] | None = None
    restore: Restore | None = None


class Service(Protocol):
    """A service as the launcher sees it. `start` returns when it is ready; `stop` when it holds nothing any more."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def health(self) -> Health: ...


@dataclass(frozen=True, slots=True)
class Context:
    """Everything from outside that a service may use.

    `options` are the service's own settings (flat names to text), already merged from file, environment
    (`AIOS_<SERVICE>_<NAME>`) and command line; a service parses them with a pydantic model of its own.
    `open_store` opens `<data_dir>/<name>.db` (or the service's MongoDB database) and takes its lock.
    """

    service: str
    instance: str
    workspace: str
    data_dir: Path
    options: Mapping[str, str]
    bus: Bus
    open_store: Callable[[str], Awaitable[Store]]
    now_ms: Callable[[], int]
    mint: Callable[[str], str]
