"""The configuration file of the embedded nats-server, as text."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aios_runtime.bus.permissions import Permissions, permissions
from aios_runtime.bus.topology import MEGABYTE, SERVER_MAX_PAYLOAD_BYTES, STREAMS

# The server writes to the page cache and forces it to the disk this often. That decides only what a bare external event
# survives: a killed server loses nothing, a power cut up to this long. All else is committed in a store first.
SYNC_INTERVAL_SECONDS: Final = 10
MAX_MEMORY_STORE_BYTES: Final = 16 * MEGABYTE  # every stream is a file store
# The streams' own bounds are what limits the disk. The server counts their reservations, and counts one again when two
# services make a stream at the same moment; so this is only the number that those must not reach.
MAX_FILE_STORE_BYTES: Final = 16 * sum(stream.max_bytes for stream in STREAMS)
MAX_CONNECTIONS: Final = 256
MAX_PENDING_BYTES: Final = 64 * MEGABYTE  # per client: one that doesn't read is dropped at this backlog
WRITE_DEADLINE_SECONDS: Final = 5
PING_SECONDS: Final = (
    2  # a client that answers none of these is frozen or cut off: what waits for it goes to others
)
PINGS_UNANSWERED: Final = 3
REPLICATED_PING_SECONDS: Final = 1  # where another process can do what a silent one does not


@dataclass(frozen=True, slots=True)
class Layout:
    """Where an embedded server keeps things. `host` is a loopback address."""

    directory: Path
    host: str
    port: int
    ping_seconds: int = PING_SECONDS

    @property
    def config(self) -> Path:
        return self.directory / "server.conf"

    @property
    def pid_file(self) -> Path:
        return self.directory / "server.pid"

    @property
    def store(self) -> Path:
        return self.directory / "jetstream"


def render(layout: Layout, passwords: Mapping[str, str], connectors: Sequence[str]) -> str:
    """The configuration for these users. It holds their passwords: write it for its owner's eyes only."""
    users = ",\n".join(_user(name, word, permissions(name, connectors)) for name, word in passwords.items())
    return f"""\
server_name: aios
listen: {_text(f"{layout.host}:{layout.port}")}
max_payload: {SERVER_MAX_PAYLOAD_BYTES}
max_connections: {MAX_CONNECTIONS}
max_pending: {MAX_PENDING_BYTES}
ping_interval: "{layout.ping_seconds}s"
ping_max: {PINGS_UNANSWERED}
write_deadline: "{WRITE_DEADLINE_SECONDS}s"
lame_duck_duration: "30s"
pid_file: {_text(str(layout.pid_file))}
jetstream {{
  store_dir: {_text(str(layout.store))}
  sync_interval: "{SYNC_INTERVAL_SECONDS}s"
  max_memory_store: {MAX_MEMORY_STORE_BYTES}
  max_file_store: {MAX_FILE_STORE_BYTES}
}}
authorization {{
  timeout: 5
  users: [
{users}
  ]
}}
"""


def _user(name: str, password: str, allowed: Permissions) -> str:
    rules = {"publish": {"allow": list(allowed.publish)}, "subscribe": {"allow": list(allowed.subscribe)}}
    responses = ', allow_responses: {max: 1, expires: "1m"}' if allowed.answers else ""
    body = ", ".join(f"{verb}: {json.dumps(rule)}" for verb, rule in rules.items())
    return f"    {{user: {_text(name)}, password: {_text(password)}, permissions: {{{body}{responses}}}}}"


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
