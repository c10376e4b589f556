"""The clients of registries that people use, against a node: skopeo, docker, and the library oras."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import oras.client
import pytest
from tests.support.cli import Cli
from tests.support.docker_images import python_image
from tests.support.node import MULTI, RunningNode, running_node

ADMIN = "a" * 40


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    """A node that asks for tokens, on a port of this machine."""
    data = tmp_path_factory.mktemp("data")
    with running_node("process", data, "", FN_AUTH="required", FN_ADMIN_TOKEN=ADMIN) as made:
        made.http.headers["Authorization"] = f"Bearer {ADMIN}"
        yield made


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image layout with the test function, made by a build of this machine."""
    data = tmp_path_factory.mktemp("client")
    source = data / "source"
    source.mkdir()
    (source / "func.py").write_bytes(MULTI.read_bytes())
    (source / "func.yaml").write_text("name: multi\nversion: '1'\nruntime: python\n")
    Cli("", data, FN_DATA_DIR=str(data))("build", "--driver", "process", source)
    return data / "images"


def host(node: RunningNode) -> str:
    return node.url.removeprefix("http://")


def skopeo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["skopeo", *arguments], capture_output=True, text=True)


def deployer(node: RunningNode, *apps: str) -> str:
    """A token that may deploy to some apps."""
    asked = {"name": "test", "role": "deployer", "apps": list(apps)}
    made = node.http.post("/v1/tokens", json={"token": asked})
    assert made.status_code in (200, 201), made.text
    return str(made.json()["token"]["value"])


def test_skopeo_reads_the_store_of_builds(layout: Path) -> None:
    done = skopeo("inspect", f"oci:{layout}:multi:1")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["Labels"]["io.hearth.base"] == "host"


def test_skopeo_pushes_an_image_that_runs_and_pulls_it_again(node: RunningNode, layout: Path, tmp_path: Path) -> None:
    place = f"docker://{host(node)}/sk/multi:1"
    pushed = skopeo(
        *("copy", "--insecure-policy", "--dest-tls-verify=false", "--dest-creds", f"hearth:{ADMIN}"),
        *(f"oci:{layout}:multi:1", place),
    )
    assert pushed.returncode == 0, pushed.stderr
    made = node.http.put("/v1/apps/sk/routes/multi", json={"route": {"image": "sk/multi:1", "format": "http"}})
    assert made.status_code == 200, made.text
    assert node.http.post("/r/sk/multi", json={"echo": "x"}).text == "x"
    credentials = ("--src-tls-verify=false", "--src-creds", f"hearth:{ADMIN}")
    pulled = skopeo("copy", "--insecure-policy", *credentials, place, f"oci:{tmp_path}/copy:1")
    assert pulled.returncode == 0, pulled.stderr
    (copied,) = json.loads((tmp_path / "copy" / "index.json").read_text())["manifests"]
    entries = json.loads((layout / "index.json").read_text())["manifests"]
    assert copied["digest"] in [entry["digest"] for entry in entries]
    listed = skopeo("list-tags", "--tls-verify=false", "--creds", f"hearth:{ADMIN}", place.removesuffix(":1"))
    assert json.loads(listed.stdout)["Tags"] == ["1"]
    removed = skopeo("delete", "--tls-verify=false", "--creds", f"hearth:{ADMIN}", place)
    assert removed.returncode == 0, removed.stderr
    assert node.http.get("/v2/sk/multi/tags/list").json()["tags"] == []


def test_a_token_pushes_to_its_apps_only(node: RunningNode, layout: Path) -> None:
    token = deployer(node, "mine")

    def push(app: str, shown: str) -> subprocess.CompletedProcess[str]:
        return skopeo(
            *("copy", "--insecure-policy", "--dest-tls-verify=false", "--dest-creds", f"x:{shown}"),
            *(f"oci:{layout}:multi:1", f"docker://{host(node)}/{app}/multi:1"),
        )

    assert push("mine", token).returncode == 0
    assert push("theirs", token).returncode != 0
    assert push("mine", "wrong").returncode != 0
    assert node.http.get("/v2/theirs/multi/tags/list").status_code == 404


