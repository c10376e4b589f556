"""Functions written with hearth_fdk, built without a Dockerfile, on every driver and in every format."""

from __future__ import annotations

import zipfile
from pathlib import Path

import httpx
import pytest
from tests.support.base_image import base_image
from tests.support.cli import Cli
from tests.support.node import RunningNode
from tests.support.waiting import until

FUNCTION = """
import asyncio, dataclasses, os, sys
from hearth_fdk import Answer, Context, function

loop = None
calls = 0

@dataclasses.dataclass
class Order:
    act: str
    text: str = ""

@function
async def handle(ctx: Context, order: Order) -> object:
    global loop, calls
    calls += 1
    loop = loop or asyncio.get_running_loop()
    print("handling", order.act)
    os.write(1, b"from below Python\\n")
    if order.act == "fail":
        raise RuntimeError("on purpose")
    if order.act == "read":
        return os.read(0, 100).decode() + sys.stdin.read()
    if order.act == "answer":
        return Answer(order.text, 418, {"X-Kit": "yes"})
    return {
        "text": order.text, "version": VERSION, "calls": calls, "same_loop": loop is asyncio.get_running_loop(),
        "id": ctx.call_id, "app": ctx.app_name, "path": ctx.path, "method": ctx.method, "url": ctx.request_url,
        "type": ctx.headers["content-type"], "left": 0 < ctx.remaining_s() < 31, "config": ctx.config["COLOUR"],
    }
"""
_NO_MODULE = "ModuleNotFoundError: No module named 'nosuch'"
_NOT_STARTED = "Container failed to initialize, please ensure you are using the latest fdk and check the logs"


def build(node: RunningNode, folder: Path, version: str = "VERSION = 1", name: str = "kit", **more: str) -> str:
    """Build the function for the node's driver; its reference."""
    folder.mkdir(exist_ok=True)
    (folder / "func.py").write_text(f"{version}\n{FUNCTION}")
    (folder / "func.yaml").write_text(f"name: {name}-{node.driver}\nruntime: python\nrun_image: {base_image()}\n")
    for file, text in more.items():
        (folder / file.replace("_", ".")).write_text(text)
    _command(node)("build", "--driver", node.driver, folder)
    return f"{name}-{node.driver}:latest"


def _command(node: RunningNode) -> Cli:
    return Cli("", node.data, FN_DATA_DIR=str(node.data), DOCKER_BUILDKIT="0")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kit") / "f"


@pytest.fixture(scope="module")
def image(node: RunningNode, folder: Path) -> str:
    return build(node, folder)


def logged(node: RunningNode, answer: httpx.Response, text: str) -> bool:
    """Whether the log has this: on Docker, a moment after the answer."""
    return until(lambda: text in node.log(answer))


def test_a_handler_answers_calls_one_after_another(node: RunningNode, image: str, any_format: str) -> None:
    path = node.route(f"kit-{any_format}", any_format, image=image, config={"COLOUR": "red"})
    for number in (1, 2):
        answer = node.call(path, act="tell", text="é")
        assert answer.status_code == 200, answer.text
        told = answer.json()
        assert told["calls"] == (1 if any_format == "default" else number)
        assert (told["text"], told["same_loop"], told["left"], told["config"]) == ("é", True, True, "red")
        assert (told["id"], told["app"], told["path"]) == (answer.headers["fn_call_id"], "e2e", f"/kit-{any_format}")
        assert (told["method"], told["url"], told["type"]) == ("POST", f"{node.url}{path}", "application/json")
        assert logged(node, answer, "handling tell\nfrom below Python\n")


def test_status_and_headers_reach_the_client(node: RunningNode, image: str, hot: str) -> None:
    path = node.route(f"kit-answer-{hot}", hot, image=image, config={"COLOUR": "red"})
    answer = node.call(path, act="answer", text="tea")
    assert (answer.status_code, answer.text, answer.headers["x-kit"]) == (418, "tea", "yes")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert node.http.head(path).status_code == 400  # no body is no order
    assert node.call(path, act="tell").json()["calls"] == 3 - 1  # a refused body does not reach the handler


