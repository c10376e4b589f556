"""What an operator finds in a node's log: all of a call by its id, and no secret."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from pathlib import Path

import pytest
from tests.support.docker_images import python_image
from tests.support.node import HEARTH, MULTI, build_multi, running_node

from hearth.settings import Settings


@pytest.mark.parametrize("driver", ["process", "docker"])
def test_all_of_a_call_is_found_by_its_id(driver: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if driver == "docker":
        request.getfixturevalue("docker")
    image = python_image(MULTI) if driver == "docker" else build_multi(tmp_path, tmp_path / "source")
    with running_node(driver, tmp_path, image, FN_LOG_LEVEL="debug") as node:
        path = node.route("looked-for", "json")
        good = node.call(path, say="hello from the function")
        bad = node.call(path, exit=3)
        assert (good.status_code, bad.status_code) == (200, 502)
        node.record(good)
        assert node.stop() == 0
    lines = (tmp_path / "server.log").read_text().splitlines()
    found = [line for line in lines if good.headers["fn_call_id"] in line]
    assert all("call_id=" + good.headers["fn_call_id"] in line for line in found)
    text = "\n".join(found)
    steps = ["call submitted", "slot obtained", "call started", "call recorded", "call ended", "request answered"]
    places = [text.find(f'msg="{step}"') for step in steps]
    assert -1 not in places, text
    assert places == sorted(places)
    assert "user_log=true" in text
    assert "action=get app=e2e call=" in text
    errors = [line for line in lines if bad.headers["fn_call_id"] in line and "api error" in line]
    assert len(errors) == 1
    assert "level=info" in errors[0]
    assert "action=invoke app=e2e" in errors[0]
    assert "route=/looked-for" in errors[0]


def test_no_secret_of_the_settings_is_ever_shown(tmp_path: Path) -> None:
    """Every text that a setting takes holds a secret; the node is started with each, together and alone."""
    auth = {"auths": {"r.example": {"auth": base64.b64encode(b"me:S3cret-in-auth").decode(), "password": "S3cret-pw"}}}
    values = {
        "FN_DB_URL": "postgres://me:S3cret-db@127.0.0.1:1/x",
        "FN_MQ_URL": "redis://me:S3cret-mq@127.0.0.1:1/",
        "FN_LOGSTORE_URL": "s3://KEY:S3cret-s3/with%2Fslash@127.0.0.1:1/us-east-1/b",
        "FN_ZIPKIN_URL": "http://me:S3cret-zipkin@127.0.0.1:1/api/v2/spans",
        "FN_OTLP_URL": "http://me:S3cret-otlp@127.0.0.1:1",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://me:S3cret-otel@127.0.0.1:1",
        "FN_LOG_DEST": "tcp://me:S3cret-log@127.0.0.1:1",
        "FN_RUNNER_API_URL": "http://me:S3cret-runner@127.0.0.1:1",
        "FN_PUBLIC_LB_URL": "http://me:S3cret-lb@127.0.0.1:1",
        "FN_ADMIN_TOKEN": "S3cret-admin",
        "FN_RUNNER_TOKEN": "S3cret-token",
        "FN_SECRET_KEY": "S3cret-key",
        "DOCKER_AUTH": json.dumps(auth),
        "DOCKER_HOST": "tcp://me:S3cret-docker@127.0.0.1:1",
    }
    secret = {str(f.validation_alias) for name, f in Settings.model_fields.items() if "SecretStr" in str(f.annotation)}
    urls = {str(f.validation_alias) for name, f in Settings.model_fields.items() if "url" in name}
    assert (secret | urls) <= values.keys(), "a new setting that may hold a secret is to be tried here"
    one_by_one = [
        {name: value}
        for name, value in values.items()
        if name in ("FN_DB_URL", "FN_MQ_URL", "DOCKER_HOST", "FN_SECRET_KEY")
    ]
    for chosen in (values, *one_by_one):
        environment = {
            **os.environ,
            "FN_DATA_DIR": str(tmp_path),
            "FN_PORT": "0",
            "FN_DB_WAIT_S": "0",
            "FN_LOG_LEVEL": "debug",
            "FN_DRIVER": "docker",
            **chosen,
        }
        ended = subprocess.run([HEARTH, "start"], env=environment, capture_output=True, text=True, timeout=120)
        assert ended.returncode == 1, ended
        assert ended.stderr
        assert "S3cret" not in ended.stdout + ended.stderr
        assert base64.b64encode(b"me:S3cret-in-auth").decode() not in ended.stdout + ended.stderr
