"""A MongoDB for tests: one at an address, or a server of its protocol that `make servers` has built.

The built one (mongo-java-server over a file of H2) is a stand-in: it knows single-document updates, bulk writes and
unique indexes, and keeps what it has answered when it is killed; it has no replicas, sessions or transactions. So the
same tests must pass with `AIOS_TEST_MONGODB_URL` at a real MongoDB.
"""

import hashlib
import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Final, Self

ADDRESS: Final = "AIOS_TEST_MONGODB_URL"
HERE: Final = Path(__file__).parent
HOW: Final = (
    f"no MongoDB: set {ADDRESS} to the address of one, or run `make servers` (it needs a JDK and Maven)"
)


def cache() -> Path:
    """Where the built server lies: outside the checkout, by what it is built from."""
    made_of = hashlib.sha256((HERE / "pom.xml").read_bytes() + (HERE / "Main.java").read_bytes()).hexdigest()
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "aios-servers" / f"mongodb-{made_of[:12]}"


def built() -> bool:
    """Whether the server is built."""
    return (cache() / "classes" / "Main.class").exists()


def build() -> Path:
    """Build the server, if it is not there. Raises OSError or CalledProcessError, naming the tool that failed."""
    place = cache()
    if built():
        return place
    for tool in ("mvn", "javac"):
        if shutil.which(tool) is None:
            raise OSError(f"{tool} is not installed (Debian: maven, default-jdk-headless)")
    work = place.with_name(f"{place.name}.{os.getpid()}")
    work.mkdir(parents=True)
    try:
        shutil.copy(HERE / "pom.xml", work)
        maven = ["mvn", "-q", "-B", "dependency:copy-dependencies", f"-DoutputDirectory={work / 'jars'}"]
        subprocess.run(maven, cwd=work, check=True)
        javac = ["javac", "-cp", f"{work / 'jars'}/*", "-d", str(work / "classes"), str(HERE / "Main.java")]
        subprocess.run(javac, check=True)
        work.rename(place)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return place


class MongoServer:
    """The built server, over one file: `start`, `kill`, `start` again on the same port and file."""

    def __init__(self, file: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self._file = file
        self._process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        """The address."""
        return f"mongodb://127.0.0.1:{self.port}/"

    def start(self) -> Self:
        """Start; returns when it takes connections."""
        place = cache()
        command = ["java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx512m"]
        command += ["-cp", f"{place / 'classes'}:{place / 'jars'}/*", "Main", str(self.port), str(self._file)]
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self._process.stdout is not None
        if not self._process.stdout.readline().startswith("ready"):
            raise OSError("the server for tests did not start")
        return self

    def kill(self) -> None:
        """As kill -9 does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
