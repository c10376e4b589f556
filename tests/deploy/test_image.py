"""What is shipped as an image starts, serves, and stops."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import httpx
import pytest
from tests.support.containers import docker, docker_logs, running, serving, wait_until
from tests.support.machine_image import PREFIX
from tests.support.node import MULTI

#: What bubblewrap needs from Docker: user namespaces, mounts in them, a /proc that is not masked.
_SANDBOX = ["seccomp=unconfined", "apparmor=unconfined", "systempaths=unconfined"]

#: Leaves processes to the first one of the container, or of the sandbox.
ORPHANS = """
import os
for _ in range(5):
    if os.fork() == 0:
        if os.fork() == 0:
            os._exit(0)
        os._exit(0)
    os.wait()
"""
COUNT_ZOMBIES = """
import contextlib, glob
found = 0
for path in glob.glob("/proc/[0-9]*/stat"):
    with contextlib.suppress(OSError):
        found += ") Z " in open(path).read()
print(found)
"""


def bundle(folder: Path) -> Path:
    """A function without a build step, for the interpreter that the image has."""
    files = folder / "bundles" / "multi" / "1" / "function"
    files.mkdir(parents=True)
    (files / "func.py").write_bytes(MULTI.read_bytes())
    manifest = {"cmd": [f"{PREFIX}/bin/python3", "func.py"], "roots": [str(PREFIX)], "format": "json"}
    (files.parent / "bundle.json").write_text(json.dumps(manifest))
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    (folder / "bundles").chmod(0o777)  # the node's user writes there what functions see of /etc
    return folder / "bundles"


@pytest.mark.parametrize("walls", [_SANDBOX, []], ids=["sandboxed", "as docker makes it"])
def test_a_node_serves_processes_and_stops_when_told(image: str, tmp_path: Path, walls: list[str]) -> None:
    options = ["--cap-drop=ALL", *[f"--security-opt={option}" for option in walls]]
    options.append("--health-interval=1s")  # of the image's own check
    bundles = bundle(tmp_path)
    mounted = ["-e", "FN_DRIVER=process", "-v", f"{bundles}:/app/data/bundles"]
    with running(image, *options, *mounted, init=False) as node:
        url = serving(node)
        route = {"image": "multi:1", "format": "json"}
        assert httpx.put(f"{url}/v1/apps/a/routes/f", json={"route": route}, timeout=60).status_code == 401
        token = logged_token(node)
        headers = {"Authorization": f"Bearer {token}"}
        httpx.put(f"{url}/v1/apps/a/routes/f", json={"route": route}, timeout=60, headers=headers).raise_for_status()
        assert (
            json.loads(docker("exec", "-e", "HOME=/tmp", node, "hearth", "apps", "list", "-o", "json"))[0]["name"]
            == "a"
        )
        assert httpx.post(f"{url}/r/a/f", json={"echo": "hello"}, timeout=60).text == "hello"
        assert httpx.post(f"{url}/r/a/f", json={"run": ORPHANS, "echo": "left"}, timeout=60).text == "left"
        wait_until(lambda: docker("exec", node, "/opt/hearth/bin/python", "-c", COUNT_ZOMBIES) == "0")
        assert ("without a sandbox" in docker_logs(node)) is not bool(walls)
        wait_until(lambda: docker("inspect", "--format", "{{.State.Health.Status}}", node) == "healthy")
        docker("kill", "--signal", signal.SIGTERM.value, node)
        assert docker("wait", node) == "0"
        assert "server stopped" in docker_logs(node)


def logged_token(node: str) -> str:
    """The token that the first start made."""
    (token,) = re.findall(r"admin_token=(\S+)", docker_logs(node))
    return str(token)


def test_it_is_not_root_and_carries_no_build_tools(image: str) -> None:
    look = "import os, shutil, importlib.util as u; print(os.getuid(), u.find_spec('pip'), u.find_spec('hatchling'))"
    assert docker("run", "--rm", "--entrypoint", "/opt/hearth/bin/python", image, "-c", look) == "10001 None None"
    config = json.loads(docker("image", "inspect", image))[0]["Config"]
    assert config["User"] == "10001:10001"
    assert list(config["ExposedPorts"]) == ["8080/tcp"]
    assert config["Healthcheck"]["Test"]


def test_what_is_installed_is_locked_with_hashes() -> None:
    """With one hash in a file, pip demands one of each requirement."""
    root = Path(__file__).parent.parent.parent
    for name in ("requirements.lock", "deploy/requirements.lock", "deploy/build.lock"):
        lines = (root / name).read_text().replace("\\\n", " ").splitlines()
        requirements = [line for line in lines if line and line[0] not in " #-"]
        assert requirements
        assert not [line for line in requirements if "--hash=sha256:" not in line], name


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
