"""The peers that the registries offer, on the same work, in one run with AIOS and its floor: `make bench-peers`.

Each runs as it is shipped, over a store on this disk; nobody is tuned. CPU is that of the whole machine.
"""

import asyncio
import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from tests.bench.floor import Floor
from tests.bench.peers import common
from tests.bench.plain_nats import PlainNats
from tests.bench.served import Served

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parents[2]
PLACE: Final = ROOT / ".peers"
PYTHON: Final = PLACE / "venv" / "bin" / "python"
RESTATE: Final = PLACE / "node_modules" / ".bin" / "restate-server"
TEMPORAL: Final = PLACE / "bin" / "temporal"
TEMPORAL_PACKAGE: Final = (
    "github.com/temporalio/cli/cmd/temporal@v1.3.0"  # PyPI has it for one other platform only
)
RESTATE_PACKAGE: Final = "@restatedev/restate-server@1.7.12"
START_SECONDS: Final = 60
POLL_SECONDS: Final = 0.1  # between two looks whether a server is ready


def install() -> None:
    """The peers' own requirements, once."""
    if not PYTHON.exists():
        print("Installing the peers' requirements (once, about two minutes) …", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", PLACE / "venv"], check=True)
        lock = HERE / "requirements.lock"
        subprocess.run([PYTHON, "-m", "pip", "install", "-q", "--require-hashes", "-r", lock], check=True)
    if not RESTATE.exists() and shutil.which("npm"):
        subprocess.run(["npm", "install", "--silent", "--prefix", PLACE, RESTATE_PACKAGE], check=True)
    if not TEMPORAL.exists() and shutil.which("go"):
        environment = os.environ | {"GOBIN": str(TEMPORAL.parent)}
        subprocess.run(["go", "install", TEMPORAL_PACKAGE], env=environment, check=True)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def answers(url: str) -> bool:
    """Whether a server answers there that it is well."""
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:
            return bool(answer.status == HTTPStatus.OK)
    except OSError:
        return False


@contextmanager
def process(command: list[str | Path], ready: Callable[[], bool], **environment: str) -> Iterator[None]:
    """A server until it says that it is ready, and until the end."""
    running = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | environment
    )
    try:
        until = time.monotonic() + START_SECONDS
        while not ready():
            if time.monotonic() > until or running.poll() is not None:
                raise RuntimeError(f"{command[0]} did not start")
            time.sleep(POLL_SECONDS)
        yield
    finally:
        running.terminate()
        running.wait(START_SECONDS)


@contextmanager
def postgres(place: Path) -> Iterator[str]:
    """A PostgreSQL as initdb makes it, on a port of its own; its address."""
    tools = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    found = shutil.which("postgres") or (tools and str(tools[-1] / "postgres"))
    if not found:
        raise FileNotFoundError("PostgreSQL is not installed (Debian: postgresql)")
    found = str(Path(found).resolve())  # its companions stand beside it, and not beside a link to it
    data, port, user = place / "postgres", free_port(), []
    if os.geteuid() == 0:  # it refuses to run as root
        data.mkdir()
        owner = pwd.getpwnam("postgres")
        os.chown(data, owner.pw_uid, owner.pw_gid)
        place.chmod(0o755)
        user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    initdb = str(Path(found).with_name("initdb"))
    subprocess.run(
        [*user, initdb, "-D", data, "-A", "trust", "-U", "peer"], check=True, stdout=subprocess.DEVNULL
    )
    settings = ["-p", str(port), "-k", "", "-h", "127.0.0.1", "-c", "max_connections=200"]
    ready = [str(Path(found).with_name("pg_isready")), "-q", "-h", "127.0.0.1", "-p", str(port)]
    with process(
        [*user, found, "-D", data, *settings], lambda: subprocess.run(ready, check=False).returncode == 0
    ):
        yield f"postgresql://peer@127.0.0.1:{port}/postgres"


def peer(program: str, **environment: str) -> dict[str, Any]:
    """Run a peer's program; its figures."""
    done = subprocess.run(
        [PYTHON, HERE / program], stdout=subprocess.PIPE, env=os.environ | environment, check=True, cwd=HERE
    )
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def of_postgres(program: str, place: Path) -> dict[str, Any]:
    with postgres(place) as address:
        return peer(program, PEER_POSTGRES=address)


def of_restate(place: Path) -> dict[str, Any]:
    ingress, admin = free_port(), free_port()
    settings = {
        "RESTATE_INGRESS__BIND_ADDRESS": f"127.0.0.1:{ingress}",
        "RESTATE_ADMIN__BIND_ADDRESS": f"127.0.0.1:{admin}",
        "RESTATE_BIND_ADDRESS": f"127.0.0.1:{free_port()}",
        "DO_NOT_TRACK": "1",
    }

    def healthy() -> bool:
        return answers(f"http://127.0.0.1:{admin}/health") and answers(
            f"http://127.0.0.1:{ingress}/restate/health"
        )

    with process([RESTATE, "--base-dir", str(place / "restate")], healthy, **settings):
        return peer(
            "peer_restate.py",
            PEER_RESTATE_INGRESS=f"http://127.0.0.1:{ingress}",
            PEER_RESTATE_ADMIN=f"http://127.0.0.1:{admin}",
        )


def of_temporal(place: Path) -> dict[str, Any]:
    port = free_port()
    command = [TEMPORAL, "server", "start-dev", "--headless", "--port", str(port), "--log-level", "error"]
    health = [TEMPORAL, "operator", "cluster", "health", "--address", f"127.0.0.1:{port}"]

    def healthy() -> bool:
        return subprocess.run(health, capture_output=True, check=False).returncode == 0

    with process([*command, "--db-filename", str(place / "temporal.db")], healthy):
        return peer("peer_temporal.py", PEER_TEMPORAL=f"127.0.0.1:{port}")


async def of_aios() -> dict[str, Any]:
    async with Served() as served:
        return await common.figures("AIOS", served.run)


async def of_floor() -> dict[str, Any]:
    async with PlainNats() as nats:
        floor = await Floor.open(nats.url, common.STEPS)
        try:
            return await common.figures("floor (bare dispatcher and worker)", floor.run)
        finally:
            await floor.close()


def main() -> None:
    """Measure all and print one table."""
    install()
    found: list[dict[str, Any]] = [asyncio.run(of_floor()), asyncio.run(of_aios())]
    for name, measure in (
        ("Restate", of_restate),
        ("LangGraph", lambda place: of_postgres("peer_langgraph.py", place)),
        ("DBOS", lambda place: of_postgres("peer_dbos.py", place)),
        ("Temporal", of_temporal),
    ):
        with tempfile.TemporaryDirectory(prefix="aios-peer-") as place:
            try:
                found.append(measure(Path(place)))
            except (OSError, RuntimeError, StopIteration, subprocess.CalledProcessError) as error:
                print(f"{name} could not be measured: {error}", file=sys.stderr)
    print(f"{'':36}{'steps/s':>9}{'p50 ms':>9}{'CPU µs/step':>13}")
    for figures in found:
        print(
            f"{figures['name']:36}{figures['steps_per_second']:9}{figures['p50_ms']:9}{figures['cpu_us_per_step']:13}"
        )


if __name__ == "__main__":
    main()
