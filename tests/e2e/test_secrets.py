"""Secrets of functions on every driver: what a function gets, what nobody else sees, and what happens without a key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.support.node import RunningNode, build_multi, running_node
from tests.support.waiting import until

from hearth.stores.secrets.keyring import FILE

APP = "/v1/apps/e2e"
VALUE = "s3same öffne dich\n'\"$HOME`id`\\n %s ~"
#: Tells the environment, and what is in the folder of secrets.
LOOK = """
def look():
    import stat
    folder = "/run/secrets"
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    seen = {"env": {name: os.environ.get(name) for name in ("SECRET", "OTHER", "PLAIN")}, "files": {}}
    for name in names:
        path = f"{folder}/{name}"
        found = os.stat(path)
        seen["files"][name] = [open(path).read(), stat.S_IMODE(found.st_mode), found.st_uid == os.getuid()]
        try:
            open(path, "w").write("changed")
        except OSError:
            pass
    mounts = [line.split() for line in open("/proc/mounts")]
    seen["kind"] = [mount[2] for mount in mounts if folder.startswith(mount[1].rstrip("/"))][-1]
    return seen
orders["echo"] = json.dumps(look())
"""


def put(node: RunningNode, name: str, value: str = VALUE) -> None:
    node.http.post("/v1/apps", json={"app": {"name": "e2e"}})
    assert node.http.put(f"{APP}/secrets/{name}", json={"value": value}).status_code == 200


def look(node: RunningNode, path: str) -> Any:
    answer = node.call(path, run=LOOK)
    assert answer.status_code == 200, answer.text
    return json.loads(answer.text)


def error(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["message"]


def test_a_secret_is_a_variable_that_wins_over_the_configuration(node: RunningNode, any_format: str) -> None:
    put(node, "SECRET")
    config = {"SECRET": "of the configuration", "PLAIN": "kept"}
    path = node.route(f"secret-{any_format}", any_format, config=config, secrets=["SECRET"])
    seen = look(node, path)
    assert (seen["env"]["SECRET"], seen["env"]["PLAIN"], seen["files"]) == (VALUE, "kept", {})
    plain = node.route(f"plain-{any_format}", any_format, config=config)
    assert look(node, plain)["env"]["SECRET"] == "of the configuration"


def test_a_function_gets_only_the_secrets_that_it_or_its_app_names(node: RunningNode) -> None:
    put(node, "SECRET")
    put(node, "OTHER", "other")
    path = node.route("names", "json", secrets=["SECRET"])
    assert look(node, path)["env"]["OTHER"] is None
    try:
        assert node.http.patch(APP, json={"app": {"secrets": ["OTHER"]}}).status_code == 200
        assert look(node, path)["env"] == {"SECRET": VALUE, "OTHER": "other", "PLAIN": None}
    finally:
        assert node.http.patch(APP, json={"app": {"secrets": []}}).status_code == 200
    assert look(node, path)["env"]["OTHER"] is None


def test_variables_of_the_launching_shells_may_be_secrets(node: RunningNode) -> None:
    names = ("PWD", "SHLVL", "HOME", "IFS", "_A", "TMPDIR")
    for name in names:
        put(node, name, f"mine: {name}")
    path = node.route("shell", "json", secrets=list(names), config={"PLAIN": "a b", "OLDPWD": "kept"})
    told = 'orders["echo"] = json.dumps(dict(os.environ))'
    env = json.loads(node.call(path, run=told).text)
    assert {name: env[name] for name in names} == {name: f"mine: {name}" for name in names}
    assert (env["PLAIN"], env["OLDPWD"]) == ("a b", "kept")
    assert not [name for name in env if name.startswith("HEARTH_")]


def test_a_changed_secret_is_used_by_the_next_call(node: RunningNode, hot: str) -> None:
    put(node, "CHANGING", "one")
    path = node.route(f"changing-{hot}", hot, secrets=["CHANGING"])
    told = 'orders["echo"] = os.environ["CHANGING"] + " " + BORN'
    first = node.call(path, run=told).text
    assert node.call(path, run=told).text == first
    put(node, "CHANGING", "two")
    second = node.call(path, run=told).text
    assert (first.split()[0], second.split()[0]) == ("one", "two")
    assert node.http.delete(f"{APP}/secrets/CHANGING").status_code == 200
    gone = "Secret CHANGING of app e2e does not exist (hearth secrets set e2e CHANGING)"
    assert error(node.call(path, run=told)) == (502, gone)
    put(node, "CHANGING", "one")
    third = node.call(path, run=told).text
    assert third.split()[0] == "one"
    assert third != first, "the container of the deleted secret has ended"


def test_an_async_call_gets_the_value_of_its_start_and_nothing_holds_it(node: RunningNode) -> None:
    value = "only-in-memory-" + "x" * 20
    put(node, "SECRET", value)
    path = node.route("later", "json", type="async", secrets=["SECRET"])
    told = 'sys.stderr.write("length " + str(len(os.environ["SECRET"])) + chr(10))'
    answer = node.call(path, run=told)
    assert node.ended(answer)["status"] == "success"
    assert f"length {len(value)}" in node.log(answer)
    holding = [file for file in node.data.rglob("*") if file.is_file() and value.encode() in file.read_bytes()]
    assert holding == []


def test_an_async_call_whose_secret_was_deleted_is_refused(node: RunningNode) -> None:
    put(node, "GOING")
    path = node.route("going", "json", type="async", secrets=["GOING"])
    assert node.http.delete(f"{APP}/secrets/GOING").status_code == 200
    status, text = error(node.call(path, echo="x"))
    assert (status, text.partition(" (")[0]) == (502, "Secret GOING of app e2e does not exist")


def test_no_log_of_the_platform_shows_a_value(node: RunningNode) -> None:
    value = "never-in-a-log-7f3a"
    put(node, "SECRET", value)
    path = node.route("logged", "json", secrets=["SECRET"])
    assert look(node, path)["env"]["SECRET"] == value
    assert node.call(path, exit=3).status_code == 502
    assert error(node.http.put(f"{APP}/secrets/{value}", json={"value": value}))[0] == 400
    log = (node.data / "server.log").read_text()
    assert "never-in-a-log" not in log.replace("%2D", "-")


def test_secrets_of_another_app_are_refused_and_out_of_reach(node: RunningNode) -> None:
    value = "of-app-e2e-alone"
    put(node, "SECRET", value)
    assert look(node, node.route("holder", "json", secrets=["SECRET"]))["env"]["SECRET"] == value  # stays idle
    route = {"image": node.image, "format": "json", "secrets": ["SECRET"]}
    answer = node.http.put("/v1/apps/hostile/routes/spy", json={"route": route})
    assert error(answer) == (400, "Unknown secret SECRET: store it first (hearth secrets set hostile SECRET)")
    for wanted in ("../e2e/secrets/SECRET", "e2e/SECRET", "SECRET\0"):
        answer = node.http.put("/v1/apps/hostile/routes/spy", json={"route": {**route, "secrets": [wanted]}})
        assert answer.status_code == 400
    answer = node.http.put("/v1/apps/hostile/routes/spy", json={"route": {**route, "secrets": []}})
    assert answer.status_code == 200
    found = node.call("/r/hostile/spy", run=SPY, wanted=value[::-1], urls=[node.url])
    assert json.loads(found.text) == {"seen": [], "answers": []}, found.text


#: Looks for a value (given in reverse) in all processes, likely files and the API.
SPY = """
import glob, urllib.request
wanted = orders["wanted"][::-1].encode()
seen, answers = [], []
own = {str(os.getpid()), "self", "thread-self"}
for pattern in ("/proc/[0-9]*/environ", "/proc/[0-9]*/cmdline", "/proc/[0-9]*/root/run/secrets/*", "/run/secrets/*",
                "/run/*", "/tmp/*", "/dev/shm/*", "/proc/[0-9]*/fd/*"):
    for path in glob.glob(pattern):
        if path.split("/")[2] in own:
            continue
        try:
            if os.path.isfile(path) and wanted in open(path, "rb").read(1 << 20):
                seen.append(path)
        except OSError:
            pass
