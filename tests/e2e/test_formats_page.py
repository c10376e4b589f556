"""The page about function formats is true byte for byte: for the code that speaks them, and for a node that runs."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from tests.support.cli import Cli
from tests.support.node import RunningNode, build_multi, running_node
from tests.support.waiting import until
from tests.unit.protocol_events import stdio_contract

from hearth.contracts.base import CallInput, Head
from hearth.contracts.stdio.codec import Body
from hearth.contracts.stdio.http_bodies import ChunkedBody

PAGE: Final = Path(__file__).parents[2] / "docs" / "formats.md"
_BLOCK: Final = re.compile(r"^<!-- (example|function): (.+?) -->\n```\w+\n(.*?)^```$", re.DOTALL | re.MULTILINE)
BLOCKS: Final = {(kind, name): text for kind, name, text in _BLOCK.findall(PAGE.read_text())}
HOT: Final = ("http", "json", "http-stream")
FUNCTIONS: Final = sorted(name for kind, name in BLOCKS if kind == "function")
_CALL_ID: Final = "01C59M8V1MG3G00GZJ00000001"
_DEADLINE: Final = "2018-01-31T12:00:30.000Z"

#: Writes its input to stderr as it is, then its answer.
_RECORDER: Final = """
import os, sys
form, stdin, stderr = os.environ["FN_FORMAT"], sys.stdin.buffer, sys.stderr.buffer
stdout = sys.stdout.buffer
if form == "http-stream":
    import socket
    path = os.environ["FN_LISTENER"][5:]
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path + ".twin")
    os.chmod(path + ".twin", 0o666)
    listener.listen()
    os.symlink(os.path.basename(path) + ".twin", path)
while True:
    if form == "http-stream":
        connection = listener.accept()[0]
        stdin, stdout = connection.makefile("rb"), connection.makefile("wb")
    if form == "default":
        seen = "".join(f"{name}={value}\\n" for name, value in sorted(os.environ.items())).encode()
        seen += b"stdin=" + stdin.read()
    elif form == "json":
        seen = b""
        while not seen.endswith(b"\\n\\n"):
            seen += stdin.readline()
    else:
        seen = b""
        while not seen.endswith(b"\\r\\n\\r\\n"):
            seen += stdin.readline()
        if b"chunked" in seen:
            while not seen.endswith(b"0\\r\\n\\r\\n"):
                seen += stdin.readline()
        else:
            seen += stdin.read(3)
    if form != "default" and "SHOW" in os.environ:
        seen = "".join(f"{name}={value}\\n" for name, value in sorted(os.environ.items())).encode()
    stderr.write(seen)
    stderr.flush()
    stdout.write(open(f"answer.{form}", "rb").read())
    stdout.flush()
    if form == "default":
        break
    if form == "http-stream":
        connection.shutdown(2)
"""


def example(name: str) -> bytes:
    """The bytes of an example."""
    lines = BLOCKS["example", name].splitlines()
    ends = {"\\r\\n": "\r\n", "\\n": "\n"}
    text = ""
    for line in lines:
        end = next((end for end in ends if line.endswith(end)), "")
        text += line.removesuffix(end) + ends.get(end, "")
    return text.encode()


def variables(name: str) -> dict[str, str]:
    """An example of an environment."""
    return dict(line.split("=", 1) for line in BLOCKS["example", name].splitlines())


REQUEST: Final = example("request")
CALL: Final = CallInput(
    call_id=_CALL_ID,
    method="POST",
    url="http://h:8080/r/app1/hi?n=2",
    headers={
        "User-Agent": ["curl/7.51.0"],
        "Accept": ["*/*"],
        "Content-Type": ["text/plain"],
        "X-Id": ["7", "8"],
        "Content-Length": ["3"],
    },
    content_length=3,
    deadline=_DEADLINE,
)


# -- the code that speaks the formats -------------------------------------------------------------------------------


@pytest.mark.parametrize("format_name", HOT)
def test_the_input_is_what_the_encoder_writes(format_name: str) -> None:
    encoder = stdio_contract(format_name).encoder(CALL)
    assert encoder.body(b"Ada") + encoder.end() == example(f"{format_name} input")


@pytest.mark.parametrize("format_name", HOT)
def test_the_output_is_read_as_described(format_name: str) -> None:
    contract = stdio_contract(format_name)
    head, body, end = contract.decoder(CALL).feed(example(f"{format_name} output"))
    assert isinstance(head, Head)
    assert isinstance(body, Body)
    assert (head.status, body.data) == (201, b"Hello Ada")
    assert {("Content-Type", "text/plain"), ("Content-Length", "9"), ("X-Seen", "7")} == set(head.headers)
    assert not end.surplus  # type: ignore[union-attr]
    assert contract.log_form(head, body.data) == example(f"{format_name} log")


def test_the_chunks_are_those_of_http() -> None:
    assert ChunkedBody().feed(example("http chunked body")) == (b"Ada", b"")


# -- a node -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    """A node of processes, with the app of the page."""
    data = tmp_path_factory.mktemp("formats")
    with running_node(
        "process",
        data,
        build_multi(data, data / "source"),
        FN_HOT_START_TIMEOUT_MSECS="5000",
        FN_MAX_RESPONSE_SIZE="1000000",
    ) as running:
        running.http.post("/v1/apps", json={"app": {"name": "app1", "config": {"A": "1"}}}).raise_for_status()
        yield running


@pytest.fixture(scope="module")
def recorder(node: RunningNode, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The function that records its input."""
    folder = tmp_path_factory.mktemp("recorder")
    (folder / "answer.default").write_bytes(b"Hello Ada")
    for format_name in HOT:
        (folder / f"answer.{format_name}").write_bytes(example(f"{format_name} output"))
    return build(node, folder, "recorder", {"func.py": _RECORDER}, "python3 func.py")


