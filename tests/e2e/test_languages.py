"""Functions in other languages, as processes and as images: two written against the contract without a kit, the others
with kits of Fn.
"""

from __future__ import annotations

import dataclasses
import functools
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from tests.support import kits
from tests.support.cli import Cli
from tests.support.machine_image import machine_image
from tests.support.node import RunningNode, running_node
from tests.support.waiting import until

AT_ONCE = 8
PAGE = kits.ROOT / "docs" / "languages.md"


@dataclasses.dataclass(frozen=True)
class Language:
    """A function in some language.

    Attributes:
        says: The word by which it names itself in its answers.
        command: Runs it as a process.
        sources: Writes its folder.
        image: Makes an image of that folder; its name.
        sets_status: True if it says a status of its own where the client is none of HTTP.
        shares: True if it runs several calls at once.
        frames: True if it marks where the log of a request begins.
    """

    says: str
    command: str
    sources: Callable[[Path], None]
    image: Callable[[Path], str]
    sets_status: bool = True
    shares: bool = True
    frames: bool = False


def _compiled(compile_it: Callable[[Path], None], name: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        folder.mkdir()
        compile_it(folder / name)

    return write


def _python(version: str) -> Language:
    def write(folder: Path) -> None:
        folder.mkdir()
        kits.python_sources(folder, version)

    return Language(
        "python",
        "runtime: python\ncmd: fdk func.py handler",
        write,
        lambda folder: kits.kit_image(f"python-{version}", folder, machine_image()),
        sets_status=False,
        frames=True,
    )


LANGUAGES = {
    "c": Language(
        "c",
        "cmd: ./contract-c",
        _compiled(kits.c_program, "contract-c"),
        lambda folder: kits.program_image(folder / "contract-c"),
        shares=False,
    ),
    "go": Language(
        "go",
        "cmd: ./contract-go",
        _compiled(kits.go_program, "contract-go"),
        lambda folder: kits.program_image(folder / "contract-go"),
    ),
    "node": Language(
        "node",
        "cmd: node func.js",
        kits.node_sources,
        lambda folder: kits.kit_image("node", folder, kits.node_base_image()),
        frames=True,
    ),
    "python-newest": _python("newest"),
    "python-oldest": _python("oldest"),
}


@pytest.fixture(scope="module", params=["process", "docker"])
def languages_node(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    if request.param == "docker":
        request.getfixturevalue("docker")
    data = tmp_path_factory.mktemp(f"languages-{request.param}")
    with running_node(request.param, data, "none", FN_FUNCTION_NETWORK="none") as running:
        yield running


@pytest.fixture(scope="module")
def made(languages_node: RunningNode) -> Callable[[str], str]:
    """Make the image of a function in a language, once for each driver; its reference."""

    @functools.cache
    def make(name: str) -> str:
        language, folder = LANGUAGES[name], languages_node.data / f"source-{name}"
        language.sources(folder)
        if languages_node.driver == "docker":
            return language.image(folder)
        text = f"name: {name}\nversion: '1'\nformat: http-stream\n{language.command}\n"
        if name == "python-newest":  # as the documentation has it
            text = PAGE.read_text().partition("```yaml\n")[2].partition("```")[0].replace("pyfn", name)
        (folder / "func.yaml").write_text(text)
        data = languages_node.data
        Cli("", data, FN_DATA_DIR=str(data))("build", "--driver", "process", folder)
        shutil.rmtree(folder)
        return f"{name}:1"

    return make


def _logged(node: RunningNode, answer: httpx.Response) -> bool:
    return "7 bytes\n" in node.log(answer)


@pytest.mark.parametrize("name", LANGUAGES)
def test_a_function_answers_one_call_after_another(
    languages_node: RunningNode, made: Callable[[str], str], name: str
) -> None:
    node, says = languages_node, LANGUAGES[name].says
    path = node.route(name, "http-stream", image=made(name), timeout=60, memory=256)
    for number in range(8):
        answer = node.http.post(path, content=f"hello {number}")
        assert (answer.status_code, answer.text) == (201, f"hello {number}")
        assert (answer.headers["x-made-by"], answer.headers["content-type"]) == (says, f"text/x-{says}")
        assert until(functools.partial(_logged, node, answer))
    chunked = node.http.post(path, content=iter([b"x" * 70_000, b"y" * 10]))
    assert chunked.content == b"x" * 70_000 + b"y" * 10
    failed = node.http.post(path, content=b"fail")
    assert (failed.status_code, failed.json()["error"]["message"]) == (502, "function failed")
    assert node.http.post(path, content=b"next").text == "next"


@pytest.mark.parametrize("name", LANGUAGES)
def test_a_fn_is_invoked_by_its_id_and_through_a_trigger(
    languages_node: RunningNode, made: Callable[[str], str], name: str
) -> None:
    node, language = languages_node, LANGUAGES[name]
    app = node.http.post("/v2/apps", json={"name": f"app-{name}"}).json()["id"]
    config = {"FN_LOGFRAME_NAME": "frame", "FN_LOGFRAME_HDR": "Fn-Call-Id"}
    described = {"app_id": app, "name": name, "image": made(name), "memory": 256, "config": config}
    fn = node.http.post("/v2/fns", json=described).json()["id"]
    answer = node.http.post(f"/invoke/{fn}", content=b"plain")
    assert (answer.status_code, answer.text, answer.headers["x-made-by"]) == (200, "plain", language.says)
    assert answer.headers.get("fn-http-status") == ("201" if language.sets_status else None)
    if language.frames:
        call_id = answer.headers["fn-call-id"]
        log = functools.partial(node.http.get, f"/v2/fns/{fn}/calls/{call_id}/log", headers={"Accept": "text/plain"})
        assert until(lambda: f"\nframe={call_id}\n" in log().text), log().text
    trigger = {"app_id": app, "fn_id": fn, "name": "t", "type": "http", "source": "/a/b"}
    assert node.http.post("/v2/triggers", json=trigger).status_code == 200
    for method in ("POST", "PUT"):
        answer = node.http.request(method, f"/t/app-{name}/a/b?c=d", content=b"triggered")
        assert (answer.status_code, answer.text, answer.headers["x-made-by"]) == (201, "triggered", language.says)
        assert answer.headers["content-type"] == f"text/x-{language.says}"
    failed = node.http.post(f"/t/app-{name}/a/b", content=b"fail")
    assert (failed.status_code, failed.json()) == (502, {"message": "function failed"})


@pytest.mark.parametrize("name", [name for name, language in LANGUAGES.items() if language.shares])
def test_one_process_runs_several_calls_at_once(
    languages_node: RunningNode, made: Callable[[str], str], name: str
) -> None:
    node, config = languages_node, {"MEET": str(AT_ONCE)}
    fields = {"image": made(name), "timeout": 60, "memory": 256, "concurrency": AT_ONCE, "config": config}
    path = node.route(f"{name}-shared", "http-stream", **fields)
    assert node.http.post(path, content=b"warm").text == "warm"
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(lambda _: node.http.post(path, content=b"meet"), range(AT_ONCE)))
    assert [(answer.status_code, answer.text) for answer in answers] == [(201, "meet")] * AT_ONCE
