"""Images between a node and registries outside: another node, and the registry of the distribution project."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.support.cli import Cli
from tests.support.node import MULTI, RunningNode, running_node, write_function
from tests.support.processes import spawn
from tests.support.waiting import until

ADMIN = "a" * 40


@contextlib.contextmanager
def distribution(folder: Path) -> Iterator[str]:
    """Debian's docker-registry, without credentials; its host and port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        host = "127.0.0.1:{1}".format(*probe.getsockname())
    (folder / "registry.yml").write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {folder}/registry}}}}\n"
        f"http: {{addr: '{host}'}}\n"
    )
    with (folder / "registry.log").open("w") as log:
        process = spawn(["docker-registry", "serve", str(folder / "registry.yml")], stdout=log, stderr=log)
        try:
            assert until(lambda: answers(f"http://{host}/v2/"))
            yield host
        finally:
            process.terminate()
            process.wait(60)


def answers(url: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(url).status_code == 200
    return False


@contextlib.contextmanager
def other_node(folder: Path) -> Iterator[str]:
    """A node of Hearth that asks for tokens; its host and port."""
    folder.mkdir()
    with running_node("process", folder, "", FN_AUTH="required", FN_ADMIN_TOKEN=ADMIN) as node:
        yield node.url.removeprefix("http://")


@pytest.fixture(params=["hearth", "distribution"])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The host and port of a registry."""
    with other_node(tmp_path / "other") if request.param == "hearth" else distribution(tmp_path) as host:
        yield host


def built(folder: Path) -> Path:
    """A data folder whose image store has the test function."""
    client = folder / "client"
    (client / "source").mkdir(parents=True)
    write_function(client / "source", MULTI)
    Cli("", folder, FN_DATA_DIR=str(client))("build", "--driver", "process", client / "source")
    return client


def config(host: str, password: str = ADMIN) -> str:
    """A docker configuration with the credentials of a registry."""
    return json.dumps({"auths": {host: {"username": "hearth", "password": password}}})


@contextlib.contextmanager
def node_without_images(folder: Path, auth: str) -> Iterator[RunningNode]:
    folder.mkdir()
    with running_node("process", folder, "", DOCKER_AUTH=auth) as node:
        yield node


def test_an_image_goes_to_a_registry_and_runs_from_there(registry: str, tmp_path: Path) -> None:
    client = built(tmp_path)
    cli = Cli("", tmp_path, FN_DATA_DIR=str(client), DOCKER_AUTH=config(registry))
    reference = f"{registry}/shop/multi:1"
    assert cli("push", reference, "--image", "multi:1").startswith(f"Pushed {reference} (")
    assert cli("push", reference, "--image", "multi:1").rstrip() == f"Pushed {reference} (0 bytes)"
    with node_without_images(tmp_path / "node", config(registry)) as node:
        made = node.http.put("/v1/apps/a/routes/f", json={"route": {"image": reference, "format": "http"}})
        route = made.json()["route"]
        assert route["image"] == reference
        assert node.http.post("/r/a/f", json={"echo": "x"}).text == "x"
        assert node.http.get("/v1/apps/a/routes/f").json()["route"]["digest"] == route["digest"]
        assert "hearth_image_bytes_pulled{" in node.http.get("/metrics").text
    again = Cli("", tmp_path, FN_DATA_DIR=str(tmp_path / "again"), DOCKER_AUTH=config(registry))
    assert again("pull", reference).rstrip() == f"Pulled {reference} as {route['digest']}"
    (listed,) = again.json("images", "list", "-o", "json")
    assert (listed["name"], listed["digest"]) == (reference, route["digest"])
    assert "no damage" in again("images", "verify")


def test_a_registry_that_refuses_is_named_to_the_caller(tmp_path: Path) -> None:
    with other_node(tmp_path / "other") as host, node_without_images(tmp_path / "node", config(host, "wrong")) as node:
        reference = f"{host}/shop/none:1"
        made = node.http.put("/v1/apps/a/routes/f", json={"route": {"image": reference}})
        assert "digest" not in made.json()["route"]
        answer = node.http.post("/r/a/f")
        assert answer.status_code == 401
        assert reference in answer.json()["error"]["message"]
        cli = Cli("", tmp_path, FN_DATA_DIR=str(tmp_path / "client"), DOCKER_AUTH=config(host))
        assert "404" in cli.fails(1, "pull", reference)
        assert "names no registry" in cli.fails(1, "pull", "greet:1")
        assert "no such image" in cli.fails(1, "push", reference)


def test_skopeo_reads_what_was_pushed(registry: str, tmp_path: Path) -> None:
    client = built(tmp_path)
    reference = f"{registry}/shop/multi:1"
    Cli("", tmp_path, FN_DATA_DIR=str(client), DOCKER_AUTH=config(registry))("push", reference, "--image", "multi:1")
    asked = ["skopeo", "inspect", "--tls-verify=false", "--creds", f"hearth:{ADMIN}", f"docker://{reference}"]
    done = subprocess.run(asked, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["Labels"]["io.hearth.base"] == "host"
