"""The chart: it lints, its manifests are valid Kubernetes, and it says the same as the launcher's module table."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import helm_python
import kubernetes_validate
import pytest
import yaml

from aios_cli.launcher.modules import MODULES
from aios_cli.version import VERSION
from aios_runtime.bus.permissions import identities
from aios_runtime.bus.topology import DEFAULT_CONNECTORS

CHART = Path(__file__).resolve().parents[2] / "charts" / "aios"
KUBERNETES = ("1.28", "1.34")
WORKLOADS = ("Deployment", "StatefulSet")
EXTERNAL = {"nats": {"enabled": False, "url": "nats://bus.example:4222"}}
OWN_SECRETS = {"secrets": {"bus": "my-bus", "token": "my-token"}, "files": {"existingClaim": "clients"}}


@pytest.fixture(scope="module")
def chart() -> Iterator[helm_python.Chart]:
    loaded = helm_python.Chart.load(CHART)
    yield loaded
    loaded.close()


def rendered(chart: helm_python.Chart, values: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    files = chart.render(values or {}, name="mine", namespace="office")
    documents = [
        document
        for path, text in files.items()
        if path.endswith(".yaml")
        for document in yaml.safe_load_all(text)
    ]
    return [document for document in documents if document]


def workloads(documents: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The workloads by their component."""
    return {
        document["metadata"]["labels"]["app.kubernetes.io/component"]: document
        for document in documents
        if document["kind"] in WORKLOADS
    }


def pod(workload: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = workload["spec"]["template"]["spec"]
    return found


def test_the_chart_lints_without_a_warning() -> None:
    report = helm_python.lint(CHART, {}, strict=True)
    assert [message for message in report["messages"] if message["severity"] >= 2] == []
    assert report["errors"] == []


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize(
    "values", [{}, EXTERNAL, OWN_SECRETS, {"telemetry": {"endpoint": "http://collector:4317", "ratio": 0.1}}]
)
def test_every_manifest_is_valid_for_kubernetes(
    chart: helm_python.Chart, values: dict[str, Any], version: str
) -> None:
    documents = rendered(chart, values)
    assert documents
    for document in documents:
        kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.feature("L2")
def test_there_is_one_workload_for_each_service_of_the_module_table(chart: helm_python.Chart) -> None:
    found = workloads(rendered(chart))
    assert set(found) == set(MODULES) | {"nats"}
    for name, module in MODULES.items():
        assert found[name]["kind"] == ("StatefulSet" if module.stores else "Deployment")
        assert f"--target={name}" in pod(found[name])["containers"][0]["args"]
        if module.stores:
            assert found[name]["spec"]["replicas"] == 1


def test_every_pod_keeps_to_the_restricted_profile(chart: helm_python.Chart) -> None:
    for workload in workloads(rendered(chart)).values():
        spec = pod(workload)
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
        for container in spec["containers"]:
            own = container["securityContext"]
            assert own["readOnlyRootFilesystem"] is True
            assert own["allowPrivilegeEscalation"] is False
            assert own["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"]
            assert {"readinessProbe", "livenessProbe"} <= set(container)


def test_a_service_sees_its_own_bus_password_and_no_other(chart: helm_python.Chart) -> None:
    documents = rendered(chart)
    for name in MODULES:
        (volume,) = [
            volume for volume in pod(workloads(documents)[name])["volumes"] if volume["name"] == "bus"
        ]
        assert volume["secret"]["items"] == [{"key": name, "path": name}]
    (secret,) = [document for document in documents if document["metadata"]["name"] == "mine-aios-bus"]
    assert set(secret["data"]) == set(identities(DEFAULT_CONNECTORS))
    assert len(set(secret["data"].values())) == len(secret["data"])


def test_secrets_are_references_and_never_variables(chart: helm_python.Chart) -> None:
    documents = rendered(chart, OWN_SECRETS)
    assert not [document for document in documents if document["kind"] == "Secret"]
    for name, workload in workloads(documents).items():
        for container in pod(workload)["containers"]:
            for variable in container.get("env", []):
                assert "valueFrom" not in variable, (name, variable)
        used = {volume["secret"]["secretName"] for volume in pod(workload)["volumes"] if "secret" in volume}
        assert used <= {"my-bus", "my-token"}


def test_an_external_bus_takes_the_place_of_the_charts_own(chart: helm_python.Chart) -> None:
    found = workloads(rendered(chart, EXTERNAL))
    assert "nats" not in found
    for workload in found.values():
        environment = {
            variable["name"]: variable["value"] for variable in pod(workload)["containers"][0]["env"]
        }
        assert environment["AIOS_NATS_URL"] == "nats://bus.example:4222"
    with pytest.raises(helm_python.HelmError, match=r"nats\.url is needed"):
        rendered(chart, {"nats": {"enabled": False}})


def test_options_become_the_services_own_settings(chart: helm_python.Chart) -> None:
    found = workloads(
        rendered(chart, {"services": {"connector-files": {"options": {"settle_seconds": 2.5}}}})
    )
    environment = pod(found["connector-files"])["containers"][0]["env"]
    assert {"name": "AIOS_CONNECTOR_FILES_SETTLE_SECONDS", "value": "2.5"} in environment


@pytest.mark.parametrize(
    "values",
    [
        {"replicas": 2},
        {"services": {"memory": {"replicas": 2}}},
        {"services": {"connector-mail": {}}},
        {"services": {"agent-runner": {"replicas": -1}}},
        {"nats": {"url": "http://bus"}},
        {"telemetry": {"ratio": 2}},
        {"workspace": "My Office"},
        {"image": {"pullPolicy": "Sometimes"}},
    ],
)
def test_the_schema_refuses_what_cannot_be_set(chart: helm_python.Chart, values: dict[str, Any]) -> None:
    with pytest.raises(helm_python.HelmError):
        chart.validate_schema(chart.merge_values(values))


def test_the_default_values_keep_to_the_schema(chart: helm_python.Chart) -> None:
    chart.validate_schema(chart.merge_values({}))


def test_the_chart_has_the_version_of_the_code() -> None:
    described = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (described["version"], described["appVersion"]) == (VERSION, VERSION)
