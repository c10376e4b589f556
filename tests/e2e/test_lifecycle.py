"""Start, shutdown, sudden death; a small machine."""

from __future__ import annotations

import concurrent.futures
import json
import os
import re
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from tests.support.docker_images import python_image
from tests.support.held import holding, listens
from tests.support.node import BUSY, HEARTH, MULTI, RunningNode, build_multi, running_node
from tests.support.processes import spawn
from tests.support.waiting import until

DRIVERS = ["process", "docker"]


def _image(driver: str, data: Path, request: pytest.FixtureRequest) -> str:
    if driver == "docker":
        request.getfixturevalue("docker")
        return python_image(MULTI)
    return build_multi(data, data / "source")


def _leftovers(node: RunningNode) -> list[str]:
    """Containers of a node that still exist."""
    if node.driver == "docker":
        listed = subprocess.run(["docker", "ps", "-a", "--format", "{{json .}}"], capture_output=True, text=True)
        return [line for line in listed.stdout.splitlines() if "hearth.node=" in json.loads(line)["Labels"]]
    listed = subprocess.run(["pgrep", "-f", str(node.data)], capture_output=True, text=True)
    return listed.stdout.split()


@pytest.mark.parametrize("driver", DRIVERS)
def test_shutdown_lets_running_calls_finish_and_leaves_nothing(
    driver: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    image = _image(driver, tmp_path, request)
    with running_node(driver, tmp_path, image) as node, concurrent.futures.ThreadPoolExecutor(1) as pool:
        with holding(node, node.route("slow", "http"), echo="finished") as running:
            stopped = pool.submit(node.stop)
            assert until(lambda: not listens(node))
            assert running.let_go().body == b"finished"
        assert stopped.result() == 0
    assert "server stopped" in (tmp_path / "server.log").read_text()


@pytest.mark.parametrize("driver", DRIVERS)
def test_nothing_is_left_after_a_sudden_death_and_a_restart(
    driver: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    image = _image(driver, tmp_path, request)
    with running_node(driver, tmp_path, image) as node:
        record_of = node.call(node.route("dies", "json"), echo="x")
        node.process.send_signal(signal.SIGKILL)
        node.process.wait()
    with running_node(driver, tmp_path, image) as again:
        assert again.record(record_of)["status"] == "success"
        if driver == "process":
            assert until(lambda: set(_leftovers(again)) <= {str(again.process.pid)}), _leftovers(again)
        assert again.call("/r/e2e/dies", echo="y").text == "y"


def test_a_small_node_refuses_what_can_never_fit(tmp_path: Path) -> None:
    image = build_multi(tmp_path, tmp_path / "source")
    with running_node("process", tmp_path, image, FN_MAX_TOTAL_MEMORY=str(512 << 20)) as node:
        for format_name in ("default", "http"):
            answer = node.call(node.route(f"huge-{format_name}", format_name, memory=8192), echo="x")
            assert answer.status_code == 503
            assert answer.json() == {"error": {"message": "Timed out - server too busy"}}
            assert "retry-after" not in answer.headers


def test_idle_containers_give_way_to_other_functions(tmp_path: Path) -> None:
    image = build_multi(tmp_path, tmp_path / "source")
    with running_node("process", tmp_path, image, FN_MAX_TOTAL_MEMORY=str(500 << 20)) as node:
        paths = [node.route(name, "http", memory=300) for name in ("first", "second")]
        answers = [node.call(paths[turn % 2], echo=str(turn)) for turn in range(6)]
        assert [answer.status_code for answer in answers] == [200] * 6


def test_a_full_node_says_when_to_come_back(tmp_path: Path) -> None:
    image = build_multi(tmp_path, tmp_path / "source")
    total = str(500 << 20)
    with running_node("process", tmp_path, image, FN_MAX_TOTAL_MEMORY=total) as node:
        path, short = node.route("busy", "http", memory=300), node.route("short", "http", memory=300, timeout=1)
        with holding(node, path, echo="first") as running:
            answer = node.call(short, echo="second")
            assert (answer.status_code, answer.json()) == (503, {"error": {"message": BUSY}})
            assert answer.headers["retry-after"] == "15"
            assert running.let_go().body == b"first"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("FN_PORT", "no"),
        ("FN_DRIVER", "magic"),
        ("FN_DB_URL", "nosql://x"),
        ("FN_BIND", "256.1.1.1"),
        ("FN_BIND", "192.0.2.1"),
        ("FN_BIND", "::zz"),
    ],
)
def test_a_wrong_setting_stops_the_start_with_one_sentence(tmp_path: Path, variable: str, value: str) -> None:
    environment = {**os.environ, "FN_DATA_DIR": str(tmp_path), "FN_DRIVER": "process", "FN_PORT": "0", variable: value}
    done = subprocess.run([HEARTH, "start"], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert re.match(rf"hearth: {variable}[=:]", last)


def test_docker_that_does_not_answer_is_named(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "FN_DATA_DIR": str(tmp_path),
        "FN_DRIVER": "docker",
        "FN_PORT": "0",
        "DOCKER_HOST": f"unix://{tmp_path}/none.sock",
    }
    done = subprocess.run([HEARTH, "start"], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert f"couldn't connect to docker daemon at unix://{tmp_path}/none.sock" in done.stderr


def _start(data: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """A start that fails; its output."""
    environment = {**os.environ, "FN_DATA_DIR": str(data), "FN_DRIVER": "process", "FN_PORT": "0", **variables}
    return subprocess.run([HEARTH, "start"], env=environment, capture_output=True, text=True, timeout=120)


def test_a_database_that_cannot_be_written_to_stops_the_start(tmp_path: Path) -> None:
    with running_node("process", tmp_path, "none:1"):
        pass
    (tmp_path / "fn.db").chmod(0o444)
    environment = {**os.environ, "FN_DATA_DIR": str(tmp_path), "FN_DRIVER": "process", "FN_PORT": "0"}
    command: list[str | Path] = [HEARTH, "start"]
    if os.getuid() == 0:  # root may write to everything, but for this
        command = ["setpriv", "--bounding-set", "-dac_override", *command]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"hearth: FN_DB_URL: sqlite3://{tmp_path}/fn.db: cannot write")
    assert "Permission denied; see that this user can write to the file" in done.stderr


def test_a_full_disk_stops_the_start_with_one_sentence(tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can mount a file system of a few pages")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(tmp_path)], check=True)
    try:
        (tmp_path / "full").write_bytes(bytes(4096))
        without_token, with_token = _start(tmp_path), _start(tmp_path, FN_ADMIN_TOKEN="t" * 40)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
    for done in (without_token, with_token):
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
    assert "admin-token: No space left on device" in without_token.stderr
    advice = "database or disk is full; see that this user can write to the file, and that its disk has"
    assert advice in with_token.stderr


def test_a_second_start_says_who_is_there(tmp_path: Path) -> None:
    with running_node("process", tmp_path, "none:1") as node:
        same_data = _start(tmp_path)
        assert same_data.returncode == 1
        assert same_data.stderr.strip().splitlines() == [
            f"hearth: {tmp_path}: this data folder is in use by process {node.process.pid}, {node.url}; "
            "stop that, or set FN_DATA_DIR to another folder"
        ]
        port = node.url.rpartition(":")[2]
        same_port = _start(tmp_path / "other", FN_PORT=port)
        assert same_port.returncode == 1
        holder = f"process {node.process.pid} (hearth)"
        assert f"hearth: FN_PORT={port}: cannot listen: Address already in use by {holder}" in same_port.stderr
        assert node.http.get("/version").status_code == 200
        assert node.stop(signal.SIGINT) == 0
    with running_node("process", tmp_path, "none:1", FN_PORT=port) as again:  # the port and the folder are free
        assert again.http.get("/version").status_code == 200


@pytest.mark.parametrize(("bind", "host"), [("::1", "[::1]"), ("127.0.0.2", "127.0.0.2"), ("", "127.0.0.1")])
def test_a_node_tells_the_address_at_which_it_is_found(tmp_path: Path, bind: str, host: str) -> None:
    if ":" in bind:
        try:
            socket.create_server((bind, 0), family=socket.AF_INET6).close()
        except OSError:
            pytest.skip("this machine has no addresses of version 6")
    with running_node("process", tmp_path, "none:1", FN_BIND=bind, FN_AUTH="loopback" if bind else "off") as node:
        assert node.url.startswith(f"http://{host}:")
        assert node.http.get("/version").status_code == 200


def test_a_node_that_is_told_to_end_while_it_starts_ends_by_itself(tmp_path: Path) -> None:
    """As a container's first process it would not be ended by a signal that it does not take."""
    environment = {
        **os.environ,
        "FN_DATA_DIR": str(tmp_path),
        "FN_PORT": "0",
        "FN_DB_URL": "postgres://fn@127.0.0.1:1/fn",
        "FN_DB_WAIT_S": "600",
    }
    with spawn([HEARTH, "start"], env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert any("waiting for the database" in line for line in process.stderr)
        process.terminate()
        assert process.wait(60) == 130


def test_an_unknown_variable_is_warned_of(tmp_path: Path) -> None:
    with running_node("process", tmp_path, "none:1", FN_PROT="1", FN_TOKEN="1"):
        pass
    warnings = [line for line in (tmp_path / "server.log").read_text().splitlines() if "unknown variable" in line]
    assert len(warnings) == 1
    assert "perhaps=FN_PORT variable=FN_PROT" in warnings[0]
