"""Contexts: the files of the fn CLI; which server, registry and token are meant."""

from __future__ import annotations

import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.cli import Cli

HEAVY = "sqlalchemy httptools uvloop aiodocker redis pydantic starlette httpx aiobotocore hearth.nodes hearth.settings"


class Recorder(http.server.ThreadingHTTPServer):
    """A server that answers every list with nothing, and keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.asked: list[tuple[str, str | None]] = []


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Recorder)
        self.server.asked.append((self.path, self.headers.get("Authorization")))
        body = b'{"apps":[],"next_cursor":""}'
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    """It, serving."""
    with Recorder() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_contexts_live_in_the_files_of_the_fn_cli(tmp_path: Path) -> None:
    cli = Cli("", tmp_path)
    folder = tmp_path / ".fn"
    assert cli("list", "contexts").splitlines()[1].split() == ["*", "default", "default", "http://localhost:8080"]
    assert not folder.exists()  # looking writes nothing
    cli("create", "context", "prod", "--api-url", "http://prod:8080", "--registry", "me")
    assert yaml.safe_load((folder / "contexts" / "prod.yaml").read_text()) == {
        "api-url": "http://prod:8080",
        "provider": "default",
        "registry": "me",
    }
    assert cli.fails(1, "create", "context", "prod") == "hearth: context prod already exists"
    cli("use", "context", "prod")
    assert yaml.safe_load((folder / "config.yaml").read_text()) == {"current-context": "prod"}
    cli("update", "context", "registry", "you")
    assert cli("inspect", "context", "prod", "registry") == "you\n"
    assert "in use" in cli.fails(1, "delete", "context", "prod")
    cli("unset", "context")
    assert "no context is in use" in cli.fails(1, "inspect", "context")
    cli("delete", "context", "prod")
    assert cli.fails(1, "use", "context", "prod").startswith("hearth: context prod not found")
    assert "letters" in cli.fails(1, "create", "context", "../etc")
    assert "cannot be deleted" in cli.fails(1, "contexts", "delete", "default")


def test_what_the_fn_cli_wrote_is_read_and_kept(tmp_path: Path, recorder: Recorder) -> None:
    contexts = tmp_path / ".fn" / "contexts"
    contexts.mkdir(parents=True)
    config = tmp_path / ".fn" / "config.yaml"
    config.write_text("cli-version: 0.6.63\ncontainer-enginetype: podman\ncurrent-context: work\n")
    (contexts / "default.yaml").write_text('api-url: http://localhost:8080\nprovider: default\nregistry: ""\n')
    (contexts / "work.yaml").write_text(f"api-url: {recorder.url}/prefix/\nprovider: default\nregistry: r\n")
    cli = Cli("", tmp_path)
    cli("apps", "list")
    assert recorder.asked == [("/prefix/v1/apps?per_page=100", None)]
    cli("use", "context", "default")
    assert yaml.safe_load(config.read_text()) == {
        "cli-version": "0.6.63",
        "container-enginetype": "podman",
        "current-context": "default",
    }
    (contexts / "work.yaml").write_text("api-url: [")
    assert "work.yaml: while parsing" in cli.fails(1, "inspect", "context", "work")


def test_the_environment_beats_the_context_and_a_flag_the_environment(tmp_path: Path, recorder: Recorder) -> None:
    cli = Cli("", tmp_path)
    cli("create", "context", "here", "--api-url", recorder.url)
    cli("apps", "list", FN_CONTEXT="here", FN_TOKEN="s3cret")
    cli("--context", "here", "apps", "list", FN_CONTEXT="nowhere")
    cli("apps", "list", FN_API_URL=recorder.url.removeprefix("http://"), FN_CONTEXT="")
    cli("--api-url", recorder.url, "apps", "list", FN_API_URL="http://127.0.0.1:1")
    assert [token for _, token in recorder.asked] == ["Bearer s3cret", None, None, None]


@pytest.mark.parametrize("command", ["apps list", "invoke a /p", "test --remote a /p"])
def test_what_is_no_url_is_said_in_one_line(tmp_path: Path, command: str) -> None:
    (tmp_path / "func.yaml").write_text("name: f\n")
    (tmp_path / "test.yaml").write_text("tests: [{name: one, expect: {status: 200}}]\n")
    said = Cli("http://host:port", tmp_path).fails(1, *command.split(), cwd=tmp_path)
    assert said.startswith("hearth: http://host:port: Invalid port")


def test_functions_see_the_token_only_where_that_is_asked_for(tmp_path: Path, recorder: Recorder) -> None:
    cli = Cli(recorder.url, tmp_path, FN_TOKEN="s3cret")
    cli("invoke", "a", "/f")
    cli("invoke", "a", "/f", "--auth")
    assert recorder.asked == [("/r/a/f", None), ("/r/a/f", "Bearer s3cret")]


def test_help_starts_without_what_a_node_needs(tmp_path: Path) -> None:
    code = (
        "import sys; sys.argv = ['hearth', '--help']\n"
        "import atexit, hearth.cli\n"
        f"atexit.register(lambda: print('HEAVY', [name for name in {HEAVY.split()!r} if name in sys.modules]))\n"
        "hearth.cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={"HOME": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "HEAVY []"


def test_nothing_is_coloured_in_a_pipe(tmp_path: Path) -> None:
    assert "\x1b" not in Cli("", tmp_path)("contexts", "list")


def test_completion_knows_the_commands(tmp_path: Path) -> None:
    cli = Cli("", tmp_path)
    words: dict[str, Any] = {"_HEARTH_COMPLETE": "complete_bash", "COMP_WORDS": "hearth routes cre", "COMP_CWORD": "2"}
    assert cli.run(**words).stdout.split() == ["create"]
