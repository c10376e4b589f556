"""Functions in other languages, written against the contract without a kit, on both drivers."""

from __future__ import annotations

import functools
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.support.cli import Cli
from tests.support.docker_images import folder, import_image, member
from tests.support.node import MULTI, RunningNode, running_node
from tests.support.waiting import until

SOURCE = MULTI.with_name("contract.c")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The function in C, linked statically: its image holds nothing else."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("a function in C needs a compiler: apt-get install gcc libc6-dev")
    made = tmp_path_factory.mktemp("c") / "contract"
    subprocess.run([compiler, "-std=gnu11", "-O2", "-Wall", "-static", "-o", made, SOURCE], check=True)
    return made


@pytest.fixture(scope="module", params=["process", "docker"])
def c_node(
    request: pytest.FixtureRequest, program: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningNode]:
    data = tmp_path_factory.mktemp(f"c-{request.param}")
    image = "contract:1"
    if request.param == "docker":
        request.getfixturevalue("docker")
        image = "hearth-test/contract:1"
        import_image(image, ["/contract"], [member("contract", program.read_bytes(), 0o755), folder("tmp", 0o1777)])
    else:
        (data / "contract").mkdir()
        shutil.copy(program, data / "contract" / "contract")
        (data / "contract" / "func.yaml").write_text("name: contract\nversion: '1'\ncmd: ./contract\n")
        Cli("", data, FN_DATA_DIR=str(data))("build", "--driver", "process", data / "contract")
    with running_node(request.param, data, image, FN_FUNCTION_NETWORK="none") as running:
        yield running


def _logged(node: RunningNode, answer: httpx.Response) -> bool:
    return node.log(answer) == "7 bytes\n"


def test_a_function_in_c_answers_one_call_after_another(c_node: RunningNode) -> None:
    path = c_node.route("c", "http-stream", timeout=30)
    for number in range(8):
        answer = c_node.http.post(path, content=f"hello {number}")
        assert (answer.status_code, answer.text) == (201, f"hello {number}")
        assert (answer.headers["x-made-by"], answer.headers["content-type"]) == ("c", "text/x-c")
        assert until(functools.partial(_logged, c_node, answer))
    chunked = c_node.http.post(path, content=iter([b"x" * 70_000, b"y" * 10]))
    assert chunked.content == b"x" * 70_000 + b"y" * 10
    failed = c_node.http.post(path, content=b"fail")
    assert (failed.status_code, failed.json()["error"]["message"]) == (502, "function failed")
    assert c_node.http.post(path, content=b"next").text == "next"


def test_a_fn_in_c_is_invoked_by_its_id(c_node: RunningNode) -> None:
    app = c_node.http.post("/v2/apps", json={"name": "c"}).json()["id"]
    fn = c_node.http.post("/v2/fns", json={"app_id": app, "name": "c", "image": c_node.image}).json()["id"]
    answer = c_node.http.post(f"/invoke/{fn}", content=b"plain")
    assert (answer.status_code, answer.text) == (200, "plain")
    assert (answer.headers["fn-http-status"], answer.headers["x-made-by"]) == ("201", "c")
