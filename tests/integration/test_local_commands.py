"""hearth run, hearth test and hearth dev: the platform's own behaviour for one folder."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import pty
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import Queue
from typing import Any, BinaryIO

import httpx
import pytest
from tests.support.base_image import base_image
from tests.support.cli import Cli, Done
from tests.support.node import HEARTH
from tests.support.waiting import until

FUNCTION = """
import sys
from hearth_fdk import Answer, Context, function

WORD = "one"

@function
def handle(ctx: Context, body: dict) -> object:
    print("body has", len(body), "fields")
    if body.get("fail"):
        raise RuntimeError("on purpose")
    if body.get("teapot"):
        return Answer("tea", 418, {"X-Pot": "yes"})
    return {"word": WORD, "colour": ctx.config.get("COLOUR", ""), "path": ctx.path, "method": ctx.method,
            "type": ctx.headers["content-type"], "one": ctx.headers.get("x-one", ""), "format": ctx.config["FN_FORMAT"]}
"""

_DEFAULTS = {"memory": 128, "timeout": 30, "idle_timeout": 30}

CASES = """
tests:
  - name: greets
    json: {a: 1}
    config: {COLOUR: blue}
    expect:
      json: {word: one, colour: blue, path: /f, method: POST, type: application/json, one: "", format: json}
      headers: {content-type: application/json}
      log: body has 1 fields
  - name: has its own colour again
    expect:
      json: {word: one, colour: red, path: /f, method: POST, type: application/json, one: "", format: json}
  - name: is a teapot
    body: '{"teapot": true}'
    expect: {status: 418, body: tea, headers: {X-Pot: "yes"}}