def build(node: RunningNode, folder: Path, name: str, files: dict[str, str], command: str) -> str:
    """Make a bundle of some files; its reference."""
    for file, text in files.items():
        (folder / file).write_text(text)
    (folder / "func.yaml").write_text(
        f"name: {name}\nversion: '1'\nruntime: exec\ncmd: [{', '.join(command.split())}]\n"
    )
    Cli("", node.data, FN_DATA_DIR=str(node.data))("build", "--driver", "process", folder)
    return f"{name}:1"


def route(node: RunningNode, image: str, format_name: str, **fields: Any) -> None:
    """Make the route of the page's examples."""
    wanted = {"image": image, "format": format_name, "cpus": "100m", "type": "sync", **fields}
    node.http.put("/v1/apps/app1/routes/hi", json={"route": wanted}).raise_for_status()


def send(node: RunningNode, request: bytes) -> tuple[http.client.HTTPResponse, bytes]:
    """Send a request as it is; the answer and its body."""
    with socket.create_connection(("127.0.0.1", int(node.url.rpartition(":")[2]))) as connection:
        connection.sendall(request)
        answer = http.client.HTTPResponse(connection, method="POST")
        answer.begin()
        return answer, answer.read()


def recorded(node: RunningNode, call_id: str) -> bytes:
    """What the function recorded of a call, with the page's id and deadline."""
    log = node.http.get(f"/v1/apps/app1/calls/{call_id}/log", headers={"accept": "text/plain"}).content
    log = re.sub(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", _DEADLINE.encode(), log)
    return log.replace(call_id.encode(), _CALL_ID.encode())


@pytest.mark.parametrize("format_name", HOT)
def test_a_function_is_written_the_input_and_its_output_is_answered(
    node: RunningNode, recorder: str, format_name: str
) -> None:
    route(node, recorder, format_name)
    answer, body = send(node, REQUEST)
    assert (answer.status, body, answer.headers.get_all("content-type")) == (201, b"Hello Ada", ["text/plain"])
    assert answer.headers["x-seen"] == "7"
    assert recorded(node, answer.headers["fn_call_id"]) == example(f"{format_name} input")


def test_a_body_of_unknown_length_is_chunked(node: RunningNode, recorder: str) -> None:
    route(node, recorder, "http")
    chunked = REQUEST.replace(b"Content-Length: 3", b"Transfer-Encoding: chunked").removesuffix(b"Ada")
    answer, _ = send(node, chunked + example("http chunked body"))
    head, _, body = recorded(node, answer.headers["fn_call_id"]).partition(b"\r\n\r\n")
    assert b"\r\nTransfer-Encoding: chunked" in head
    assert b"Content-Length" not in head
    assert body == example("http chunked body")


def test_a_program_has_the_call_in_its_environment(node: RunningNode, recorder: str) -> None:
    route(node, recorder, "default")
    answer, body = send(node, REQUEST)
    assert (answer.status, body, answer.headers["content-type"]) == (200, b"Hello Ada", "application/json")
    environment, _, stdin = recorded(node, answer.headers["fn_call_id"]).decode().rpartition("stdin=")
    found = dict(line.split("=", 1) for line in environment.splitlines())
    assert stdin == "Ada"
    wanted = {**variables("environment"), "FN_FORMAT": "default", **variables("default environment")}
    assert {name: value for name, value in found.items() if name == "A" or name.startswith("FN_")} == wanted
    disjoint, _ = send(node, REQUEST.replace(b"X-Id: 7", b"FN_PATH: x"))
    log = recorded(node, disjoint.headers["fn_call_id"])
    assert b"\nFN_HEADER_Fn_path=x\n" in log
    assert b"\nFN_PATH=/hi\n" in log


def test_a_hot_container_has_only_the_common_environment(node: RunningNode, recorder: str) -> None:
    route(node, recorder, "http", config={"SHOW": "1"})
    answer, _ = send(node, REQUEST)
    lines = recorded(node, answer.headers["fn_call_id"]).decode().splitlines()
    found = dict(line.split("=", 1) for line in lines)
    assert found.pop("SHOW") == "1"
    assert {name: value for name, value in found.items() if name == "A" or name.startswith("FN_")} == variables(
        "environment"
    )
    route(node, recorder, "http", config={"SHOW": ""})


def test_a_container_that_listens_has_the_variables_of_the_table_too(node: RunningNode) -> None:
    rows = table_of("In addition to the variables above, the container has:")
    table = {name: value for names, value in rows for name in re.findall(r"`(\w+)`", names)}
    config = {"FN_LOGFRAME_NAME": "n", "FN_LOGFRAME_HDR": "h"}
    path = node.route("listens", "http-stream", config=config, cpus="100m")
    found = node.call(path, tell=True).json()["env"]
    ours = {name for name in found if name.startswith("FN_")}
    assert ours == table.keys() | {name for name in variables("environment") if name.startswith("FN_")}
    assert found["FN_LISTENER"] in table["FN_LISTENER"]
    assert found["FN_CONCURRENCY"] == "1"
    assert {name: found[name] for name in config} == config
    node.route("listens", "http-stream", config=config, concurrency=2)
    found = node.call(path, tell=True).json()["env"]
    assert (found["FN_CONCURRENCY"], found["FN_LOGFRAME_HDR"]) == ("2", "Fn-Call-Id")
    assert found["FN_LOGFRAME_NAME"] != "n"


def table_of(before: str) -> list[list[str]]:
    """The rows of the table that follows this line of the page."""
    table = PAGE.read_text().partition(f"{before}\n\n")[2].partition("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.strip().splitlines()[2:]]


def test_the_status_of_an_answer_is_what_its_table_says(node: RunningNode) -> None:
    path = node.route("statuses", "http-stream", timeout=60, idle_timeout=600)
    before = "The status tells Hearth how the function ended. That of the client is in `Fn-Http-Status`:"
    for shown, _, gets, container in table_of(before):
        born = node.call(path, tell=True).json()["born"]
        answer = node.call(path, echo="the answer", wire_status=int(shown) if shown.isdigit() else 418)
        if shown == "200":
            assert (answer.status_code, answer.text, gets) == (200, "the answer", "the answer")
        else:
            assert f"{answer.status_code} `{answer.json()['error']['message']}`" == gets
        serves_on = node.call(path, tell=True).json()["born"] == born
        assert container == ("serves on" if serves_on else "is removed")


@pytest.mark.parametrize("format_name", HOT)
def test_the_answer_of_an_async_call_joins_its_log(node: RunningNode, recorder: str, format_name: str) -> None:
    route(node, recorder, format_name, type="async")
    answer, body = send(node, REQUEST)
    assert answer.status == 202
    call_id = json.loads(body)["call_id"]
    address = f"/v1/apps/app1/calls/{call_id}"
    assert until(lambda: node.http.get(address).json()["call"]["status"] == "success")
    assert recorded(node, call_id).endswith(example(f"{format_name} log"))
    route(node, recorder, format_name)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_minimal_function_answers(name: str, node: RunningNode, tmp_path: Path) -> None:
    format_name, *command = name.split()
    for program in (command[0], *(["jq"] if "jq" in BLOCKS["function", name] else [])):
        if shutil.which(program, path="/usr/local/bin:/usr/bin:/bin") is None:
            pytest.skip(f"{program} is not installed")
    image = build(node, tmp_path, name.replace(" ", "-"), {command[1]: BLOCKS["function", name]}, " ".join(command))
    node.http.put(
        f"/v1/apps/minimal/routes/{name.replace(' ', '-')}", json={"route": {"image": image, "format": format_name}}
    ).raise_for_status()
    for body in ("Ada", "Grace", ""):  # of a hot function one container takes all of them
        answer = node.http.post(f"/r/minimal/{name.replace(' ', '-')}", content=body)
        assert (answer.status_code, answer.text) == (200, f"Hello {body}"), answer.text
    if format_name != "default":
        assert answer.headers["content-type"] == "text/plain"


#: What the rows of the table of failures describe: the path, fields of the route, orders to the function.
FAILURES: Final[dict[str, tuple[str, dict[str, Any], dict[str, Any]]]] = {
    "the app does not exist": ("/r/none/x", {}, {}),
    "the route does not exist": ("/r/e2e/none", {}, {}),
    "the route asks for more memory than the node has": ("/r/e2e/fails", {"memory": 8192}, {}),
    "the image does not exist": ("/r/e2e/fails", {"image": "no/such:1"}, {}),
    "the timeout passes while the function runs": ("/r/e2e/fails", {"timeout": 1}, {"sleep_ms": 60_000}),
    "the program exits with status 3": ("/r/e2e/fails", {}, {"exit": 3}),
    "a hot program exits with status 0 before it has answered": ("/r/e2e/fails", {}, {"exit": 0}),
    "the program uses more memory than the route has": ("/r/e2e/fails", {"memory": 64}, {"allocate": 500}),
    "`http`: the output is not a response": ("/r/e2e/fails", {"format": "http"}, {"raw": "hello\n"}),
    "`json`: the output is not an object": ("/r/e2e/fails", {"format": "json"}, {"raw": "hello\n"}),
    "`http-stream`: no socket within `FN_HOT_START_TIMEOUT_MSECS`": (
        "/r/e2e/fails",
        {"format": "http-stream", "config": {"SLEEP_AT_START": "60"}},
        {},
    ),
    "`http-stream`: the program ends before it has a socket, or the socket is none": (
        "/r/e2e/fails",
        {"format": "http-stream", "config": {"CRASH_AT_START": "3"}},
        {},
    ),
    "`http-stream`: the program ends, or closes the connection, before the end of its answer": (
        "/r/e2e/fails",
        {"format": "http-stream"},
        {"exit": 3},
    ),
    "`http-stream`: the head of the answer is larger than its limit": (
        "/r/e2e/fails",
        {"format": "http-stream"},
        {"headers": {"X": "x" * 300_000}},
    ),
    "`http-stream`: the body of the answer is larger than its limit": (
        "/r/e2e/fails",
        {"format": "http-stream"},
        {"size": 1_000_001},
    ),
    **{
        f"`http-stream`: the function answers {what}": (
            "/r/e2e/fails",
            {"format": "http-stream"},
            {"wire_status": status},
        )
        for what, status in (("502", 502), ("504", 504), ("with another status than 200, 502 or 504", 418))
    },
}
#: Needs a node that is busy: see tests/unit/test_agent_calls.py.
_BUSY: Final = "no container is free within half of the timeout"


def rows() -> dict[str, tuple[int, str, str]]:
    """The table of failures: status, message and record by what happens."""
    table = PAGE.read_text().partition("## What failures become")[2].partition("\n\nSuch an answer")[0]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.strip().splitlines()[2:]]
    return {what: (int(status), message.strip("`"), record.strip("`")) for what, status, message, record in cells}


def test_every_row_of_the_table_of_failures_is_tried() -> None:
    assert rows().keys() - {_BUSY} == FAILURES.keys()


@pytest.mark.parametrize("what", FAILURES)
def test_a_failure_becomes_what_the_table_says(what: str, node: RunningNode) -> None:
    path, fields, orders = FAILURES[what]
    status, message, status_of_record = rows()[what]
    node.http.delete("/v1/apps/e2e/routes/fails")  # that of another row
    defaults = {"memory": 128, "timeout": 30, "image": node.image, "headers": {"X-Route": ["yes"]}}
    wanted = {**defaults, "format": "http", **fields}
    node.http.put("/v1/apps/e2e/routes/fails", json={"route": wanted}).raise_for_status()
    answer = node.call(path, **orders)
    assert answer.status_code == status
    said = answer.json()["error"]["message"]
    begin, _, _ = message.partition("...")
    assert said.startswith(begin.removesuffix("'")) if "..." in message else said == message
    if status_of_record != "none":
        assert node.record(answer)["status"] == status_of_record
        assert answer.headers["x-route"] == "yes"
    elif "fn_call_id" in answer.headers:
        call_id = answer.headers["fn_call_id"]
        assert node.http.get(f"/v1/apps/e2e/calls/{call_id}").status_code == 404


def test_an_answer_of_500_reaches_the_client_and_is_recorded_as_the_page_says(node: RunningNode) -> None:
    path = node.route("answers-500", "http")
    answer = node.call(path, status=500, echo="own words")
    assert (answer.status_code, answer.text) == (500, "own words")
    record = node.record(answer)
    assert (record["status"], record["error"], record["response_status"]) == ("error", "function answered 500", 500)
    assert record["error"] in PAGE.read_text()
