"""A node with two workers: one port, memory budget and API; each may die or be replaced without harm to the other."""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import itertools
import json
import os
import signal
import socket
import ssl
import stat
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from tests.support.cli import Cli
from tests.support.docker_images import python_image
from tests.support.node import HEARTH, MULTI, RunningNode, build_multi, running_node
from tests.support.processes import spawn
from tests.support.scrape import samples
from tests.support.servers import free_port
from tests.support.tls import Authority
from tests.support.waiting import until

from hearth.drivers.docker.driver import NODE_LABEL

COMMAND = (HEARTH, "start", "--workers", "2")
MEMORY_MIB = 1024
#: More new connections than chance sends to one worker.
MANY = 24
LASTS = """
import time
begin = time.monotonic()
time.sleep(0.2)
orders["echo"] = json.dumps([begin, time.monotonic()])
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    folder = tmp_path_factory.mktemp("workers")
    image = build_multi(folder, folder / "source")
    more = {"FN_MAX_TOTAL_MEMORY": str(MEMORY_MIB << 20), "FN_LOG_LEVEL": "info"}
    with running_node("process", folder, image, COMMAND, **more) as started:
        yield started


def test_both_workers_answer_calls_and_any_connection_has_the_api(node: RunningNode) -> None:
    path = node.route("both", "http", memory=64)
    before = _counts(node)
    answers = [_anew(node, path, echo=str(number)) for number in range(MANY)]
    assert [answer.text for answer in answers] == [str(number) for number in range(MANY)]
    ended = Counter(_counts(node)) - Counter(before)
    assert set(ended) == {"0", "1"}
    assert sum(ended.values()) == MANY
    for answer in answers:  # stored before the answer ended, and found through any connection
        found = httpx.get(f"{node.url}/v1/apps/e2e/calls/{answer.headers['fn_call_id']}", timeout=60)
        assert found.json()["call"]["status"] == "success"
    stats = [httpx.get(f"{node.url}/stats").json()["FunctionStatsMap"]["/both"]["Complete"] for _ in range(4)]
    assert stats == [MANY] * 4
    assert samples(httpx.get(f"{node.url}/metrics").text)  # Prometheus's own library reads it


def test_a_change_holds_for_all_workers_at_once(node: RunningNode) -> None:
    for turn in range(3):
        path = node.route("changed", "http", memory=64, config={"TURN": str(turn)})
        told = [_anew(node, path, tell=True).json()["env"]["TURN"] for _ in range(MANY // 2)]
        assert set(told) == {str(turn)}


def test_a_revoked_token_is_refused_by_all_workers_at_once(node: RunningNode) -> None:
    path = node.route("guarded", "http", memory=64, auth="token")
    asked = {"token": {"name": "caller", "role": "invoker", "apps": ["e2e"]}}
    token = node.http.post("/v1/tokens", json=asked).json()["token"]
    headers = {"Authorization": f"Bearer {token['value']}"}

    def statuses() -> set[int]:
        """Call on many new connections."""
        return {httpx.post(f"{node.url}{path}", headers=headers, timeout=60).status_code for _ in range(MANY // 2)}

    assert statuses() == {200}
    assert node.http.delete(f"/v1/tokens/{token['id']}").status_code == 200
    assert statuses() <= {401, 429}


def test_accepted_calls_run_once(node: RunningNode) -> None:
    path = node.route("later", "http", type="async", memory=64)
    answers = [_anew(node, path, echo=str(number)) for number in range(MANY // 2)]
    assert {node.ended(answer)["status"] for answer in answers} == {"success"}


def test_two_functions_that_want_all_memory_never_run_at_once(node: RunningNode) -> None:
    paths = [node.route(name, "http", memory=MEMORY_MIB - 100, idle_timeout=60) for name in ("big", "huge")]
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        waits = [pool.submit(_patient, node, paths[number % 2]) for number in range(12)]
        times = sorted(wait.result() for wait in waits)
    for (_, end), (begin, _) in itertools.pairwise(times):
        assert end <= begin
    assert len(times) == 12


def test_the_workers_keep_ready_together_what_a_function_wants(node: RunningNode) -> None:
    node.route("kept", "http", memory=64, idle_timeout=600, min_instances=3)
    assert until(lambda: _ready(node, "/kept") == 3)
    node.route("kept", "http", memory=64, idle_timeout=1, min_instances=None)
    assert until(lambda: _ready(node, "/kept") == 0)


def test_a_worker_that_is_killed_harms_no_other_and_comes_back(node: RunningNode) -> None:
    path = node.route("killed", "http", memory=64)
    with _calling(node, path) as calls:
        for number in (1, 0):
            victim = _workers(node)[number]
            functions = _descendants(victim)
            calls.seen(20)
            os.kill(victim, signal.SIGKILL)
            assert until(functools.partial(_is_replaced, node, number, victim))
            assert until(functools.partial(_are_gone, functions))
            calls.seen(20)
    good = calls.outcomes.pop("good")
    # its own calls break off: those that ran there, one for each client at most
    assert sum(calls.outcomes.values()) <= 2 * calls.CLIENTS, calls.outcomes
    assert good > 80
    for call_id in calls.answered:
        assert until(functools.partial(_is_recorded, node, call_id))


def test_workers_are_replaced_and_no_call_that_began_fails(node: RunningNode) -> None:
    path = node.route("replaced", "http", memory=64)
    before = _workers(node)
    with _calling(node, path) as calls:
        node.process.send_signal(signal.SIGUSR2)
        assert until(lambda: len(now := _workers(node)) == 2 and not set(now.values()) & set(before.values()))
        assert until(lambda: _labels(node) == {"0", "1"})
        calls.seen(20)
    # a connection that has sent no request yet is idle, and closed; a call that waits for a container is answered 503
    good = calls.outcomes.pop("good")
    assert all(name in ("ReadError", "RemoteProtocolError") or name.startswith("503 ") for name in calls.outcomes)
    assert sum(calls.outcomes.values()) <= 2 * calls.CLIENTS < good


def test_the_sockets_between_workers_are_private(node: RunningNode) -> None:
    folder = node.data / "workers"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    sockets = [path for path in folder.iterdir() if path.is_socket()]
    assert [stat.S_IMODE(path.stat().st_mode) for path in sockets] == [0o600] * 2
    for path in sockets:
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://localhost") as client:
            assert client.get("/v1/apps").status_code == 404
            forged = {"hearth-worker": "x", "hearth-origin": "{}"}
            assert client.get("/v1/apps", headers=forged).status_code == 404
            assert client.post("/v1/runner/start", headers=forged).status_code in (401, 404)


@pytest.mark.parametrize(
    "target",
    [
        *(
            "/v1/apps/%2e%2e/x",
            "/v1/../v1/apps",
            "/v1/./apps",
            "//v1/apps",
            "/v1/apps?a=%23&b=?&per_page=1",
            "/v1/apps/",
        ),
        *(
            "/v1/apps/a%2Fb",
            "/v1/apps/%C3%A9",
            "/v1/apps/%FF",
            "/%72/e2e/none",
            "/r%2Fe2e/none",
            "/v1/apps/a;b=c|d",
            "*",
        ),
    ],
)
def test_each_worker_reads_a_target_alike(node: RunningNode, target: str) -> None:
    parts = urlsplit(node.url)
    answers = set()
    for _ in range(MANY // 2):
        with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=60) as one:
            head = f"OPTIONS {target} HTTP/1.1\r\n" if target == "*" else f"GET {target} HTTP/1.1\r\n"
            one.sendall(f"{head}Host: localhost\r\nConnection: close\r\n\r\n".encode())
            with one.makefile("rb") as file:
                text = file.read().decode("latin-1")
        head, _, body = text.partition("\r\n\r\n")
        answers.add((head.partition("\r\n")[0], body))
    assert len(answers) == 1


def test_the_command_uses_a_node_with_workers(node: RunningNode, tmp_path: Path) -> None:
    cli = Cli(node.url, tmp_path)
    cli("init", "greet", cwd=tmp_path)
    cli("deploy", "--app", "cli", "-w", tmp_path / "greet")
    for _ in range(6):
        assert json.loads(cli("invoke", "cli", "/greet")) == {"message": "Hello World"}


def test_a_node_with_workers_ends_after_its_calls_and_leaves_nothing(tmp_path: Path) -> None:
    image = build_multi(tmp_path, tmp_path / "source")
    with running_node("process", tmp_path, image, COMMAND) as node:
        path = node.route("last", "http", memory=64)
        with concurrent.futures.ThreadPoolExecutor(MANY) as pool:
            waits = [pool.submit(_anew, node, path, echo="x", sleep_ms=10_000) for _ in range(4)]
            assert until(lambda: node.http.get("/stats").json()["Running"] == 4)
            pids = [pid for worker in _workers(node).values() for pid in (worker, *_descendants(worker))]
            node.process.send_signal(signal.SIGUSR2)  # the signal of the end finds a worker that ends already
            assert until(lambda: "replacing a worker" in (tmp_path / "server.log").read_text())
            assert node.stop() == 0
            assert [wait.result().text for wait in waits] == ["x"] * 4
        assert [pid for pid in pids if _lives(pid)] == []
        assert not (tmp_path / "workers").exists()


@pytest.mark.usefixtures("docker")
def test_memory_of_a_killed_worker_is_lent_again_when_its_containers_are_gone(tmp_path: Path) -> None:
    image = python_image(MULTI)
    more = {"FN_MAX_TOTAL_MEMORY": str(MEMORY_MIB << 20)}
    with running_node("docker", tmp_path, image, COMMAND, **more) as node:
        path = node.route("big", "http", memory=MEMORY_MIB - 100, timeout=120)
        while not all(_counts(node).values()):  # both know the route, and need nobody to start it
            _patient(node, path)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            lost = pool.submit(_anew, node, path, sleep_ms=110_000)
            assert until(lambda: len(_containers(node)) == 1 and sum(_busy(node).values()) == 1)
            (container,) = _containers(node)
            (number,) = _busy(node)
            os.kill(_workers(node)[number], signal.SIGKILL)
            with pytest.raises(httpx.HTTPError):
                lost.result()
        _patient(node, path)
        (new,) = _containers(node)
        assert new != container
        assert _happened("destroy", container) < _happened("create", new)


def test_tls_tokens_and_other_listeners_are_those_of_a_node_with_one_worker(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    cert, key = authority.issue()
    path = tmp_path / "node.sock"
    variables = {
        **{"FN_TLS_CERT": str(cert), "FN_TLS_KEY": str(key), "FN_AUTH": "required", "FN_SOCKET": str(path)},
        "FN_ADMIN_BIND": f"127.0.0.1:{free_port()}",
    }
    data = tmp_path / "data"
    data.mkdir()
    image = build_multi(data, tmp_path / "source")
    with running_node("process", data, image, COMMAND, **variables) as node:
        cli = Cli(f"unix:{path}", tmp_path, FN_DATA_DIR=str(tmp_path / "elsewhere"))
        cli("apps", "create", "locked")  # finds the token by itself
        cli("routes", "create", "locked", "/multi", image, "--format", "http", "--memory", "64")
        context = authority.client()
        for number in range(MANY // 2):
            url = f"{node.url}/r/locked/multi"
            assert httpx.post(url, json={"echo": str(number)}, verify=context, timeout=60).text == str(number)
            refused = httpx.get(f"{node.url}/v1/apps", verify=context)
            assert (refused.status_code, "FN_ADMIN_BIND" in refused.text) == (404, True)
        assert httpx.get(f"{node.told['api']}/v1/apps", verify=context).status_code == 401
        token = (data / "admin-token").read_text().strip()
        shown = {"Authorization": f"Bearer {token}"}
        text = httpx.get(f"{node.told['api']}/metrics", verify=context, headers=shown, timeout=60).text
        assert {"0", "1"} == {line.split('"')[1] for line in text.splitlines() if line.startswith("fn_completed{")}

        new = authority.issue()  # in its place
        assert new == (cert, key)
        fresh = ssl.PEM_cert_to_DER_cert(cert.read_text())
        node.process.send_signal(signal.SIGHUP)
        assert until(lambda: all(_certificate(node.url) == fresh for _ in range(MANY // 2)))


def test_workers_end_with_whoever_started_them(tmp_path: Path) -> None:
    with running_node("process", tmp_path, "", COMMAND) as node:
        pids = list(_workers(node).values())
        node.process.kill()
        assert until(functools.partial(_are_gone, pids))


def test_a_node_with_workers_that_has_to_end_while_it_starts_does(tmp_path: Path) -> None:
    away = {"FN_DB_URL": "postgres://fn@127.0.0.1:1/fn", "FN_DB_WAIT_S": "600"}
    environment = {**os.environ, "FN_DATA_DIR": str(tmp_path), "FN_DRIVER": "process", "FN_PORT": "0", **away}
    with spawn(COMMAND, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert any("waiting for the database" in line for line in process.stderr)
        process.terminate()
        process.stderr.read()  # ends with the last process
        assert process.wait(60) == 130


@pytest.mark.parametrize("count", ["0", "-1", "two"])
def test_a_bad_number_of_workers_is_an_error(tmp_path: Path, count: str) -> None:
    environment = {**os.environ, "FN_DATA_DIR": str(tmp_path), "FN_PORT": "0"}
    with spawn([HEARTH, "start", f"--workers={count}"], env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert f"--workers {count}: give a number from 1, or auto" in process.stderr.read()
        assert process.wait(60) == 1


class Calls:
    """Calls on a new connection each, until stopped."""

    CLIENTS = 4

    def __init__(self, node: RunningNode, path: str) -> None:
        self.outcomes = Counter[str]()
        self.answered: list[str] = []
        self._node, self._path = node, path
        self.stop = threading.Event()

    def run(self) -> None:
        for turn in itertools.count():
            if self.stop.is_set():
                return
            try:
                answer = _anew(self._node, self._path, echo=str(turn), sleep_ms=turn % 20)
            except httpx.HTTPError as exc:
                self.outcomes[type(exc).__name__] += 1
                continue
            is_good = answer.text == str(turn)
            self.outcomes["good" if is_good else f"{answer.status_code} {answer.text[:100]}"] += 1
            if is_good:
                self.answered.append(answer.headers["fn_call_id"])

    def seen(self, count: int) -> None:
        """Wait for further good answers."""
        good = self.outcomes["good"]
        assert until(lambda: self.outcomes["good"] >= good + count), self.outcomes


@contextlib.contextmanager
def _calling(node: RunningNode, path: str) -> Iterator[Calls]:
    calls = Calls(node, path)
    with concurrent.futures.ThreadPoolExecutor(calls.CLIENTS) as pool:
        clients = [pool.submit(calls.run) for _ in range(calls.CLIENTS)]
        try:
            calls.seen(5)
            yield calls
        finally:
            calls.stop.set()
            for client in clients:
                client.result()


def _anew(node: RunningNode, path: str, **orders: object) -> httpx.Response:
    """Call on a new connection."""
    return httpx.post(f"{node.url}{path}", json=orders, timeout=60)


def _patient(node: RunningNode, path: str) -> tuple[float, float]:
    """Call until there was room; when the function ran."""
    while (answer := _anew(node, path, run=LASTS)).status_code == 503:
        pass
    begin, end = answer.json()
    return begin, end


def _counts(node: RunningNode) -> dict[str, float]:
    """The calls of each worker that have ended well."""
    found: Counter[str] = Counter()
    for line in httpx.get(f"{node.url}/metrics", timeout=60).text.splitlines():
        if line.startswith('fn_completed{worker="'):
            found[line.split('"')[1]] += int(float(line.rpartition(" ")[2]))
    return dict(found)


def _busy(node: RunningNode) -> dict[int, int]:
    """The number of calls that run in each worker, of those that have any."""
    lines = httpx.get(f"{node.url}/metrics", timeout=60).text.splitlines()
    running = [line for line in lines if line.startswith("fn_running{") and not line.endswith(" 0")]
    return {int(line.split('"')[1]): int(line.rpartition(" ")[2]) for line in running}


def _containers(node: RunningNode) -> set[str]:
    """The containers of all workers on the Engine."""
    names = [(folder / "node-id").read_text().strip() for folder in (node.data, *node.data.glob("worker-*"))]
    found = [
        subprocess.run(
            ["docker", "ps", "-aq", "--no-trunc", "--filter", f"label={NODE_LABEL}={name}"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for name in names
    ]
    return {line for text in found for line in text.split()}


def _happened(event: str, container: str) -> int:
    """When the Engine did something to a container, in nanoseconds."""
    wanted = ["--filter", f"event={event}", "--filter", f"container={container}", "--format", "{{.TimeNano}}"]
    command = ["docker", "events", "--since", "10m", "--until", "0s", *wanted]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


def _labels(node: RunningNode) -> set[str]:
    with contextlib.suppress(httpx.HTTPError):
        return set(_counts(node))
    return set()


def _workers(node: RunningNode) -> dict[int, int]:
    """The processes of the workers, by number."""
    found = {}
    for pid in _children(node.process.pid):
        with contextlib.suppress(OSError, ValueError, IndexError):
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            found[int(json.loads(arguments[3])["number"])] = pid
    return found


def _children(pid: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True).stdout
    return [int(line) for line in found.split()]


def _descendants(pid: int) -> list[int]:
    return [one for child in _children(pid) for one in (child, *_descendants(child))]


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def _certificate(url: str) -> bytes | None:
    """The certificate that a new connection shows."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname or "", parts.port or 0)) as plain, context.wrap_socket(plain) as one:
        return one.getpeercert(binary_form=True)


def _is_replaced(node: RunningNode, number: int, victim: int) -> bool:
    return _workers(node).get(number, victim) != victim and str(number) in _labels(node)


def _are_gone(pids: list[int]) -> bool:
    return not any(_lives(pid) for pid in pids)


def _is_recorded(node: RunningNode, call_id: str) -> bool:
    return httpx.get(f"{node.url}/v1/apps/e2e/calls/{call_id}", timeout=60).status_code == 200


def _ready(node: RunningNode, path: str) -> float:
    """The idle containers of a route in all workers."""
    lines = httpx.get(f"{node.url}/metrics").text.splitlines()
    named = [line for line in lines if line.startswith("fn_container_idle_total{") and f'"{path}"' in line]
    return sum(float(line.rpartition(" ")[2]) for line in named)
