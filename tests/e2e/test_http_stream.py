"""Functions of the format ``http-stream`` on both drivers: their start, their folder, and what they may reach."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.support.docker_images import python_image
from tests.support.node import MULTI, RunningNode, build_bundle, build_multi, running_node
from tests.support.waiting import until

LISTENER = MULTI.with_name("listener.py")


@contextlib.contextmanager
def streaming(driver: str, data: Path, **environment: str) -> Iterator[RunningNode]:
    """A node whose functions reach no network."""
    (data / "sockets").mkdir()
    if driver == "docker":
        images = {"listener": python_image(LISTENER), "multi": python_image(MULTI)}
    else:
        images = {
            "listener": build_bundle(data, data / "listener", LISTENER),
            "multi": build_multi(data, data / "multi"),
        }
    environment |= {"FN_FUNCTION_NETWORK": "none", "FN_IOFS_PATH": str(data / "sockets")}
    with running_node(driver, data, images["listener"], **environment) as running:
        running.told["multi"] = images["multi"]
        yield running
    assert list((data / "sockets").iterdir()) == []


@pytest.fixture(scope="module", params=["process", "docker"])
def driver(request: pytest.FixtureRequest) -> str:
    if request.param == "docker":
        request.getfixturevalue("docker")
    return str(request.param)


@pytest.fixture(scope="module")
def stream_node(driver: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    with streaming(driver, tmp_path_factory.mktemp(f"stream-{driver}")) as running:
        yield running


def route(node: RunningNode, start: str, **config: str) -> str:
    return node.route(f"start-{start}", "http-stream", timeout=30, config={"START": start, **config})


@pytest.mark.parametrize("start", ["kit", "direct", "renames", "talks_first", "forks", "listens_late"])
def test_a_function_is_called_once_it_listens(stream_node: RunningNode, start: str) -> None:
    path = route(stream_node, start)
    for number in range(8):
        answer = stream_node.http.post(path, content=f"hello {number}")
        assert (answer.status_code, answer.text) == (200, f"hello {number}")


def test_a_function_that_never_listens_is_a_504(driver: str, tmp_path: Path) -> None:
    with streaming(driver, tmp_path, FN_HOT_START_TIMEOUT_MSECS="1000") as node:
        answer = node.http.post(route(node, "never"))
        assert answer.status_code == 504
        assert answer.json()["error"]["message"].startswith("Container initialization timed out, ")
        assert "no /tmp/iofs/lsnr.sock within 1 s" in node.record(answer)["error"]


def test_a_function_that_ends_before_it_listens_says_why(stream_node: RunningNode) -> None:
    answer = stream_node.http.post(route(stream_node, "exits"))
    assert answer.status_code == 502
    assert answer.json()["error"]["message"].startswith("Container failed to initialize, ")
    error = stream_node.record(answer)["error"]
    assert "container exit code 3 before it made /tmp/iofs/lsnr.sock: no such module" in error
    assert stream_node.log(answer) == "no such module\n"


def test_a_file_in_place_of_the_socket_is_a_502(stream_node: RunningNode) -> None:
    answer = stream_node.http.post(route(stream_node, "is_a_file"))
    assert answer.status_code == 502
    assert "is not a socket" in stream_node.record(answer)["error"]


@pytest.mark.parametrize("kind", ["absolute", "relative"])
def test_a_link_to_a_socket_of_the_machine_is_a_502_and_nothing_connects(
    stream_node: RunningNode, tmp_path: Path, kind: str
) -> None:
    with socket.socket(socket.AF_UNIX) as of_the_machine:
        of_the_machine.bind(str(tmp_path / "s"))
        of_the_machine.listen()
        of_the_machine.setblocking(False)
        target = str(tmp_path / "s")
        if kind == "relative":
            (folder,) = (stream_node.data / "sockets").iterdir()
            target = os.path.relpath(target, folder / "container")
        answer = stream_node.http.post(route(stream_node, "links_out", TARGET=target))
        assert answer.status_code == 502
        assert "is a link out of its folder" in stream_node.record(answer)["error"]
        with pytest.raises(BlockingIOError):
            of_the_machine.accept()


def multi(node: RunningNode, name: str) -> str:
    return node.route(name, "http-stream", image=node.told["multi"], timeout=30, idle_timeout=30)


def test_a_function_sees_the_variables_of_its_contract(stream_node: RunningNode) -> None:
    env = stream_node.call(multi(stream_node, "env"), tell=True).json()["env"]
    assert {name: env[name] for name in ("FN_FORMAT", "FN_LISTENER", "FN_TYPE", "FN_MEMORY", "FN_APP_NAME")} == {
        "FN_FORMAT": "http-stream",
        "FN_LISTENER": "unix:/tmp/iofs/lsnr.sock",
        "FN_TYPE": "sync",
        "FN_MEMORY": "128",
        "FN_APP_NAME": "e2e",
    }
    assert env["FN_FN_ID"]
    assert env["FN_APP_ID"]


def test_stdin_is_empty_and_stdout_is_a_log(stream_node: RunningNode) -> None:
    run = "os.write(1, b'printed\\n' + os.read(0, 10))"
    answer = stream_node.call(multi(stream_node, "stdio"), run=run, echo="answer")
    assert answer.text == "answer"
    assert until(lambda: stream_node.log(answer) == "printed\n")


def test_a_function_sees_no_other_functions_socket(stream_node: RunningNode) -> None:
    look = "orders['echo'] = repr((sorted(os.listdir('/tmp/iofs')), os.path.exists(orders['other'])))"
    assert stream_node.call(multi(stream_node, "first"), echo="x").text == "x"
    seen = stream_node.call(multi(stream_node, "second"), run=look, other=str(stream_node.data / "sockets")).text
    assert seen == repr((["lsnr.sock", "phonylsnr.sock"], False))


def test_a_functions_folder_goes_with_its_container(stream_node: RunningNode) -> None:
    path = multi(stream_node, "folder")
    assert stream_node.call(path, run="open('/tmp/iofs/left', 'w').close()", echo="x").text == "x"
    (root,) = (stream_node.data / "sockets").iterdir()
    (folder,) = (each.parent for each in root.glob("*/left"))
    stream_node.call(path, exit=0)
    assert until(lambda: not folder.exists())


def test_a_large_body_passes_both_ways(stream_node: RunningNode) -> None:
    path = multi(stream_node, "large")
    body = os.urandom(1 << 20) * 16
    for chunked in (False, True):
        content = iter([body[:7], body[7:]]) if chunked else body
        answer = stream_node.http.post(path, content=content)
        assert answer.content == body
    do = json.dumps({"unread": True, "echo": "early"})
    assert stream_node.http.post(path, params={"do": do}, content=body).text == "early"
    assert stream_node.http.post(path, content=b"next").text == "next"


def test_a_crash_at_each_moment_fails_its_call_only(stream_node: RunningNode) -> None:
    gone = "error receiving function response"
    answer = stream_node.http.post(route(stream_node, "ends_at_a_connection"))
    assert (answer.status_code, answer.json()["error"]["message"]) == (502, gone)
    assert "container exit code 3" in stream_node.record(answer)["error"]
    path = multi(stream_node, "crashes")
    half_a_head = "write(b'HTTP/1.1 200 OK\\r\\nContent-Le')\nos._exit(3)"
    for orders in ({"exit": 3}, {"run": half_a_head}, {"die": True, "echo": "half of this"}):
        try:
            answer = stream_node.call(path, **orders)
        except httpx.RemoteProtocolError:  # cut off
            assert "die" in orders
        else:
            assert (answer.status_code, answer.json()["error"]["message"]) == (502, gone)
            assert "container exit code" in stream_node.record(answer)["error"]
        assert stream_node.call(path, echo="next").text == "next"
    for after_ms in (0, 20):
        assert stream_node.call(path, after=3, after_ms=after_ms, echo="last words").text == "last words"
        assert stream_node.call(path, echo="next").text == "next"


def test_a_pause_in_an_answer_reaches_the_client(stream_node: RunningNode) -> None:
    path = multi(stream_node, "pause")
    with stream_node.http.stream("POST", path, json={"size": 70_000, "pause_ms": 300_000}) as answer:
        assert len(next(answer.iter_raw())) > 0  # long before the end


def test_an_unprivileged_container_writes_to_tmp_only(stream_node: RunningNode) -> None:
    run = """

