"""The manifests are valid, and agree with each other and with what a node does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from hearth.models.errors import StartUpError
from hearth.settings import Settings, load
from hearth.stores.secrets.keyring import Keyring, KeyUnusable

FOLDER = Path(__file__).parent.parent.parent / "deploy" / "kubernetes"
KUSTOMIZATION = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
MANIFESTS = [
    manifest for name in KUSTOMIZATION["resources"] for manifest in yaml.safe_load_all((FOLDER / name).read_text())
]
VERSIONS = ("1.30", "1.33", kubernetes_validate.latest_version())
KNOWN = {str(field.validation_alias) for field in Settings.model_fields.values()}


def named(kind: str) -> dict[str, Any]:
    return {manifest["metadata"]["name"]: manifest for manifest in MANIFESTS if manifest["kind"] == kind}


PODS = {
    name: manifest["spec"]["template"] for kind in ("Deployment", "DaemonSet") for name, manifest in named(kind).items()
}


def node(pod: dict[str, Any]) -> dict[str, Any]:
    (container,) = pod["spec"]["containers"]
    return dict(container)


def test_every_file_is_applied() -> None:
    assert {path.name for path in FOLDER.glob("*.yaml")} == {*KUSTOMIZATION["resources"], "kustomization.yaml"}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda found: f"{found['kind']} {found['metadata']['name']}")
def test_a_manifest_is_valid(manifest: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(manifest, version, strict=True)


def test_an_invalid_manifest_is_told() -> None:
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**MANIFESTS[0], "specc": {}}, VERSIONS[0], strict=True)


@pytest.mark.parametrize("pod", PODS.values(), ids=PODS)
def test_a_pod_ends_after_the_node_has_drained(pod: dict[str, Any]) -> None:
    given = {variable["name"]: variable["value"] for variable in node(pod)["env"]}
    needed = float(given["FN_DRAIN_DELAY_S"]) + float(given["FN_GRACE_S"])
    assert needed < pod["spec"]["terminationGracePeriodSeconds"]
    ready = node(pod)["readinessProbe"]
    assert ready["periodSeconds"] * ready["failureThreshold"] < float(given["FN_DRAIN_DELAY_S"])


@pytest.mark.parametrize("pod", PODS.values(), ids=PODS)
def test_a_pod_has_the_settings_and_the_walls_that_it_needs(pod: dict[str, Any]) -> None:
    container = node(pod)
    names = {variable["name"] for variable in container["env"]}
    for source in container["envFrom"]:
        if "configMapRef" in source:
            names |= set(named("ConfigMap")[source["configMapRef"]["name"]]["data"])
        else:
            names |= set(named("Secret")[source["secretRef"]["name"]]["stringData"])
    assert names <= KNOWN
    assert {"FN_AUTH", "FN_ADMIN_TOKEN", "FN_RUNNER_TOKEN"} <= names
    assert named("ConfigMap")["hearth"]["data"]["FN_AUTH"] == "required"
    paths = {probe: container[probe]["httpGet"]["path"] for probe in ("livenessProbe", "readinessProbe")}
    assert paths == {"livenessProbe": "/healthz", "readinessProbe": "/readyz"}
    walls = container["securityContext"]
    assert walls["readOnlyRootFilesystem"]
    assert not walls["allowPrivilegeEscalation"]
    assert walls["capabilities"] == {"drop": ["ALL"]}
    assert pod["spec"]["securityContext"]["runAsNonRoot"]


def test_runners_do_not_hold_the_keys_of_the_stores() -> None:
    sources = [source.get("secretRef", {}).get("name") for source in node(PODS["hearth-runner"])["envFrom"]]
    assert "hearth-stores" not in sources


def test_services_policies_and_budgets_mean_pods_that_exist() -> None:
    labels = [pod["metadata"]["labels"] for pod in PODS.values()]
    selectors = [service["spec"]["selector"] for service in named("Service").values()]
    selectors += [budget["spec"]["selector"]["matchLabels"] for budget in named("PodDisruptionBudget").values()]
    selectors += [policy["spec"]["podSelector"]["matchLabels"] for policy in named("NetworkPolicy").values()]
    assert selectors
    for selector in selectors:
        assert any(selector.items() <= given.items() for given in labels)
    served = [path for rule in named("Ingress")["hearth"]["spec"]["rules"] for path in rule["http"]["paths"]]
    assert {path["backend"]["service"]["name"] for path in served} <= set(named("Service"))
    assert not [path for path in served if "/v1/runner".startswith(path["path"])]


@pytest.mark.parametrize(
    ("path", "service"),
    [
        *((path, "hearth-runner") for path in ("/r/shop/f", "/invoke/01", "/t/shop/f")),
        *((path, "hearth-api") for path in ("/v1/apps", "/v1/apps/shop/secrets/A", "/v1/tokens/01", "/v1/audit")),
        *((path, "hearth-api") for path in ("/v2/fns", "/v2/shop/f/blobs/uploads/", "/version")),
        *((path, None) for path in ("/v1/runner/async", "/metrics", "/shutdown", "/ui/")),
    ],
)
def test_a_path_leads_to_the_nodes_that_serve_it(path: str, service: str | None) -> None:
    rules = [path for rule in named("Ingress")["hearth"]["spec"]["rules"] for path in rule["http"]["paths"]]
    fits = [rule for rule in rules if path == rule["path"] or path.startswith(f"{rule['path']}/")]
    assert [rule["backend"]["service"]["name"] for rule in fits] == ([] if service is None else [service])


@pytest.mark.parametrize("version", VERSIONS)
def test_the_certificate_that_the_page_adds_to_the_ingress_is_valid_there(version: str) -> None:
    page = (FOLDER.parents[1] / "docs" / "howto" / "tls.md").read_text()
    added = yaml.safe_load(page.partition("```yaml\n")[2].partition("```")[0])
    ingress = named("Ingress")["hearth"]
    kubernetes_validate.validate({**ingress, "spec": {**ingress["spec"], **added}}, version, strict=True)


def test_all_api_nodes_have_one_key_of_secrets_and_runners_have_none() -> None:
    assert "FN_SECRET_KEY" in named("Secret")["hearth-stores"]["stringData"]
    assert "FN_SECRET_KEY" not in named("Secret")["hearth-nodes"]["stringData"]


def test_a_node_does_not_start_with_the_placeholders_of_the_manifests() -> None:
    placeholders = named("Secret")["hearth-nodes"]["stringData"]
    for name, value in placeholders.items():
        with pytest.raises(StartUpError, match=f"{name}=.*choose a secret of your own"):
            load(**{name: value})
    key = Keyring(named("Secret")["hearth-stores"]["stringData"]["FN_SECRET_KEY"], None, Path("none"))
    with pytest.raises(KeyUnusable, match="FN_SECRET_KEY"):
        key.load()


def test_what_a_runner_keeps_outlives_its_pod() -> None:
    (data,) = [volume for volume in PODS["hearth-runner"]["spec"]["volumes"] if volume["name"] == "data"]
    assert data["hostPath"]["type"] == "Directory", "one that Kubernetes makes would belong to root"


def test_the_monitor_finds_every_service() -> None:
    """There is no schema of it here: only what it says of the services is looked at."""
    monitor = yaml.safe_load((FOLDER / "optional" / "servicemonitor.yaml").read_text())
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["path"] == "/metrics"
    credentials = endpoint["authorization"]["credentials"]
    assert credentials["key"] in named("Secret")[credentials["name"]]["stringData"]
    for service in named("Service").values():
        assert wanted <= service["metadata"]["labels"].items()
        assert endpoint["port"] in [port["name"] for port in service["spec"]["ports"]]
    assert monitor["metadata"]["namespace"] in named("Namespace")