for base in orders["urls"]:
    for path, body in (("/v1/apps/e2e/secrets", None), ("/v1/apps/e2e/secrets/SECRET", None),
                       ("/v1/runner/secrets", b'{"app_name":"e2e","app_id":"","names":["SECRET"]}')):
        try:
            request = urllib.request.Request(base + path, data=body, headers={"Content-Type": "application/json"})
            answers.append(urllib.request.urlopen(request, timeout=3).read().decode())
        except OSError:
            pass
orders["echo"] = json.dumps({"seen": seen, "answers": answers})
"""


def test_the_runner_api_gives_no_value_without_a_runners_token(node: RunningNode) -> None:
    put(node, "SECRET")
    body = {"app_name": "e2e", "app_id": node.http.get(APP).json()["app"]["id"], "names": ["SECRET"]}
    token = (node.data / "admin-token").read_text().strip()
    for headers in ({}, {"Authorization": f"Bearer {token}"}):
        answer = node.http.post("/v1/runner/secrets", json=body, headers=headers)
        assert answer.status_code in (401, 403)
        assert VALUE not in answer.text


# -- files ------------------------------------------------------------------------------------------------------------


def test_secrets_are_files_in_memory_for_a_function_that_asks(node: RunningNode, any_format: str) -> None:
    put(node, "SECRET")
    put(node, "OTHER", "x" * 65536)
    path = node.route(f"files-{any_format}", any_format, secrets=["SECRET", "OTHER"], secrets_as="files")
    for _ in range(2):
        seen = look(node, path)
        assert seen["env"]["SECRET"] is None
        assert seen["files"] == {"OTHER": ["x" * 65536, 0o400, True], "SECRET": [VALUE, 0o400, True]}
        assert seen["kind"] == "tmpfs"


# -- without the key --------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> tuple[Path, str]:
    """The data folder of a stopped node with a secret, and its image."""
    image = build_multi(tmp_path, tmp_path / "source")
    with running_node("process", tmp_path, image) as node:
        put(node, "SECRET")
        assert look(node, node.route("with", "json", secrets=["SECRET"]))["env"]["SECRET"] == VALUE
        node.route("without", "json")
    return tmp_path, image


def test_a_lost_key_fails_the_calls_that_need_it_and_nothing_else(folder: tuple[Path, str]) -> None:
    data, image = folder
    (data / FILE).rename(data / "moved")
    with running_node("process", data, image) as node:
        status, text = error(node.call("/r/e2e/with", echo="x"))
        assert status == 500
        assert text.startswith("Secret SECRET of app e2e cannot be decrypted: this node does not have its key ")
        assert node.call("/r/e2e/without", echo="fine").text == "fine"
        ready = node.http.get("/readyz")
        assert (ready.status_code, ready.json()["ready"]) == (200, True)
        assert any("stored secrets need the key" in warning for warning in ready.json()["warnings"])
        status, text = error(node.http.put(f"{APP}/secrets/NEW", json={"value": "x"}))
        assert (status, text.startswith("Secrets cannot be stored: ")) == (503, True)
        assert [one["name"] for one in node.http.get(f"{APP}/secrets").json()["secrets"]] == ["SECRET"]
        (data / "moved").rename(data / FILE)  # restored from a backup: no restart is needed
        assert look(node, "/r/e2e/with")["env"]["SECRET"] == VALUE


def test_the_key_can_come_from_outside_of_the_data_folder(folder: tuple[Path, str], tmp_path: Path) -> None:
    data, image = folder
    key = (data / FILE).read_text().strip()
    (data / FILE).unlink()
    with running_node("process", data, image, FN_SECRET_KEY=key) as node:
        assert look(node, "/r/e2e/with")["env"]["SECRET"] == VALUE
    (data / "mounted").write_text(f"{key}\n")
    with running_node("process", data, image, FN_SECRET_KEY_FILE=str(data / "mounted")) as node:
        assert look(node, "/r/e2e/with")["env"]["SECRET"] == VALUE
        put(node, "SECRET", "changed")
        assert until(lambda: look(node, "/r/e2e/with")["env"]["SECRET"] == "changed")
    assert not (data / FILE).exists()
