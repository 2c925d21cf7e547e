"""What a call into the sandbox is made of, what comes back, and the settings of the pool."""

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Final, Self

from aios_core.errors import TerminalError

MIB: Final = 1024 * 1024
MAX_REQUEST_BYTES: Final = 16 * MIB
MAX_FILES: Final = 1000  # input files a call
MAX_OPEN_FILES: Final = 128  # of them given as paths; one message carries at most 253 descriptors
MAX_NAME_BYTES: Final = 255  # of one component of a file's name
MAX_NAME_DEPTH: Final = 8  # components of a file's name
LOG_BYTES: Final = 64 * 1024  # of what an agent prints, kept; the rest is counted and dropped

DEFAULT_PRELOAD: Final = ("collections.abc", "csv", "datetime", "decimal", "io", "math", "pathlib", "typing")
PROMISES: Final = frozenset({"no-network", "no-credentials", "one-process"})

_REFERENCE: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one call may use.

    `cpu_seconds` (rounded up to whole seconds) and `memory_bytes` (address space, the interpreter's own ~30 MB
    included) count per process. `file_bytes` bounds all that the call writes to `out` and its scratch directory
    together. `output_bytes` bounds the response's JSON. `processes` counts processes and threads at one time, the
    agent's own included; 1 means that it starts none.
    """

    cpu_seconds: float = 30.0
    wall_seconds: float = 60.0
    memory_bytes: int = 1024 * MIB
    output_bytes: int = 1 * MIB
    file_bytes: int = 64 * MIB
    processes: int = 1

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if not 0 < value < 2**62:
                raise TerminalError(
                    "INVALID_ARGUMENT", f"{name} is {value}; a limit is a positive number.", field=name
                )


@dataclass(frozen=True, slots=True)
class SandboxCall:
    """One call of `agent` ("package.module:function") with a JSON object and named input files.

    A file is a path, which the runner opens without following a link at its end, or its bytes. Names are relative
    paths as the agent will see them under its `files`.
    """

    agent: str
    request: bytes
    files: Mapping[str, Path | bytes] = field(default_factory=dict)
    limits: Limits = Limits()


@dataclass(frozen=True, slots=True)
class Usage:
    """What a call used: CPU seconds of all its processes, peak resident bytes of the largest one, wall seconds."""

    cpu_seconds: float
    max_rss_bytes: int
    wall_seconds: float


@dataclass(frozen=True, slots=True)
class SandboxResult:
    """A call's answer. `response` is a JSON object; `artifacts` are the files that the agent left in `out`.

    The artifacts live until `close()` (or the end of a `with`), at the latest until the pool closes. `logs` is what
    the agent printed, at most `LOG_BYTES` of it and a line that says how much was dropped.
    """

    response: bytes
    artifacts: Mapping[str, Path]
    usage: Usage
    logs: str
    directory: Path | None = None

    def close(self) -> None:
        """Delete the artifacts. May be called again."""
        if self.directory is not None:
            shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class Capability:
    """One layer or promise of the sandbox on this machine, and the sentence that says why it is in force or not."""

    name: str
    in_force: bool
    why: str


@dataclass(frozen=True, slots=True)
class SandboxSettings:
    """How a pool is made.

    `agents`: the references that may be called. `concurrency`: calls at one time; `queue`: calls that may wait for
    their turn; `warm`: children that are forked before there is a call for them. `preload`: modules that the zygote
    imports (see the package's warning). `code_roots`: directories that agents import from besides this Python's own
    path. `private`: files and directories that must stay unreadable (the data directory, credentials); the start
    fails if one lies in a directory that agents read. `scratch`: where the pool makes a directory of its own, and
    removes those of runners that were killed; by default the system's directory for temporary files. `require`: names
    of capabilities without which the pool doesn't start. `uid`: the user and group that agents get when the runner is
    root. `input_bytes`: of all input files of a call. `start_seconds`: within which the zygote must be ready.
    """

    agents: frozenset[str]
    concurrency: int = 2
    queue: int = 1024
    warm: int = 2
    preload: tuple[str, ...] = DEFAULT_PRELOAD
    code_roots: tuple[Path, ...] = ()
    private: tuple[Path, ...] = ()
    scratch: Path | None = None
    require: frozenset[str] = PROMISES
    uid: int = 65534
    input_bytes: int = 256 * MIB
    start_seconds: float = 10.0

    def __post_init__(self) -> None:
        for reference in self.agents:
            if not _REFERENCE.fullmatch(reference):
                raise TerminalError(
                    "INVALID_ARGUMENT",
                    f"agents has {reference[:120]!r}; write it as package.module:function.",
                    field="agents",
                )
        if self.concurrency < 1 or self.queue < 0 or self.warm < 0:
            raise TerminalError(
                "INVALID_ARGUMENT",
                "concurrency is at least 1, queue and warm at least 0.",
                field="concurrency",
            )


def check_file_name(name: str) -> str:
    """Return `name` if it is a plain relative path ("a.csv", "charts/b.svg"), else raise ValueError with the reason."""
    if "\0" in name or "\\" in name or any(ord(c) < 32 or ord(c) == 127 for c in name):
        raise ValueError("it has a control character or a backslash")
    try:
        components = [part.encode() for part in name.split("/")]
    except UnicodeEncodeError:
        raise ValueError("it is not valid UTF-8") from None
    if any(part in (b"", b".", b"..") for part in components):
        raise ValueError("it leaves its directory, or is not written in its shortest form")
    if len(components) > MAX_NAME_DEPTH or any(len(part) > MAX_NAME_BYTES for part in components):
        raise ValueError(
            f"it has more than {MAX_NAME_DEPTH} components or one of more than {MAX_NAME_BYTES} bytes"
        )
    return str(PurePosixPath(name))
