"""Functions written with hearth_fdk, built without a Dockerfile, on every driver and in every format."""

from __future__ import annotations

import os
import subprocess
import zipfile
from pathlib import Path

import pytest
from tests.support.base_image import base_image
from tests.support.node import HEARTH, RunningNode

FUNCTION = """
import asyncio, dataclasses, os
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
    if order.act == "answer":
        return Answer(order.text, 418, {"X-Kit": "yes"})
    return {
        "text": order.text, "version": VERSION, "calls": calls, "same_loop": loop is asyncio.get_running_loop(),
        "id": ctx.call_id, "app": ctx.app_name, "path": ctx.path, "method": ctx.method, "url": ctx.request_url,
        "type": ctx.headers["content-type"], "left": 0 < ctx.remaining_s() < 31, "config": ctx.config["COLOUR"],
    }
"""


def build(node: RunningNode, folder: Path, version: str = "VERSION = 1", **more: str) -> str:
    """Build the function for the node's driver; its reference."""
    folder.mkdir(exist_ok=True)
    (folder / "func.py").write_text(f"{version}\n{FUNCTION}")
    (folder / "func.yaml").write_text(f"name: kit-{node.driver}\nruntime: python\nrun_image: {base_image()}\n")
    for name, text in more.items():
        (folder / name.replace("_", ".")).write_text(text)
    environment = {**os.environ, "FN_DATA_DIR": str(node.data), "DOCKER_BUILDKIT": "0"}
    done = subprocess.run(
        [HEARTH, "build", "--driver", node.driver, folder], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return f"kit-{node.driver}:latest"


@pytest.fixture(scope="module")
def image(node: RunningNode, tmp_path_factory: pytest.TempPathFactory) -> str:
    return build(node, tmp_path_factory.mktemp("kit") / "f")


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
        assert node.log(answer) == "handling tell\nfrom below Python\n"


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
    log = node.log(answer)
    assert 'raise RuntimeError("on purpose")' in log
    assert "hearth_fdk" not in log
    assert node.call(path, act="tell").json()["calls"] == (1 if any_format == "default" else 2)


def test_a_rebuild_under_the_same_tag_reaches_a_warm_route(node: RunningNode, tmp_path: Path) -> None:
    image = build(node, tmp_path / "f")
    fields = {"image": image, "config": {"COLOUR": "red"}}
    path = node.route("kit-again", "json", **fields)
    assert [node.call(path, act="tell").json()["calls"] for _ in range(2)] == [1, 2]
    node.route("kit-again", "json", **fields)
    assert node.call(path, act="tell").json()["calls"] == 3  # nothing was built: still warm
    build(node, tmp_path / "f", "VERSION = 2")
    node.route("kit-again", "json", **fields)
    told = node.call(path, act="tell").json()
    assert (told["version"], told["calls"]) == (2, 1)


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


def test_a_failed_build_leaves_what_was_there(node: RunningNode, tmp_path: Path) -> None:
    image = build(node, tmp_path / "f")
    (tmp_path / "f" / "requirements.txt").write_text("./nowhere\n")
    environment = {**os.environ, "FN_DATA_DIR": str(node.data), "DOCKER_BUILDKIT": "0"}
    done = subprocess.run(
        [HEARTH, "build", "--driver", node.driver, tmp_path / "f"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "nowhere" in done.stderr
    path = node.route("kit-left", "json", image=image, config={"COLOUR": "red"})
    assert node.call(path, act="tell").json()["version"] == 1