"""


def hearth(*arguments: str | Path, stdin: str = "") -> Done:
    return Cli("", Path("/nonexistent"), DOCKER_BUILDKIT="0").run(*arguments, stdin=stdin)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "f"
    made.mkdir()
    (made / "func.py").write_text(FUNCTION)
    (made / "func.yaml").write_text("runtime: python\nformat: json\nconfig: {COLOUR: red}\n")
    (made / "test.yaml").write_text(CASES)
    return made


def test_run_prints_the_answer_and_the_log_apart(folder: Path) -> None:
    done = hearth("run", folder, "-e", "COLOUR=green", "-H", "X-One: grün", "--method", "PUT", stdin='{"a": 1}')
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "word": "one",
        "colour": "green",
        "path": "/f",
        "method": "PUT",
        "type": "application/json",
        "one": "grün",
        "format": "json",
    }
    assert done.stderr == "body has 1 fields\n"
    assert not (folder / "data").exists()


def test_run_ends_the_line_of_an_answer_on_a_terminal(tmp_path: Path) -> None:
    (tmp_path / "func.yaml").write_text("name: shout\ncmd: tr a-z A-Z\n")
    screen, terminal = pty.openpty()
    subprocess.run([HEARTH, "run", tmp_path], input=b"hello", stdout=terminal, check=True)
    os.close(terminal)
    with open(screen, "rb", buffering=0) as shown:
        assert shown.read(100) == b"HELLO\r\n"


def test_run_fails_with_the_traceback_where_the_function_does(folder: Path) -> None:
    done = hearth("run", folder, stdin='{"fail": true}')
    assert done.returncode == 1
    assert "RuntimeError: on purpose" in done.stderr
    assert done.stderr.endswith("hearth: status 500\n")


def test_run_shows_why_a_function_cannot_be_loaded(folder: Path) -> None:
    (folder / "func.py").write_text(f"import nosuch\n{FUNCTION}")
    done = hearth("run", folder, stdin="{}")
    assert done.returncode == 1
    assert "import nosuch\nModuleNotFoundError: No module named 'nosuch'" in done.stderr
    assert "hearth_fdk" not in done.stderr
    assert json.loads(done.stdout) == {"error": {"message": "container exit code 1"}}


def test_run_runs_any_program(tmp_path: Path) -> None:
    (tmp_path / "func.yaml").write_text("name: shout\ncmd: tr a-z A-Z\n")
    assert hearth("run", tmp_path, stdin="hello").stdout == "HELLO"


def test_run_and_test_wait_for_the_answer_of_an_asynchronous_function(folder: Path) -> None:
    with (folder / "func.yaml").open("a") as file:
        file.write("type: async\ntimeout: 600\n")
    done = hearth("run", folder, stdin='{"teapot": true}')
    assert (done.returncode, done.stdout) == (1, "tea")
    assert hearth("test", folder).stdout.endswith("3 passed, 0 failed, 0 skipped\n")


@pytest.mark.parametrize("auth", ["auth: token", "auth: signed\nsignature: {style: github, secret: KEY}"])
def test_the_author_of_a_function_calls_it_without_proof_on_this_machine(folder: Path, auth: str) -> None:
    with (folder / "func.yaml").open("a") as file:
        file.write(f"{auth}\n")
    done = Cli("", Path("/nonexistent"), FN_CALL_AUTH="token").run("run", folder, stdin='{"teapot": true}')
    assert (done.returncode, done.stdout) == (1, "tea")
    assert hearth("test", folder).stdout.endswith("3 passed, 0 failed, 0 skipped\n")


def test_run_says_what_is_wrong_in_one_line(folder: Path) -> None:
    assert "'COLOUR': must be K=V" in hearth("run", folder, "-e", "COLOUR").stderr
    (folder / "func.yaml").write_text("memory: x\n")
    assert "func.yaml:1: memory: must be an integer from" in hearth("run", folder).stderr


def test_run_and_test_with_docker(docker: None, folder: Path) -> None:
    (folder / "func.yaml").write_text(
        f"name: kit-run\npath: f\nruntime: python\nformat: json\nrun_image: {base_image()}\nconfig: {{COLOUR: red}}\n"
    )
    done = hearth("test", "--driver", "docker", folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("3 passed, 0 failed, 0 skipped\n")


def test_cases_pass(folder: Path) -> None:
    done = hearth("test", folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line.split(" (")[0] for line in done.stdout.splitlines()] == [
        "ok    greets",
        "ok    has its own colour again",
        "ok    is a teapot",
        "3 passed, 0 failed, 0 skipped",
    ]


def test_cases_fail_with_what_was_not_as_expected(folder: Path) -> None:
    (folder / "test.yaml").write_text(
        "tests:\n- {body: '{\"teapot\": 1}', expect: {body: coffee, headers: {X-Pot: no}, log: nothing, json: 1}}\n"
        "- {}\n"
    )
    done = hearth("test", folder)
    assert done.returncode == 1
    for text in (
        "FAIL  case 1",
        "expected 200, got 418",
        "'coffee', got 'tea'",
        "X-Pot: expected 'no'",
        "json: expected 1",
    ):
        assert text in done.stdout
    assert "log: expected 'nothing' in it, got 'body has 1 fields\\n'" in done.stdout
    assert "ok    case 2" in done.stdout
    told = json.loads(hearth("test", "--output", "json", folder).stdout)["tests"]
    assert [bool(test["wrong"]) for test in told] == [True, False]


def test_cases_of_fn_are_understood(folder: Path) -> None:
    (folder / "test.yaml").unlink()
    cases = [
        {"name": "tea", "input": {"body": {"a": 1}}, "output": {"body": {"word": "two"}}, "env": {"COLOUR": "blue"}},
        {"name": "fails", "input": {"body": '{"fail": true}'}, "err": "on purpose"},
        {"name": "does not fail", "input": {"body": ""}, "err": "on purpose"},
    ]
    (folder / "test.json").write_text(json.dumps({"tests": cases}, indent="\t"))
    told = json.loads(hearth("test", "--output", "json", folder).stdout)["tests"]
    assert [bool(test["wrong"]) for test in told] == [True, False, True]
    assert told[0]["wrong"][0].startswith('json: expected {"word": "two"}, got')


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "test.yaml: not found; it lists the cases under tests:"),
        ("tests: []\n", "tests: there are none"),
        ("tests:\n- {expect: {status: ok}}\n", "test.yaml:2: tests[0].expect.status: must be an integer from"),
        ("tests:\n- {expekt: {}}\n", "unknown field, ignored; perhaps expect was meant"),
    ],
)
def test_what_is_wrong_with_cases_is_said(folder: Path, text: str | None, message: str) -> None:
    (folder / "test.yaml").unlink() if text is None else (folder / "test.yaml").write_text(text)
    assert message in hearth("test", folder).stderr


class Dev:
    """A running hearth dev, and what it says."""

    def __init__(self, folder: Path, *options: str, port: int | None = 0, serves: bool = True) -> None:
        chosen = [] if port is None else ["--port", str(port)]
        self.process = subprocess.Popen(
            [HEARTH, "dev", folder, *chosen, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.said: dict[str, Queue[str]] = {}
        self.threads: list[threading.Thread] = []
        for name in ("stdout", "stderr"):
            self.said[name] = Queue()
            self.threads.append(threading.Thread(target=self._listen, args=(name,)))
            self.threads[-1].start()
        self.url = self.next("stdout").removeprefix("serving ") if serves else ""

    def _listen(self, name: str) -> None:
        with getattr(self.process, name) as stream:
            for line in stream:
                self.said[name].put(line.rstrip("\n"))

    def next(self, name: str) -> str:
        return self.said[name].get(timeout=60)

    def post(self, body: dict[str, Any]) -> httpx.Response:
        return httpx.post(self.url, json=body, timeout=60)

    def stop(self) -> None:
        """As Ctrl-C does: everything ends, and the port is free."""
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(60) == 0
        for thread in self.threads:
            thread.join()
        with pytest.raises(httpx.ConnectError):
            httpx.get(self.url)

    def until(self, text: str) -> str:
        while text not in (line := self.next("stderr")):
            pass
        return line


def save(file: Path, text: str) -> None:
    """Save a file at once, as editors do: there is no moment in which it is empty, which would be a change, too."""
    made = file.parent.with_suffix(".saved")
    made.write_text(text)
    made.replace(file)


@pytest.fixture
def dev(folder: Path) -> Iterator[Dev]:
    running = Dev(folder)
    yield running
    running.stop()


def test_dev_serves_what_was_saved_last_and_shows_logs_and_faults(dev: Dev, folder: Path) -> None:
    assert dev.post({}).json()["word"] == "one"
    dev.until("body has 0 fields")
    save(folder / "func.py", FUNCTION.replace('"one"', '"two"'))
    assert dev.next("stdout") == f"serving {dev.url}"
    assert dev.post({}).json()["word"] == "two"
    assert dev.post({"fail": 1}).status_code == 500
    dev.until("RuntimeError: on purpose")
    save(folder / "func.yaml", "memory: x\n")
    dev.until("func.yaml:1: memory: must be an integer from")
    assert dev.post({}).json()["word"] == "two"  # what was there goes on serving
    save(folder / "func.yaml", "name: f\nruntime: python\nformat: http\n")
    assert dev.next("stdout") == f"serving {dev.url}"
    assert dev.post({}).json()["format"] == "http"


def test_no_call_fails_while_what_was_saved_is_built_and_deployed(dev: Dev, folder: Path) -> None:
    answers: list[httpx.Response] = []
    over = threading.Event()

    def call() -> None:
        with httpx.Client(timeout=60) as http:
            while not over.is_set():
                answers.append(http.post(dev.url, json={}))

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        callers = [pool.submit(call) for _ in range(2)]
        try:
            for number in range(4):
                save(folder / "func.py", FUNCTION.replace('"one"', f'"{number}"'))
                assert dev.next("stdout") == f"serving {dev.url}"
        finally:
            over.set()
        for caller in callers:
            caller.result()
    assert {(answer.status_code, answer.text) for answer in answers if answer.status_code != 200} == set()
    assert dev.post({}).json()["word"] == "3"


def test_dev_tells_faults_before_it_serves_and_sees_through_links(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "shared"
    outside.mkdir()
    (outside / "words.py").write_text("WORD = 'one'\n")
    (folder / "linked").symlink_to(outside)
    (folder / os.fsdecode(b"caf\xe9.txt")).touch()
    good = FUNCTION.replace('WORD = "one"', "from linked.words import WORD")
    (folder / "func.py").write_text("def handle(:\n")
    dev = Dev(folder, "--follow-outside", serves=False)
    try:
        dev.until("func.py:1: invalid syntax")
        save(folder / "func.py", good)
        dev.url = dev.next("stdout").removeprefix("serving ")
        assert dev.post({}).json()["word"] == "one"
        before = (outside / "words.py").stat()
        with (outside / "words.py").open("r+") as file:
            file.write("WORD = 'two'\n")
        os.utime(outside / "words.py", ns=(before.st_atime_ns, before.st_mtime_ns))  # two saves can have one time
        assert dev.next("stdout") == f"serving {dev.url}"
        assert dev.post({}).json()["word"] == "two"
    finally:
        dev.stop()


def test_a_link_that_leaves_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    (folder / "secret").symlink_to(tmp_path / "secret")
    for command in ("run", "test", "build"):
        told = hearth(command, folder, stdin="{}").stderr
        assert told.startswith(f"hearth: {folder}/secret: links to {tmp_path}/secret, outside the function's folder")
        assert told.count("\n") == 1
    assert hearth("run", folder, "--follow-outside", stdin="{}").returncode == 0


def test_dev_forgets_what_a_recipe_said_before(dev: Dev, folder: Path) -> None:
    fields = "name: f\nruntime: python\nformat: json\n"
    route = dev.url.replace("/r/myapp/", "/v1/apps/myapp/routes/")
    for more in ("memory: 64\ntimeout: 9\nidle_timeout: 7\nheaders: {X-Old: [a]}\nconfig: {OLD: b}\n", "cpus: 0.5\n"):
        save(folder / "func.yaml", fields + more)
        assert dev.next("stdout") == f"serving {dev.url}"
        said = httpx.get(route, timeout=60).json()["route"]
        assert ("OLD" in said.get("config", {}), bool(said.get("cpus"))) == ("OLD" in more, "cpus" in more)
    save(folder / "func.yaml", fields)
    assert dev.next("stdout") == f"serving {dev.url}"
    last = httpx.get(route, timeout=60).json()["route"]
    assert last.items() >= _DEFAULTS.items()
    assert not any(last.get(name) for name in ("cpus", "headers", "config"))


def test_dev_says_in_one_line_that_its_port_is_taken(folder: Path) -> None:
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        done = hearth("dev", folder, "--port", str(port))
    assert done.returncode == 1
    assert done.stderr.startswith(f"hearth: FN_PORT={port}: cannot listen: Address already in use")
    assert done.stderr.count("\n") == 1


def test_dev_prints_a_line_for_each_call_and_names_the_file_that_was_saved(folder: Path) -> None:
    (folder / "func.yaml").write_text("runtime: python\nformat: http\ntimeout: 1\n")
    faults = """
    import os, time
    if body.get("exit"):
        os._exit(3)
    if body.get("hog"):
        held = bytearray(600 << 20)
    time.sleep(body.get("sleep", 0))
