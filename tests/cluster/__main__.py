"""`make cluster-test`: the chart on a real Kubernetes; the report there, with pods deleted in the middle of it.

A client's month is put into the files volume while AIOS runs; what follows is done through the gRPC API. The outputs
must be those of the same month on one machine, and the files must be there exactly once.
"""

import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tests.cluster.machine import ROOT, Machine, run, say
from tests.drill.served import CLIENT, MONTH, REPORT, SAMPLE, Served

IMAGE: Final = "aios:cluster-test"
RELEASE: Final = "aios"
NAMESPACE: Final = "aios-cluster-test"
WAIT_SECONDS: Final = 180
NUMBERS: Final = ("total_hours", "billed", "invoiced", "outstanding", "accepted_rows", "rejected_rows")


class Cluster:
    """The installed chart, and a client of it."""

    def __init__(self, machine: Machine) -> None:
        self._env = machine.env
        self.token = ""
        self.address = ""

    def kubectl(self, *arguments: str, data: bytes | None = None) -> str:
        return run(["kubectl", "--namespace", NAMESPACE, *arguments], self._env, data)

    def helm(self, *arguments: str) -> str:
        return run(["helm", "--namespace", NAMESPACE, *arguments], self._env)

    def install(self) -> None:
        """Install, and wait until every pod is ready."""
        repository, _, tag = IMAGE.partition(":")
        self.helm(
            "install", RELEASE, str(ROOT / "charts" / "aios"), "--create-namespace", "--wait", "--timeout", "3m",
            "--set", f"image.repository={repository},image.tag={tag}",
        )  # fmt: skip
        secret = json.loads(self.kubectl("get", "secret", f"{RELEASE}-token", "--output=json"))
        service = json.loads(self.kubectl("get", "service", f"{RELEASE}-gateway", "--output=json"))
        self.address = f"{service['spec']['clusterIP']}:7400"
        self.token = subprocess.run(
            ["base64", "--decode"], input=secret["data"]["token"].encode(), capture_output=True, check=True
        ).stdout.decode()

    def aios(self, *arguments: str) -> Any:
        """What the command line, from outside of the cluster, prints as JSON; it waits for a gateway that is away."""
        env = {**os.environ, "AIOS_ADDRESS": self.address, "AIOS_TOKEN": self.token}
        command = [sys.executable, "-m", "aios_cli", *arguments, "--json"]
        done = subprocess.run(command, capture_output=True, check=False, env=env, timeout=120)
        return json.loads(done.stdout) if done.stdout else {"error": {"message": done.stderr.decode()}}

    def put_month(self) -> None:
        """A client's month into the volume, as somebody with a shell would."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            archive.add(SAMPLE / CLIENT / MONTH, f"{CLIENT}/{MONTH}")
        unpack = "import sys, tarfile; tarfile.open(fileobj=sys.stdin.buffer, mode='r|').extractall('/files')"
        self.kubectl(
            "exec",
            "--stdin",
            self._pod("connector-files"),
            "--",
            "python",
            "-c",
            unpack,
            data=packed.getvalue(),
        )

    def report(self) -> dict[str, str]:
        """The files of the report and their contents."""
        look = (
            "import json, pathlib, sys; place = pathlib.Path('/files') / sys.argv[1] / sys.argv[2] / 'report'\n"
            "print(json.dumps({file.name: file.read_text() for file in place.iterdir()} if place.is_dir() else {}))"
        )
        found: dict[str, str] = json.loads(
            self.kubectl("exec", self._pod("connector-files"), "--", "python", "-c", look, CLIENT, MONTH)
        )
        return found

    def delete_pod(self, component: str) -> None:
        """At once, without a grace period: what it was doing is cut off."""
        say(f"deleting the pod of {component}")
        self.kubectl("delete", "pod", self._pod(component), "--grace-period=0", "--force", "--wait=false")

    def _pod(self, component: str) -> str:
        selector = f"app.kubernetes.io/component={component}"
        end = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < end:
            pods = json.loads(self.kubectl("get", "pods", "--selector", selector, "--output=json"))["items"]
            for pod in pods:
                statuses = pod["status"].get("containerStatuses", [])
                if "deletionTimestamp" not in pod["metadata"] and statuses and statuses[0]["ready"]:
                    return str(pod["metadata"]["name"])
            time.sleep(0.2)
        raise AssertionError(f"no pod of {component} is ready")


def until(what: str, look: Callable[[], Any]) -> Any:
    """What `look` gives as soon as it is something."""
    say(f"waiting for {what}")
    end = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(0.2)
    raise AssertionError(f"{what}: not within {WAIT_SECONDS} s")


def listed(answer: Any) -> list[Any]:
    """The items of an answer; none while nobody answers."""
    return answer if isinstance(answer, list) else []


def on_one_machine() -> Any:
    """The outputs of the same month, embedded."""
    with tempfile.TemporaryDirectory(prefix="aios-cluster-test-") as place, Served(Path(place)) as served:
        run_ = served.aios(
            "run",
            "start",
            "monthly-client-report",
            "--input",
            f"client={CLIENT}",
            "--input",
            f"month={MONTH}",
            "--wait",
        )
        served.aios("approval", "approve", run_["pending_approvals"][0])
        return until("the same on one machine", lambda: _ended(served.aios("run", "show", run_["run_id"])))[
            "outputs"
        ]


def _ended(shown: Any) -> Any:
    return shown if isinstance(shown, dict) and shown.get("state") == "succeeded" else None


def scenario(cluster: Cluster) -> None:
    """Install, put a month in, delete pods in the middle, approve, delete again, look, undo."""
    say("installing the chart")
    cluster.install()
    say("ready")
    cluster.put_month()
    started = until("the run that the folder starts", lambda: listed(cluster.aios("run", "list")))[0]
    cluster.delete_pod("orchestrator")
    cluster.delete_pod("agent-runner")
    approval = until("the approval", lambda: listed(cluster.aios("approval", "list")))[0]
    decided = cluster.aios("approval", "approve", approval["approval_id"])
    assert "error" not in decided, decided
    cluster.delete_pod("connector-files")
    cluster.delete_pod("memory")
    ended = until("the end of the run", lambda: _ended(cluster.aios("run", "show", started["run_id"])))
    report = cluster.report()
    assert sorted(report) == sorted(REPORT), sorted(report)
    assert len(report["index.jsonl"].splitlines()) == 1, report["index.jsonl"]
    expected = on_one_machine()
    for name in NUMBERS:
        assert ended["outputs"][name] == expected[name], (name, ended["outputs"][name], expected[name])
    say(f"the report is there once, its numbers are those of one machine: {expected['total_hours']} hours")
    cluster.aios("run", "undo", started["run_id"])
    until("the undo", lambda: cluster.report() == {})
    say("undone")


def main() -> None:
    """All of it; what was brought up is taken away again, whatever happens."""
    machine = Machine()
    began = time.monotonic()
    try:
        machine.up(IMAGE)
        cluster = Cluster(machine)
        say(f"the cluster is up after {time.monotonic() - began:.0f} s")
        began = time.monotonic()
        scenario(cluster)
        say(f"the cluster test passed in {time.monotonic() - began:.0f} s")
    finally:
        machine.down()


if __name__ == "__main__":
    main()
