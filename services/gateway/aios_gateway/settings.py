"""The gateway's options and bounds."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aios_core.errors import TerminalError

VERSION: Final = "0.1.0"  # of every package of the workspace
MAX_REQUEST_BYTES: Final = 240 * 1024  # of a request; a bus message is at most 256 KiB with its headers
MAX_WIRE_BYTES: Final = (
    1024 * 1024
)  # that gRPC reads at all; above MAX_REQUEST_BYTES we answer with the reason
MAX_CALLS: Final = 4096  # gRPC calls at once, watches included
ARTIFACT_CHUNK_BYTES: Final = 128 * 1024
STORY_PAGE_EVENTS: Final = 200  # events that one question asks for
STORY_MAX_EVENTS: Final = 20_000  # events that one timeline tells


class Options(BaseModel):
    """What can be set, as flat names: `AIOS_GATEWAY_<NAME>`, the configuration file, or the command line."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    grpc_host: str = "127.0.0.1"
    grpc_port: int = Field(default=0, ge=0, le=65535)
    """0: any free port; `server.json` in the data directory says which."""
    http_host: str = "127.0.0.1"
    http_port: int = Field(default=0, ge=0, le=65535)
    owner_token_file: Path | None = None
    """Holds the owner's token, such as a mounted secret; made when missing. None: `token` in the data directory."""
    services: str = "orchestrator,memory,agent-runner,connector-files"
    """Whose health the status shows, separated by commas."""
    default_timeout_s: float = Field(default=10.0, gt=0, le=300)
    """For calls whose client set no deadline."""
    max_timeout_s: float = Field(default=60.0, gt=0, le=300)
    max_watches: int = Field(default=2048, ge=1, le=10_000)
    watch_queue_events: int = Field(default=256, ge=1, le=65_536)
    """Events that wait for one watcher; one that falls behind reads the rest from the log."""
    max_body_bytes: int = Field(default=1024 * 1024, ge=1024, le=16 * 1024 * 1024)
    """Of an HTTP request; a single event is bounded by MAX_REQUEST_BYTES besides."""
    max_batch_events: int = Field(default=100, ge=1, le=1000)


def parse(options: Mapping[str, str]) -> Options:
    """The options of their texts. Raises INVALID_ARGUMENT that names the option."""
    try:
        return Options.model_validate({name: text for name, text in options.items() if text != ""})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"]) or "options"
        raise TerminalError(
            "INVALID_ARGUMENT",
            f"The gateway's option {name} is wrong: {first['msg']}.",
            field=f"gateway.{name}",
        ) from None
