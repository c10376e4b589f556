"""Several runners on one machine, started and stopped as one."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.support.cli import Cli
from tests.support.node import HEARTH, RunningNode, build_multi, running_node, url_of
from tests.support.processes import spawn
from tests.support.servers import free_port
from tests.support.waiting import until


def _children(pid: int) -> dict[int, str]:
    found = subprocess.run(["pgrep", "-a", "-P", str(pid)], capture_output=True, text=True).stdout
    return {int(line.split()[0]): line for line in found.splitlines()}


def _lives(pid: int) -> bool:
    """Whether a process runs: of one that has ended, whose parent has ended, too, nobody need ask soon."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_a_local_fleet_serves_outlives_a_runner_and_leaves_nothing(tmp_path: Path) -> None:
    image = build_multi(tmp_path, tmp_path / "source")
    with _fleet(tmp_path) as process:
        node = RunningNode(process, url_of(process), tmp_path, "process", image)
        with node.http:
            path, later = node.route("now", "http"), node.route("later", "http", type="async")
            assert node.call(path, echo="x").text == "x"
            assert node.ended(node.call(later, echo="y"))["status"] == "success"
            assert node.http.get("/v1/runner/async").status_code == 404

            members = _children(process.pid)
            assert len(members) == 4  # the API node, two runners, the balancer
            runner = next(
                pid for pid in members if "FN_NODE_TYPE=runner" in Path(f"/proc/{pid}/environ").read_text().split("\0")
            )
            os.kill(runner, signal.SIGKILL)
            assert until(lambda: _answers(node, path))
            assert until(lambda: len(_children(process.pid)) == 4 and runner not in _children(process.pid))
            assert [node.call(path, echo=str(n)).text for n in range(10)] == [str(n) for n in range(10)]

        members = _children(process.pid)
        assert node.stop() == 0
        assert [pid for pid in members if _lives(pid)] == []


def test_functions_are_deployed_to_a_local_fleet_and_run_by_each_of_its_runners(tmp_path: Path) -> None:
    """Clients need a token, which the command finds by itself."""
    none = f"unix://{tmp_path}/none.sock"
    with _fleet(tmp_path / "data", FN_DRIVER="auto", DOCKER_HOST=none, FN_AUTH="required") as process:
        url = url_of(process)
        assert httpx.get(f"{url}/v1/apps", timeout=60).status_code == 401
        cli = Cli(url, tmp_path, FN_DATA_DIR=str(tmp_path / "elsewhere"))
        cli("init", "greet", cwd=tmp_path)
        assert "at " in cli("deploy", "--app", "fleet", "-w", tmp_path / "greet")
        for _ in range(8):  # the balancer takes the runners by turns
            assert json.loads(cli("invoke", "fleet", "/greet")) == {"message": "Hello World"}
        for path in ("/invoke/none", "/t/fleet/none"):  # runners answer; an API node refuses all calls with 400
            assert httpx.post(f"{url}{path}", timeout=60).status_code == 404
    for number in (1, 2):
        assert (tmp_path / "data" / f"runner-{number}" / "driver").read_text() == "process\n"


def test_runners_with_data_folders_of_their_own_pull_what_is_deployed_to_their_api_node(tmp_path: Path) -> None:
    secret = {"FN_RUNNER_TOKEN": "t" * 40}
    for name in ("api", "runner"):
        (tmp_path / name).mkdir()
    with running_node("process", tmp_path / "api", "", FN_NODE_TYPE="api", **secret) as api:
        cli = Cli(api.url, tmp_path)
        cli("init", "greet", cwd=tmp_path)
        cli("deploy", "--app", "a", "-w", tmp_path / "greet")
        assert not (tmp_path / "api" / "bundles").exists()  # it runs nothing
        named = {"FN_NODE_TYPE": "runner", "FN_RUNNER_API_URL": api.url, **secret}
        with running_node("process", tmp_path / "runner", "", **named) as runner:
            assert runner.http.post("/r/a/greet", json={}).json() == {"message": "Hello World"}
            pulled = (tmp_path / "runner" / "server.log").read_text().count("pulling image")
            func = tmp_path / "greet" / "func.py"
            func.write_text(func.read_text().replace("Hello", "Good morning,"))
            sent = Cli(api.url, tmp_path).run("deploy", "--app", "a", "-v", "-w", tmp_path / "greet").stderr
            count, total = (int(number) for number in re.findall(r"uploaded (\d+) of (\d+) bytes", sent)[0])
            assert 0 < count < total / 2  # the kit was there
            assert until(lambda: "morning" in runner.http.post("/r/a/greet", json={}).text)
            for _ in range(3):
                assert runner.http.post("/r/a/greet", json={}).status_code == 200
            assert (tmp_path / "runner" / "server.log").read_text().count("pulling image") == pulled + 1


def test_a_local_fleet_that_is_told_to_end_while_it_starts_does(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "FN_DATA_DIR": str(tmp_path),
        "FN_DRIVER": "process",
        "FN_PORT": str(free_port()),
        "FN_DB_URL": "postgres://fn@127.0.0.1:1/fn",
        "FN_DB_WAIT_S": "600",
    }
    with spawn([HEARTH, "start", "--nodes", "2"], env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert any("waiting for the database" in line for line in process.stderr)
        process.terminate()
        process.stderr.read()  # ends with the last member of the fleet
        assert process.wait(60) == 130


def test_a_local_fleet_ends_with_whoever_started_it(tmp_path: Path) -> None:
    with _fleet(tmp_path) as process:
        url_of(process)
        members = _children(process.pid)
        process.kill()
        assert until(lambda: not any(_lives(pid) for pid in members))


def test_a_local_fleet_listens_where_it_is_told_to(tmp_path: Path) -> None:
    with _fleet(tmp_path, FN_BIND="127.0.0.2") as process:
        url = url_of(process)
        assert httpx.get(f"{url}/healthz").status_code == 200
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url.replace('127.0.0.2', '127.0.0.1')}/healthz")


def test_a_local_fleet_does_not_take_another_server_for_its_own(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = str(held.getsockname()[1])
        with _fleet(tmp_path, FN_PORT=port) as process:
            assert process.wait(60) == 1
            assert process.stdout is not None
            assert process.stdout.read() == ""


@contextlib.contextmanager
def _fleet(data: Path, **variables: str) -> Iterator[subprocess.Popen[str]]:
    environment = {
        **os.environ,
        "FN_DRIVER": "process",
        "FN_DATA_DIR": str(data),
        "FN_PORT": str(free_port()),
        "FN_MAX_TOTAL_MEMORY": str(8 << 30),
        **variables,
    }
    process = subprocess.Popen(
        [HEARTH, "start", "--nodes", "2"], env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _answers(node: RunningNode, path: str) -> bool:
    try:
        return node.call(path, echo="x").status_code == 200
    except httpx.HTTPError:
        return False