def test_what_is_raised_is_in_the_log_and_the_next_call_is_served(
    node: RunningNode, image: str, any_format: str
) -> None:
    path = node.route(f"kit-fail-{any_format}", any_format, image=image, config={"COLOUR": "red"})
    answer = node.call(path, act="fail")
    assert answer.status_code == (502 if any_format == "default" else 500)
    assert logged(node, answer, 'raise RuntimeError("on purpose")')
    assert "hearth_fdk" not in node.log(answer)
    record = node.record(answer)
    assert record["status"] == "error"
    if any_format != "default":
        assert (record["error"], record["response_status"]) == ("function answered 500", 500)
    assert node.call(path, act="tell").json()["calls"] == (1 if any_format == "default" else 2)


def test_what_a_program_reads_is_never_a_call(node: RunningNode, image: str, any_format: str) -> None:
    """Many a child process reads its stdin: that would be the next call, or wait for it."""
    path = node.route(f"kit-read-{any_format}", any_format, image=image, config={"COLOUR": "red"})
    answer = node.call(path, act="read")
    assert (answer.status_code, answer.text) == (200, "")
    assert node.call(path, act="tell").json()["calls"] == (1 if any_format == "default" else 2)


@pytest.fixture(scope="module")
def broken(node: RunningNode, tmp_path_factory: pytest.TempPathFactory) -> str:
    return build(node, tmp_path_factory.mktemp("broken") / "f", "import nosuch", "kit-broken")


def test_why_a_program_cannot_be_loaded_is_told(node: RunningNode, broken: str, any_format: str) -> None:
    sync = node.call(node.route(f"kit-broken-{any_format}", any_format, image=broken), act="tell")
    told = _NOT_STARTED if any_format == "http-stream" else "container exit code 1"
    assert (sync.status_code, sync.json()) == (502, {"error": {"message": told}})
    late = node.call(node.route(f"kit-broken-later-{any_format}", any_format, image=broken, type="async"), act="tell")
    node.ended(late)
    for answer in (sync, late):
        error = node.record(answer)["error"]
        assert error.startswith(told)
        assert "container exit code 1" in error
        assert error.endswith(f": {_NO_MODULE}; see the call's log")
        log = node.log(answer)
        assert 'func.py", line 1, in <module>\n    import nosuch\n' in log
        assert log.rstrip().endswith(_NO_MODULE)


def test_a_rebuild_under_the_same_tag_reaches_a_warm_route(node: RunningNode, image: str, folder: Path) -> None:
    # Room for one: a call that comes while its container still waits for late stderr would have a second one started.
    fields = {"image": image, "config": {"COLOUR": "red"}, "memory": 4500}
    path = node.route("kit-again", "json", **fields)
    assert [node.call(path, act="tell").json()["calls"] for _ in range(2)] == [1, 2]
    node.route("kit-again", "json", **fields)
    assert node.call(path, act="tell").json()["calls"] == 3  # nothing was built: still warm
    (folder / "requirements.txt").write_text("./nowhere\n")
    assert "nowhere" in _command(node).run("build", "--driver", node.driver, folder).stderr
    node.route("kit-again", "json", **fields)
    assert node.call(path, act="tell").json()["calls"] == 4  # what could not be built has left all as it was
    (folder / "requirements.txt").unlink()
    build(node, folder, "VERSION = 2")
    node.route("kit-again", "json", **fields)
    answer = node.call(path, act="tell")
    assert answer.status_code == 200, answer.text
    assert (answer.json()["version"], answer.json()["calls"]) == (2, 1)