def writes(folder):
    try:
        open(folder + '/x', 'w').close()
    except OSError:
        return False
    return True
orders['echo'] = repr((os.getuid() != 0, writes('/tmp'), writes('/usr'), writes('/var')))
"""
    assert stream_node.call(multi(stream_node, "walls"), run=run).text == "(True, True, False, False)"


def test_a_container_has_the_limits_of_fn(stream_node: RunningNode) -> None:
    if stream_node.driver != "docker":
        return  # functions as processes have limits of their own
    names = ("MEMLOCK", "SIGPENDING", "MSGQUEUE")
    limits = ", ".join([f"resource.getrlimit(resource.RLIMIT_{name})" for name in names])
    run = f"import resource\norders['echo'] = repr([{limits}])"
    seen = stream_node.call(multi(stream_node, "limits"), run=run).text
    assert seen == repr([(65536, 65536), (5000, 5000), (819200, 819200)])


@pytest.fixture(scope="module", params=["process", "docker"])
def loose_node(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    """A node that limits answers and leaves users and files to images; its Engine has another path for the folder."""
    data = tmp_path_factory.mktemp(f"loose-{request.param}")
    (data / "sockets").mkdir()
    (data / "seen").symlink_to(data / "sockets")
    if request.param == "docker":
        request.getfixturevalue("docker")
        image = python_image(MULTI)
    else:
        image = build_multi(data, data / "multi")
    environment = {
        "FN_IOFS_PATH": str(data / "sockets"),
        "FN_IOFS_DOCKER_PATH": str(data / "seen"),
        "FN_DISABLE_READONLY_ROOTFS": "true",
        "FN_DISABLE_UNPRIVILEGED_CONTAINERS": "true",
        "FN_MAX_RESPONSE_SIZE": "1000",
        "FN_MAX_HDR_RESPONSE_SIZE": "2000",
        "FN_HOT_PULL_TIMEOUT_MSECS": "500",
    }
    with running_node(request.param, data, image, **environment) as running:
        running.told["multi"] = image
        yield running


def test_answers_have_the_limits_of_the_operator(loose_node: RunningNode) -> None:
    path = multi(loose_node, "limits")
    born = loose_node.call(path, echo="x" * 1000)
    assert (born.status_code, len(born.text)) == (200, 1000)
    for orders, message in (
        ({"size": 1001}, "function response body too large"),
        ({"size": 100_000, "chunked": True}, "function response body too large"),
        ({"echo": "x", "headers": {"X": "x" * 2000}}, "function response header too large"),
    ):
        answer = loose_node.call(path, **orders)
        assert (answer.status_code, answer.json()["error"]["message"]) == (502, message)
        assert loose_node.call(path, echo="next").text == "next"


def test_a_registry_that_stays_silent_is_a_504(loose_node: RunningNode) -> None:
    with socket.create_server(("127.0.0.1", 0)) as registry:
        image = f"127.0.0.1:{registry.getsockname()[1]}/x/y:1"
        answer = loose_node.call(loose_node.route("silent", "http-stream", image=image))
        assert (answer.status_code, answer.json()["error"]["message"]) == (504, "Image pull timed out")
        assert loose_node.record(answer)["status"] == "error"


def test_the_operator_may_leave_users_and_files_to_images(loose_node: RunningNode) -> None:
    if loose_node.driver != "docker":
        return  # the sandbox of processes has no such settings
    run = "open('/written', 'w').close()\norders['echo'] = str(os.getuid())"
    assert loose_node.call(multi(loose_node, "loose"), run=run).text == "0"


def test_the_engine_is_told_its_own_path_of_the_folder(loose_node: RunningNode) -> None:
    if loose_node.driver != "docker":
        return  # there is no Engine
    assert loose_node.call(multi(loose_node, "seen"), echo="x").text == "x"
    label = f"label=hearth.node={(loose_node.data / 'node-id').read_text().strip()}"
    ids = subprocess.run(["docker", "ps", "-q", "--filter", label], capture_output=True, text=True, check=True).stdout
    shown = subprocess.run(["docker", "inspect", *ids.split()], capture_output=True, text=True, check=True).stdout
    sources = [mount["Source"] for container in json.loads(shown) for mount in container["HostConfig"]["Mounts"]]
    assert sources
    assert all(source.startswith(f"{loose_node.data / 'seen'}/") for source in sources)