def test_docker_pushes_and_pulls(node: RunningNode, tmp_path: Path) -> None:
    image = f"{host(node)}/dock/er:1"

    def docker(*arguments: str, stdin: str = "") -> str:
        command = ["docker", "--config", str(tmp_path), *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    docker("login", "--username", "hearth", "--password-stdin", host(node), stdin=ADMIN)
    local = python_image(MULTI)
    docker("tag", local, image)
    try:
        docker("push", image)
        assert node.http.get("/v2/dock/er/tags/list").json()["tags"] == ["1"]
        docker("rmi", image)
        docker("pull", image)
        assert docker("image", "inspect", "--format", "{{.Id}}", image) == docker(
            "image", "inspect", "--format", "{{.Id}}", local
        )
    finally:
        subprocess.run(["docker", "rmi", image], capture_output=True)
    assert list(verified(node)) == []


def verified(node: RunningNode) -> list[str]:
    """The damages that the node's operator is shown."""
    told = Cli("", node.data, FN_DATA_DIR=str(node.data))("images", "verify")
    return [line for line in told.splitlines() if "no damage" not in line]


def test_an_image_that_was_pushed_runs_without_an_engine(node: RunningNode) -> None:
    subprocess.run(["docker", "tag", local := python_image(MULTI), "hearth-test/full:1"], check=True)
    pushed = skopeo(
        *("copy", "--insecure-policy", "--dest-tls-verify=false", "--dest-creds", f"hearth:{ADMIN}"),
        *(f"docker-daemon:{local}", f"docker://{host(node)}/full/f:1"),
    )
    subprocess.run(["docker", "rmi", "hearth-test/full:1"], capture_output=True)
    assert pushed.returncode == 0, pushed.stderr
    node.http.put("/v1/apps/full/routes/f", json={"route": {"image": "full/f:1"}})
    run = """
def writes(folder):
    try:
        open(folder + '/new', 'w').close()
    except OSError:
        return False
    return True
orders['echo'] = repr((os.getuid(), writes('/tmp'), writes('/')))
"""
    node.http.put("/v1/apps/full/routes/s", json={"route": {"image": "full/f:1", "format": "http-stream"}})
    for path, told in (("f", "(0, True, True)"), ("s", "(1000, True, False)")):
        for _ in range(2):  # the second one in the same container, if that is hot
            answer = node.http.post(f"/r/full/{path}", json={"run": run})
            assert (answer.status_code, answer.text) == (200, told)


def test_an_image_that_only_the_engine_has_runs_without_it(node: RunningNode) -> None:
    name = f"hearth-test-local-{os.getpid()}/f:1"
    subprocess.run(["docker", "tag", python_image(MULTI), name], check=True)
    node.http.put("/v1/apps/built/routes/f", json={"route": {"image": name}})
    try:
        answers = [node.http.post("/r/built/f", content=b"word")]
    finally:
        subprocess.run(["docker", "rmi", name], check=True, capture_output=True)
    answers.append(node.http.post("/r/built/f", content=b"word"))
    assert [(answer.status_code, answer.text) for answer in answers] == [(200, "word")] * 2
    assert node.http.get("/v1/apps/built/routes/f").json()["route"]["digest"].startswith("sha256:")
    node.http.put("/v1/apps/built/routes/g", json={"route": {"image": name.replace("/f:1", "/g:1")}})
    missing = node.http.post("/r/built/g")
    assert missing.status_code == 404, missing.text
    assert list(verified(node)) == []


def test_oras_pushes_and_pulls_any_artifact(node: RunningNode, tmp_path: Path) -> None:
    client: Any = oras.client.OrasClient(hostname=host(node), insecure=True, auth_backend="basic")
    client.login(username="hearth", password=ADMIN, hostname=host(node), config_path=str(tmp_path / "auth.json"))
    (tmp_path / "notes.txt").write_text("an artifact")
    target = f"{host(node)}/arti/facts:1"
    options: dict[str, Any] = {"files": [str(tmp_path / "notes.txt")], "disable_path_validation": True, "quiet": True}
    assert client.push(target=target, **options).status_code == 201
    chunked = client.push(target=f"{host(node)}/arti/chunked:1", do_chunked=True, chunk_size=4, **options)
    assert chunked.status_code == 201, chunked.text
    out = tmp_path / "out"
    (found,) = client.pull(target=target, outdir=str(out))
    assert Path(found).read_text() == "an artifact"
    assert client.get_tags(f"{host(node)}/arti/facts") == ["1"]
