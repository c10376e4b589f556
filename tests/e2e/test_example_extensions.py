"""The worked examples of extensions, installed as packages and added by their names."""

from __future__ import annotations

import concurrent.futures
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.support.node import HEARTH, RunningNode, build_multi, running_node

EXAMPLES = Path(__file__).parents[2] / "examples" / "extensions"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both packages."""
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", folder, EXAMPLES / "bearer", EXAMPLES / "billing"], check=True)
    return folder


@pytest.fixture(scope="module")
def guarded(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    """A node with both."""
    data = tmp_path_factory.mktemp("guarded")
    tokens = data / "tokens"
    tokens.write_text("# who may\n\napi admin-of-file\ncall caller-of-file\n")
    variables = {
        "PYTHONPATH": str(installed),
        "FN_EXTENSIONS": "hearth/bearer,hearth/billing",
        "BEARER_API_TOKENS": "admin-1,admin-2",
        "BEARER_TOKENS_FILE": str(tokens),
        "BILLING_DB": str(data / "billing.db"),
    }
    with running_node("process", data, build_multi(data, data / "source"), **variables) as node:
        yield node
    assert "admin" not in (data / "server.log").read_text()


@pytest.fixture
def admin(guarded: RunningNode) -> Iterator[httpx.Client]:
    """Somebody who may use the API."""
    with httpx.Client(base_url=guarded.url, headers={"authorization": "Bearer admin-1"}, timeout=60) as client:
        yield client


def _bearer(token: str) -> dict[str, str]:
    return {"authorization": token}


@pytest.mark.parametrize("path", ["/v1/apps", "/v1/none", "/v1/apps/e2e/usage"])
@pytest.mark.parametrize("token", ["", "Bearer", "Bearer caller-of-file", "Basic admin-1", "Bearer admin-3"])
def test_the_api_wants_a_token_of_its_own(guarded: RunningNode, path: str, token: str) -> None:
    answer = guarded.http.get(path, headers=_bearer(token))
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")


@pytest.mark.parametrize("token", ["Bearer admin-1", "bearer admin-2", "Bearer admin-of-file"])
def test_who_has_one_may(guarded: RunningNode, token: str) -> None:
    assert guarded.http.get("/v1/apps", headers=_bearer(token)).status_code == 200
    assert guarded.http.get("/version").status_code == 200


def test_a_call_wants_another_token_and_the_function_never_sees_it(guarded: RunningNode, admin: httpx.Client) -> None:
    route = {"route": {"image": guarded.image, "format": "http"}}
    assert admin.put("/v1/apps/e2e/routes/guarded", json=route).status_code == 200
    orders = {"headers": {"Saw": "it"}, "echo": "ran"}
    for token in ("", "Bearer admin-1"):
        assert guarded.http.post("/r/e2e/guarded", json=orders, headers=_bearer(token)).status_code == 401
    answer = guarded.http.post("/r/e2e/guarded", json=orders, headers=_bearer("Bearer caller-of-file"))
    assert (answer.status_code, answer.text) == (200, "ran")
    assert "caller-of-file" not in (guarded.data / "server.log").read_text()


def test_usage_is_counted_by_app(guarded: RunningNode, admin: httpx.Client) -> None:
    route = {"route": {"image": guarded.image, "format": "http", "memory": 512}}
    admin.put("/v1/apps/billed/routes/f", json=route)
    caller = _bearer("Bearer caller-of-file")

    def call(number: int) -> int:
        orders = {"sleep_ms": 100} if number % 4 else {"exit": 1}
        return guarded.http.post("/r/billed/f", json=orders, headers=caller).status_code

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(call, range(40)))
    assert (statuses.count(200), statuses.count(502)) == (30, 10)
    days = admin.get("/v1/apps/billed/usage").json()["usage"]
    assert sum(day["calls"] for day in days) == 40
    assert sum(day["gb_seconds"] for day in days) >= 30 * 0.1 * 0.5
    with sqlite3.connect(guarded.data / "billing.db") as database:  # on disk, while the node runs
        assert database.execute("SELECT sum(calls) FROM usage WHERE app = 'billed'").fetchone() == (40,)
    assert admin.get("/v1/apps/none/usage").status_code == 404


def test_without_tokens_nobody_starts(installed: Path, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": str(installed),
        "FN_DATA_DIR": str(tmp_path),
        "FN_PORT": "0",
        "FN_EXTENSIONS": "hearth/bearer",
    }
    done = subprocess.run([HEARTH, "start"], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "Failed to add extension hearth/bearer: no tokens: set BEARER_API_TOKENS" in done.stderr
