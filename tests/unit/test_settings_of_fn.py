"""Every variable of Fn's server of today works, means the same as one of Hearth, or is told to have no effect."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hearth import settings
from hearth.models.errors import StartUpError
from hearth.models.settings_of_fn import SAME, WITHOUT_EFFECT

#: The variables that Fn's server documents, without those of clients.
OF_FN = """
FN_NODE_TYPE FN_PORT FN_GRPC_PORT FN_DB_URL FN_RUNNER_API_URL FN_RUNNER_ADDRESSES FN_PLACER FN_PUBLIC_LB_URL
FN_LOG_FORMAT FN_LOG_LEVEL FN_LOG_DEST FN_LOG_PREFIX FN_API_CORS_ORIGINS FN_API_CORS_HEADERS FN_ZIPKIN_URL FN_JAEGER_URL
FN_RID_HEADER FN_PROCESS_COLLECTOR_LIST FN_MAX_REQUEST_SIZE FN_MAX_REQUEST_HEADER_SIZE FN_REQUEST_BODY_READ_TIMEOUT
FN_REQUEST_HEADER_READ_TIMEOUT FN_RESPONSE_WRITE_TIMEOUT FN_HTTP_IDLE_TIMEOUT FN_DS_DB_PING_MAX_RETRIES
FN_FREEZE_IDLE_MSECS FN_HOT_POLL_MSECS FN_HOT_LAUNCHER_TIMEOUT_MSECS FN_HOT_PULL_TIMEOUT_MSECS
FN_HOT_START_TIMEOUT_MSECS FN_EXECUTION_HEADROOM FN_MAX_RESPONSE_SIZE FN_MAX_HDR_RESPONSE_SIZE FN_MAX_LOG_SIZE_BYTES
FN_MAX_TOTAL_CPU_MCPUS FN_MAX_TOTAL_MEMORY_BYTES FN_MAX_FS_SIZE_MB FN_MAX_PIDS FN_MAX_OPEN_FILES FN_MAX_LOCKED_MEMORY
FN_MAX_PENDING_SIGNALS FN_MAX_MESSAGE_QUEUE FN_MAX_TMPFS_INODES FN_ENABLE_NB_RESOURCE_TRACKER FN_DISABLE_READONLY_ROOTFS
FN_DISABLE_UNPRIVILEGED_CONTAINERS FN_DISABLE_DEBUG_USER_LOGS FN_DOCKER_NETWORKS FN_DOCKER_LOAD_FILE FN_DOCKER_AUTH
FN_CONTAINER_LABEL_TAG FN_IOFS_PATH FN_IOFS_DOCKER_PATH FN_IOFS_OPTS FN_IOFS_TMPFS FN_IMAGE_CLEAN_MAX_SIZE
FN_IMAGE_CLEAN_EXEMPT_TAGS FN_IMAGE_ENABLE_VOLUME FN_EXPERIMENTAL_PREFORK_POOL_SIZE FN_EXPERIMENTAL_PREFORK_IMAGE
FN_EXPERIMENTAL_PREFORK_CMD FN_EXPERIMENTAL_PREFORK_USE_ONCE FN_EXPERIMENTAL_PREFORK_NETWORKS
""".split()


def test_no_variable_of_fn_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in OF_FN:
        monkeypatch.setenv(name, "1")
    assert not settings.unknown_variables().keys() & {*OF_FN}
    working = {str(field.validation_alias) for field in settings.Settings.model_fields.values()}
    assert settings.variables_without_effect().keys() == {*OF_FN} - working - SAME.keys()


def test_what_has_no_effect_is_told_only_if_it_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not settings.variables_without_effect()
    monkeypatch.setenv("FN_PLACER", "ch")
    assert [*settings.variables_without_effect()] == ["FN_PLACER"]
    assert "balancer" in settings.variables_without_effect()["FN_PLACER"]


def test_advice_names_variables_that_exist() -> None:
    known = {str(field.validation_alias) for field in settings.Settings.model_fields.values()}
    told = {word.strip(",;.:") for text in WITHOUT_EFFECT.values() for word in text.split() if word.startswith("FN_")}
    assert told <= known
    assert {*SAME.values()} <= known
    assert not known & (SAME.keys() | WITHOUT_EFFECT.keys())


def test_the_page_of_settings_lists_them_all() -> None:
    page = (Path(__file__).parents[2] / "docs" / "settings.md").read_text().partition("## Variables of Fn's server")[2]
    rows = [line.replace("`", "") for line in page.splitlines() if line.startswith("| `")]
    assert rows == [f"| {name} | {meaning} |" for names in (SAME, WITHOUT_EFFECT) for name, meaning in names.items()]


@pytest.mark.parametrize(
    ("variable", "value", "name", "expected"),
    [
        ("FN_MAX_TOTAL_MEMORY_BYTES", "2097152", "max_total_memory", 2097152),
        ("FN_MAX_TOTAL_MEMORY_BYTES", "0", "max_total_memory", None),
        ("FN_MAX_TOTAL_CPU_MCPUS", "1500", "max_total_cpu", 1500),
        ("FN_MAX_TOTAL_CPU_MCPUS", "0", "max_total_cpu", None),
        ("FN_DS_DB_PING_MAX_RETRIES", "7", "db_wait_s", 7.0),
        ("FN_API_CORS_ORIGINS", "http://a.example", "api_cors", "http://a.example"),
        ("FN_MAX_REQUEST_SIZE", "0", "max_request_size", None),
    ],
)
def test_variables_of_fn_mean_what_they_mean_there(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, name: str, expected: object
) -> None:
    monkeypatch.setenv(variable, value)
    assert getattr(settings.load(), name) == expected


def test_credentials_of_fn_are_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FN_DOCKER_AUTH", "s3cret")
    given = settings.load()
    assert given.docker_auth.get_secret_value() == "s3cret"
    assert "s3cret" in settings.secrets(given)


def test_the_name_of_hearth_wins_over_that_of_fn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FN_MAX_TOTAL_CPU_MCPUS", "1500")
    monkeypatch.setenv("FN_MAX_TOTAL_CPU", "700")
    assert settings.load().max_total_cpu == 700
    assert settings.load(max_total_cpu=9).max_total_cpu == 9


def test_a_file_holds_a_value(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text("postgres://u:p@h/db\n")
    monkeypatch.setenv("FN_DB_URL_FILE", str(file))
    assert settings.load().db_url == "postgres://u:p@h/db"
    assert "FN_DB_URL_FILE" not in settings.unknown_variables()
    assert settings.load(db_url="sqlite3:///x").db_url == "sqlite3:///x"
    monkeypatch.setenv("FN_DB_URL", "mysql://h/db")
    assert settings.load().db_url == "mysql://h/db"


@pytest.mark.parametrize(
    ("content", "says"), [(None, "No such file or directory; name a file"), (b"\xff\xfe", "it is not a text file")]
)
def test_a_file_that_cannot_be_read_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None, says: str
) -> None:
    file = tmp_path / "port"
    if content is not None:
        file.write_bytes(content)
    monkeypatch.setenv("FN_PORT_FILE", str(file))
    with pytest.raises(StartUpError, match=f"FN_PORT_FILE={re.escape(str(file))}: {says}"):
        settings.load()


def test_an_error_names_the_variable_that_was_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "port").write_text("many\n")
    monkeypatch.setenv("FN_PORT_FILE", str(tmp_path / "port"))
    with pytest.raises(StartUpError, match=r"^FN_PORT_FILE='many': Input should be a valid integer"):
        settings.load()
    monkeypatch.delenv("FN_PORT_FILE")
    monkeypatch.setenv("FN_MAX_TOTAL_CPU_MCPUS", "all")
    with pytest.raises(StartUpError, match=r"^FN_MAX_TOTAL_CPU_MCPUS='all': Input should be a valid integer"):
        settings.load()