def test_requirements_are_installed_from_a_folder_of_wheels(node: RunningNode, tmp_path: Path) -> None:
    wheels = tmp_path / "f" / "wheels"
    wheels.mkdir(parents=True)
    with zipfile.ZipFile(wheels / "greeting-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("greeting.py", "WORD = 'installed'\n")
        wheel.writestr("greeting-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n")
        wheel.writestr("greeting-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("greeting-1.0.dist-info/RECORD", "")
    image = build(node, tmp_path / "f", "from greeting import WORD as VERSION", requirements_txt="greeting\n")
    path = node.route("kit-needs", "http", image=image, config={"COLOUR": "red"})
    assert node.call(path, act="tell").json()["version"] == "installed"


CHILDREN = """
import json, shutil, subprocess, sys
from hearth_fdk import function

@function
def handle() -> dict:
    module = subprocess.run([sys.executable, "-m", "greeting"], cwd="/tmp", capture_output=True, text=True)
    own = subprocess.run([sys.executable, "-m", "own"], cwd="/tmp", capture_output=True, text=True)
    script = subprocess.run(["greet"], cwd="/tmp", capture_output=True, text=True)
    return {"module": module.stdout + module.stderr, "own": own.stdout + own.stderr, "script": script.stdout}
"""


def test_child_processes_find_modules_and_scripts_from_any_folder(node: RunningNode, tmp_path: Path) -> None:
    wheels = tmp_path / "f" / "wheels"
    wheels.mkdir(parents=True)
    with zipfile.ZipFile(wheels / "greeting-1.0-py3-none-any.whl", "w") as wheel:
        info = "greeting-1.0.dist-info"
        wheel.writestr("greeting.py", "def main():\n    print('hello')\nif __name__ == '__main__':\n    main()\n")
        wheel.writestr("greeting_hook.pth", "import sys; sys.hooked = True\n")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/entry_points.txt", "[console_scripts]\ngreet = greeting:main\n")
        wheel.writestr(f"{info}/RECORD", "")
    (tmp_path / "f" / "own.py").write_text("import sys\nprint('own', getattr(sys, 'hooked', False))\n")
    (tmp_path / "f" / "func.py").write_text(CHILDREN)
    (tmp_path / "f" / "requirements.txt").write_text("greeting\n")
    (tmp_path / "f" / "func.yaml").write_text(
        f"name: kit-children-{node.driver}\nruntime: python\nrun_image: {base_image()}\n"
    )
    _command(node)("build", "--driver", node.driver, tmp_path / "f")
    path = node.route("kit-children", "http", image=f"kit-children-{node.driver}:latest")
    assert node.call(path).json() == {"module": "hello\n", "own": "own True\n", "script": "hello\n"}


def test_what_is_made_by_init_carries_bytes_and_headers(node: RunningNode, tmp_path: Path) -> None:
    cli = Cli(node.url, node.data, DOCKER_BUILDKIT="0")
    folder = tmp_path / f"carries-{node.driver}"
    cli("init", folder)
    (folder / "func.py").write_text(
        "from hearth_fdk import Context, function\n@function\n"
        "def handle(ctx: Context, body: bytes) -> bytes:\n"
        "    ctx.set_header('X-Copy', ctx.headers['x-any'])\n    ctx.set_status(201)\n    return body[::-1]\n"
    )
    with (folder / "func.yaml").open("a") as recipe:
        recipe.write(f"run_image: {base_image()}\n")
    cli("deploy", "--app", "carries", cwd=folder)
    sent = bytes(range(256))
    headers = {b"X-Any": b"caf\xc3\xa9 \xff"}
    answer = node.http.post(f"/r/carries/{folder.name}", content=sent, headers=headers)
    assert (answer.status_code, answer.content) == (201, sent[::-1])
    assert {name.lower(): value for name, value in answer.headers.raw}[b"x-copy"] == headers[b"X-Any"]


def test_an_author_is_told_of_an_annotation_that_cannot_be_filled(node: RunningNode, tmp_path: Path) -> None:
    folder = tmp_path / "f"
    folder.mkdir()
    (folder / "own.py").write_text("class Thing: ...\n")  # not in the program: found when it starts
    source = "from own import Thing\nfrom hearth_fdk import function\n@function\ndef handle(body: Thing): ...\n"
    (folder / "func.py").write_text(source)
    (folder / "func.yaml").write_text(f"name: kit-thing-{node.driver}\nruntime: python\nrun_image: {base_image()}\n")
    _command(node)("build", "--driver", node.driver, folder)
    answer = node.call(node.route("kit-thing", "http", image=f"kit-thing-{node.driver}:latest"))
    assert answer.status_code == 502
    assert "handle(body): Thing is not supported" in node.record(answer)["error"]
    (folder / "func.py").write_text("def handler(ctx, data):\n    return data\nhandlers = [handler]\n" + "import own\n")
    _command(node)("build", "--driver", node.driver, folder)  # own.py might register it
    answer = node.call(node.route("kit-thing", "http", image=f"kit-thing-{node.driver}:latest"))
    assert "no handler. Decorate one function with @function" in node.record(answer)["error"]