"""
    (folder / "func.py").write_text(FUNCTION.replace('    print("body', f'{faults}    print("body'))
    dev = Dev(folder)
    try:
        for body, line in (
            ({}, r"POST /r/myapp/f 200 \d+(\.\d)? m?s( \d+ MiB)?"),
            ({"teapot": 1}, r"POST /r/myapp/f 418 \d+(\.\d)? m?s( \d+ MiB)?"),
            ({"exit": 1}, r"POST /r/myapp/f 502 .*: container exit code 3.*"),
            ({"hog": 1}, r"POST /r/myapp/f 502 .*: container out of memory.*"),
            ({"sleep": 30}, r"POST /r/myapp/f 504 .*: [Tt]imed out.*"),
        ):
            dev.post(body)
            assert re.fullmatch(line, dev.until("POST "))
        save(folder / "func.py", FUNCTION)
        dev.until("changed: func.py; building again")
        assert dev.next("stdout") == f"serving {dev.url}"
        (folder / "more").mkdir()
        save(folder / "more" / "words.txt", "x")
        assert "words.txt" in dev.until("changed: more") or "words.txt" in dev.until("changed: more")
    finally:
        dev.stop()


def test_dev_opens_the_dashboard_when_it_is_asked_to(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser, shown = tmp_path / "browser", tmp_path / "shown"
    browser.write_text(f'#!/bin/sh\nprintf %s "$1" >{shown}.part && mv {shown}.part {shown}\n')
    browser.chmod(0o755)
    monkeypatch.setenv("BROWSER", str(browser))
    dev = Dev(folder, "--open")
    try:
        assert until(shown.exists)
        assert shown.read_text() == f"{dev.url.partition('/r/')[0]}/ui/"
    finally:
        dev.stop()


def test_dev_takes_another_port_if_the_usual_one_is_taken(folder: Path) -> None:
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # somebody else has it: as well
            stack.enter_context(socket.create_server(("127.0.0.1", 8080)))
        dev = Dev(folder, port=None)
        try:
            dev.until("port 8080 is taken; listening on another")
            assert not dev.url.startswith("http://127.0.0.1:8080/")
            assert dev.post({}).json()["word"] == "one"
        finally:
            dev.stop()


@pytest.mark.parametrize("library", ["_pydantic_core", "_rust_notify", "_greenlet", "during the build"])
def test_ctrl_c_ends_dev_without_a_traceback_at_any_moment(library: str, folder: Path) -> None:
    started = folder.parent / "started"
    if library == "during the build":
        (folder / "func.yaml").write_text(f"runtime: python\nformat: json\nbuild: ['touch {started}; exec sleep 1']\n")
    with subprocess.Popen(
        [HEARTH, "dev", folder, "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        maps = Path(f"/proc/{process.pid}/maps")
        try:
            assert until(lambda: started.exists() or library in maps.read_text())
            process.send_signal(signal.SIGINT)
            said = process.communicate(timeout=60)[1]
        finally:
            process.kill()
    assert process.returncode in (0, 130)
    assert "Traceback" not in said
    assert "hearth: " not in said


def test_dev_writes_a_launch_file_for_the_debugger_and_leaves_one_that_exists(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    file = folder / ".vscode" / "launch.json"
    dev = Dev(folder, "--debug", "--debug-port", str(port))
    dev.stop()
    [configuration] = json.loads(file.read_text())["configurations"]
    assert configuration["connect"] == {"host": "127.0.0.1", "port": port}
    assert (configuration["type"], configuration["request"]) == ("debugpy", "attach")
    file.write_text("{}")
    dev = Dev(folder, "--debug", "--debug-port", str(port))
    dev.until(f"attach a debugger to 127.0.0.1:{port}")
    dev.stop()
    assert file.read_text() == "{}"


def test_dev_misses_no_change_however_soon_after_another_it_is_saved(dev: Dev, folder: Path) -> None:
    for number in range(4):  # each is saved the moment that the one before it is served
        save(folder / "func.py", FUNCTION.replace('"one"', f'"{number}"'))
        assert dev.next("stdout") == f"serving {dev.url}"
    assert dev.post({}).json()["word"] == "3"


def test_a_debugger_can_attach(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    dev = Dev(folder, "--debug", "--debug-port", str(port))
    try:
        assert dev.post({}).json()["word"] == "one"
        route = httpx.get(dev.url.replace("/r/myapp/", "/v1/apps/myapp/routes/"), timeout=60).json()["route"]
        assert route["timeout"] == 24 * 3600  # nobody is hurried at a breakpoint
        with socket.create_connection(("127.0.0.1", port), timeout=60) as debugger, debugger.makefile("rb") as answers:
            order = json.dumps(
                {"seq": 1, "type": "request", "command": "initialize", "arguments": {"adapterID": "test"}}
            ).encode()
            debugger.sendall(b"Content-Length: %d\r\n\r\n%b" % (len(order), order))
            while (told := _message(answers)).get("command") != "initialize":
                pass
        assert told["success"]
    finally:
        dev.stop()


def _message(stream: BinaryIO) -> dict[str, Any]:
    """One message of the debug adapter protocol."""
    length = 0
    while line := stream.readline().strip():
        name, _, value = line.partition(b":")
        length = int(value) if name == b"Content-Length" else length
    told: dict[str, Any] = json.loads(stream.read(length))
    return told


@pytest.mark.parametrize("name", ["hello", "stdio", "shout", "events"])
def test_the_examples_pass_their_own_cases(name: str) -> None:
    done = hearth("test", Path(__file__).parents[2] / "examples" / name)
    assert done.returncode == 0, done.stdout + done.stderr
