"""What is shipped as an image starts, serves, and stops."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import httpx
import pytest
from tests.support.containers import docker, docker_logs, running, serving, wait_until
from tests.support.machine_image import PREFIX
from tests.support.node import MULTI

#: What bubblewrap needs from Docker: user namespaces, mounts in them, a /proc that is not masked.
_SANDBOX = ["seccomp=unconfined", "apparmor=unconfined", "systempaths=unconfined"]


def bundle(folder: Path) -> Path:
    """A function without a build step, for the interpreter that the image has."""
    files = folder / "bundles" / "multi" / "1" / "function"
    files.mkdir(parents=True)
    (files / "func.py").write_bytes(MULTI.read_bytes())
    manifest = {"cmd": [f"{PREFIX}/bin/python3", "func.py"], "roots": [str(PREFIX)], "format": "json"}
    (files.parent / "bundle.json").write_text(json.dumps(manifest))
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder / "bundles"


@pytest.mark.parametrize("walls", [_SANDBOX, []], ids=["sandboxed", "as docker makes it"])
def test_a_node_serves_processes_and_stops_when_told(image: str, tmp_path: Path, walls: list[str]) -> None:
    options = [f"--security-opt={option}" for option in walls]
    options.append("--health-interval=1s")  # of the image's own check
    bundles = bundle(tmp_path)
    with running(image, *options, "-e", "FN_DRIVER=process", "-v", f"{bundles}:/app/data/bundles:ro") as node:
        url = serving(node)
        route = {"image": "multi:1", "format": "json"}
        httpx.put(f"{url}/v1/apps/a/routes/f", json={"route": route}, timeout=60).raise_for_status()
        assert httpx.post(f"{url}/r/a/f", json={"echo": "hello"}, timeout=60).text == "hello"
        assert ("WITHOUT a sandbox" in docker_logs(node)) is not bool(walls)
        wait_until(lambda: docker("inspect", "--format", "{{.State.Health.Status}}", node) == "healthy")
        docker("kill", "--signal", signal.SIGTERM.value, node)
        assert docker("wait", node) == "0"
        assert "server stopped" in docker_logs(node)


def test_it_is_not_root_and_carries_no_build_tools(image: str) -> None:
    look = "import os, shutil, importlib.util as u; print(os.getuid(), u.find_spec('pip'), u.find_spec('hatchling'))"
    assert docker("run", "--rm", "--entrypoint", "/opt/hearth/bin/python", image, "-c", look) == "10001 None None"
    config = json.loads(docker("image", "inspect", image))[0]["Config"]
    assert config["User"] == "10001:10001"
    assert list(config["ExposedPorts"]) == ["8080/tcp"]
    assert config["Healthcheck"]["Test"]


def test_what_it_installs_is_what_was_tested() -> None:
    root = Path(__file__).parent.parent.parent
    tested = set(pins(root / "requirements.lock"))
    for name in ("requirements.lock", "build.lock"):
        shipped = set(pins(root / "deploy" / name))
        assert shipped
        assert shipped <= tested, "make lock renews it"


def pins(lock: Path) -> list[str]:
    lines = lock.read_text().splitlines()
    return [line.split()[0] for line in lines if "==" in line and not line.startswith((" ", "#"))]
