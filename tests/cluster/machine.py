"""What the cluster test stands on: a Docker engine, the image on a base of this machine's own, Kubernetes, and Helm.

The cluster comes from a script, named by AIOS_CLUSTER, with the commands `up`, `load IMAGE`, `env` and `down`; where
there is none, from whatever KUBECONFIG names, which must find the image by itself.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
SCRIPT: Final = ROOT.parent / "shared" / "cluster" / "cluster.sh"
BASE_IMAGE: Final = "aios-base:bookworm"
BASE_PACKAGES: Final = "python3,python3-venv,ca-certificates"
HELM: Final = "helm.sh/helm/v4/cmd/helm@v4.3.1"
TOOLS: Final = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "aios-tools"
DOCKER_SECONDS: Final = 60


def say(text: str) -> None:
    """Progress, on standard error."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def run(
    command: Sequence[str | Path], env: Mapping[str, str] | None = None, data: bytes | None = None
) -> str:
    """What a command prints. Raises CalledProcessError, with its errors shown."""
    done = subprocess.run(
        [str(part) for part in command], input=data, stdout=subprocess.PIPE, env=env, check=True
    )
    return done.stdout.decode()


class Machine:
    """Brings up what is missing, and takes away what it brought."""

    def __init__(self) -> None:
        self._dockerd: subprocess.Popen[bytes] | None = None
        self.script = Path(os.environ.get("AIOS_CLUSTER", SCRIPT))
        self.env = dict(os.environ)

    def up(self, image: str) -> None:
        """The image and the cluster. `env` then has KUBECONFIG, and finds kubectl and helm."""
        if not self.script.exists():
            if "KUBECONFIG" not in os.environ:
                sys.exit(
                    "Set KUBECONFIG to a cluster that has the image, or AIOS_CLUSTER to a script that makes one."
                )
            self.env["PATH"] = f"{helm().parent}:{self.env['PATH']}"
            return
        self._docker()
        self._image(image)
        say(f"the cluster, by {self.script.name}")
        run([self.script, "up"])
        for line in run([self.script, "env"]).splitlines():
            name, _, text = line.removeprefix("export ").partition("=")
            self.env[name] = text.strip("'\"").replace("$PATH", self.env["PATH"])
        run([self.script, "load", image])
        self.env["PATH"] = f"{helm().parent}:{self.env['PATH']}"

    def down(self) -> None:
        """Take the cluster away, and the Docker engine if it was not there before."""
        if self.script.exists():
            subprocess.run([self.script, "down"], check=False)
        if self._dockerd is not None:
            self._dockerd.terminate()
            self._dockerd.wait()

    def _docker(self) -> None:
        if _answers():
            return
        say("starting a Docker engine")
        with tempfile.NamedTemporaryFile("wb", prefix="aios-dockerd-", suffix=".log", delete=False) as log:
            self._dockerd = subprocess.Popen(["dockerd"], stdout=log, stderr=log)
        end = time.monotonic() + DOCKER_SECONDS
        while not _answers():
            if self._dockerd.poll() is not None or time.monotonic() > end:
                sys.exit(f"The Docker engine does not start; {log.name} says why.")
            time.sleep(0.2)

    def _image(self, image: str) -> None:
        base = os.environ.get("BASE_IMAGE", "")
        if not base:
            base = BASE_IMAGE
            if not run(["docker", "images", "--quiet", base]).strip():
                _make_base()
        say(f"building {image} on {base}")
        run(["make", "--silent", "-C", ROOT, "image", f"IMAGE={image}", f"BASE_IMAGE={base}"])


def _answers() -> bool:
    return subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0


def _make_base() -> None:
    """A Debian of its packages alone, for machines that can't pull one."""
    if shutil.which("debootstrap") is None:
        sys.exit("debootstrap is missing. On Debian: apt-get install debootstrap; or set BASE_IMAGE.")
    say("making a base image with debootstrap (once, a minute or two)")
    with tempfile.TemporaryDirectory(prefix="aios-base-") as place:
        root = Path(place) / "root"
        run(["debootstrap", "--variant=minbase", f"--include={BASE_PACKAGES}", "bookworm", root])
        certificates = Path("/etc/ssl/certs/ca-certificates.crt")
        if certificates.exists():  # what this machine trusts, where it reaches an index through a proxy
            shutil.copy(certificates, root / "etc/ssl/certs/ca-certificates.crt")
        packed = subprocess.Popen(["tar", "-C", root, "-c", "."], stdout=subprocess.PIPE)
        subprocess.run(
            ["docker", "import", "-", BASE_IMAGE], stdin=packed.stdout, check=True, stdout=subprocess.DEVNULL
        )


def helm() -> Path:
    """The real Helm: in the PATH, or built once into a cache by Go."""
    found = shutil.which("helm")
    if found is not None:
        return Path(found)
    built = TOOLS / "helm"
    if not built.exists():
        if shutil.which("go") is None:
            sys.exit("helm is missing. Install it, or Go, with which it is built here.")
        say("building helm (once, about two minutes)")
        run(["go", "install", HELM], {**os.environ, "GOBIN": str(TOOLS)})
    return built
