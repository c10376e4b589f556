"""Where credentials come from, and whom they are for."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from hearth.images.registry import credential_helpers
from hearth.images.registry.credentials import Credentials
from hearth.models.errors import StartUpError


def entry(name: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{name}:secret-of-{name}".encode()).decode()}


def helper(folder: Path, name: str, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = folder / f"docker-credential-{name}"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


@pytest.mark.parametrize(
    ("stored", "wanted"),
    [
        ("registry.com", "try.com"),
        ("try.com", "registry.com"),
        ("registry.com", "a.registry.com"),
        ("a.registry.com", "registry.com"),
        ("registry.com", "registry.com:443"),
        ("registry.com:5000", "registry.com"),
        ("registry.com", "registry.com.evil.example"),
        ("https://registry.com@evil.example", "registry.com"),
        ("https://registry.com/team", "registry.com"),
        ("docker.io", "registry-docker.io"),
    ],
)
async def test_registries_that_look_alike_share_nothing(stored: str, wanted: str) -> None:
    assert await Credentials(json.dumps({"auths": {stored: entry("me")}})).find(wanted) is None


@pytest.mark.parametrize("stored", ["https://index.docker.io/v1/", "docker.io", "hub.docker.com", "index.docker.io"])
async def test_the_public_registry_has_several_names(stored: str) -> None:
    found = await Credentials(json.dumps({"auths": {stored: entry("me")}})).find("docker.io")
    assert found is not None
    assert found.as_engine_takes_it() == {"username": "me", "password": "secret-of-me"}
    assert "secret" not in repr(found)


async def test_the_setting_wins_over_the_files_and_the_first_file_over_the_next(tmp_path: Path) -> None:
    new, old = tmp_path / "config.json", tmp_path / ".dockercfg"
    old.write_text(json.dumps({"https://r.example/v1/": {**entry("old"), "email": "e"}}))
    from_old = await Credentials(files=(new, old)).find("r.example")
    new.write_text(json.dumps({"auths": {"r.example": entry("new")}}))
    from_new = await Credentials(files=(new, old)).find("r.example")
    given = await Credentials(json.dumps({"auths": {"r.example": entry("given")}}), (new, old)).find("r.example")
    assert [auth and auth.username for auth in (from_old, from_new, given)] == ["old", "new", "given"]


async def test_nothing_to_find_is_said_and_is_fine(tmp_path: Path) -> None:
    credentials = Credentials(files=(tmp_path / "config.json",))
    with capture_logs() as logs:
        await credentials.announce()
    assert [entry["event"] for entry in logs] == ["no docker auths from config files found (this is fine)"]
    assert await credentials.find("r.example") is None


async def test_a_broken_file_is_said_without_what_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"auths": secret')
    with capture_logs() as logs:
        assert await Credentials(files=(tmp_path / "config.json",)).find("r.example") is None
    assert [entry["log_level"] for entry in logs] == ["warning"]
    assert "secret" not in str(logs)


@pytest.mark.parametrize("text", ["secret", "[]", '{"auths": secret'])
def test_a_broken_setting_stops_the_start_without_showing_it(text: str) -> None:
    with pytest.raises(StartUpError, match="DOCKER_AUTH") as failed:
        Credentials(text)
    assert "secret" not in str(failed.value)
    assert failed.value.__cause__ is None


async def test_a_token_is_passed_as_a_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper(tmp_path, "t", """echo '{"Username":"<token>","Secret":"tok"}'""", monkeypatch)
    found = await Credentials('{"credsStore": "t"}').find("r.example")
    assert found is not None
    assert found.as_engine_takes_it() == {"identitytoken": "tok"}


@pytest.mark.parametrize(
    "script", ["exit 1", "echo secret", "echo '[]'", """echo '{"Username":1}'""", "echo secret >&2; exit 3"]
)
async def test_a_helper_that_does_not_help_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    helper(tmp_path, "bad", script, monkeypatch)
    with capture_logs() as logs:
        assert await Credentials('{"credHelpers": {"r.example": "bad"}}').find("r.example") is None
    assert "secret" not in str(logs)


@pytest.mark.parametrize("name", ["missing", "../../bin/sh", "a b"])
async def test_a_helper_that_is_no_program_is_none(name: str) -> None:
    assert await Credentials(json.dumps({"credsStore": name})).find("r.example") is None


async def test_a_helper_that_waits_for_ever_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credential_helpers, "LIMIT_S", 0.2)
    helper(tmp_path, "slow", "exec sleep 3600", monkeypatch)
    assert await Credentials('{"credsStore": "slow"}').find("r.example") is None
