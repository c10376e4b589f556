"""Settings that are wrong, or name what is not there: one clear sentence, and never a secret."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import typing
from pathlib import Path

import pytest
from tests.support.node import HEARTH

from hearth import settings
from hearth.models.errors import StartUpError
from hearth.nodes import open_node
from hearth.nodes.ports import holder_of

SECRET = "s3cret-w0rd"
#: A port on which nobody listens.
NOBODY = "127.0.0.1:1"

#: Variable, value, what the sentence says (behind the variable's name, which each has).
WRONG = [
    ("FN_PORT", "no", "'no': Input should be a valid integer"),
    ("FN_PORT", "", "'': Input should be a valid integer"),
    ("FN_PORT", "80.5", "'80.5': Input should be a valid integer"),
    ("FN_PORT", "99999", "'99999': Input should be less than or equal to 65535"),
    ("FN_DB_WAIT_S", "soon", "'soon': Input should be a valid number"),
    ("FN_DB_WAIT_S", "-1", "greater than or equal to 0"),
    ("FN_MQ_VISIBILITY_S", "0", "greater than 0"),
    ("FN_MAX_REQUEST_SIZE", "1k", "'1k': Input should be a valid integer"),
    ("FN_MAX_TOTAL_MEMORY_BYTES", "2GB", "'2GB': Input should be a valid integer"),
    ("FN_LOG_FORMAT", "xml", "Input should be 'text' or 'json'"),
    ("FN_HEADER_TIMEOUT_S", "inf", "finite"),
    ("FN_GRACE_S", "nan", "finite"),
    ("FN_DRAIN_DELAY_S", "-1", "greater than or equal to 0"),
    ("FN_DRIVER", "magic", "Input should be 'auto', 'docker' or 'process'"),
    ("FN_MAX_PIDS", "-1", "greater than or equal to 0"),
    ("FN_MAX_OPEN_FILES", "many", "'many': Input should be a valid integer"),
    ("FN_MAX_TOTAL_MEMORY", "2GB", "'2GB': Input should be a valid integer"),
    ("FN_MAX_TOTAL_MEMORY", "1", "Not enough memory or CPU"),
    ("FN_MAX_TOTAL_CPU", "1", "Not enough memory or CPU"),
    ("FN_API_CORS", "localhost", "bad origin: origins must include http:// or https://"),
    ("FN_EXTENSIONS", "nobody", "Extension nobody not registered; is its package installed"),
    ("FN_DB_URL", "", "Full nodes must configure"),
    ("FN_DB_URL", "plain", "bad DB URL: it has no scheme; use e.g. sqlite3:///"),
    ("FN_DB_URL", f"nosql://u:{SECRET}@h/x", "db type not supported nosql; "),
    ("FN_DB_URL", "sqlite3:///dev/null/fn.db", "cannot open the database: .*; see that this user can write"),
    ("FN_DB_URL", "sqlite3:///etc/passwd", "cannot open the database: file is not a database; see that"),
    ("FN_DB_URL", f"postgres://u:{SECRET}@{NOBODY}/db", "refused|failed.*; start the database"),
    ("FN_DB_URL", f"mysql://u:{SECRET}@tcp({NOBODY})/db", "refused|failed"),
    ("FN_DB_URL", f"mysql://u:{SECRET}@tcp(h:99999)/db", "bad DB URL: its port is out of range"),
    ("FN_MQ_URL", "", "Full nodes must configure"),
    ("FN_MQ_URL", "plain", "bad MQ URL: FN_MQ_URL begins with bolt://"),
    ("FN_MQ_URL", f"amqp://u:{SECRET}@h", "mq type not supported amqp; "),
    ("FN_MQ_URL", f"redis://u:{SECRET}@{NOBODY}/", "does not answer.*; start it first"),
    ("FN_MQ_URL", f"redis://u:{SECRET}@h:x/", "bad MQ URL: use FN_MQ_URL=redis://"),
    ("FN_MQ_URL", "bolt:///dev/null/fn.mq", "cannot open the queue: .*; see that this user can write to the file"),
    (
        "FN_MQ_URL",
        "bolt:///etc/passwd",
        "no queue of Hearth's .*; let Fn empty it, then point FN_MQ_URL to another f",
    ),
    ("FN_LOGSTORE_URL", "plain", "bad log store URL: it has no scheme"),
    ("FN_LOGSTORE_URL", f"ftp://u:{SECRET}@h", "db type not supported ftp; "),
    ("FN_LOGSTORE_URL", f"s3://a:{SECRET}@{NOBODY}/r/b", "unexpected error creating bucket b: .*; start the log store"),
    ("FN_LOGSTORE_URL", f"s3://a:{SECRET}@h", "must provide bucket name and region in path of s3 api url"),
    ("FN_LOGSTORE_URL", f"s3://a:{SECRET}@h//b", "must provide non-empty region"),
    ("FN_LOGSTORE_URL", f"s3://a:{SECRET}@h/r/", "must provide non-empty bucket name"),
    ("FN_LOGSTORE_URL", f"postgres://u:{SECRET}@{NOBODY}/db", "refused|failed"),
    (
        "FN_NODE_TYPE",
        "lb",
        "FN_NODE_TYPE=lb: runners of Hearth take /invoke and /t themselves; use FN_N",
    ),
    ("FN_NODE_TYPE", "pure-runner", "FN_NODE_TYPE=pure-runner: runners of Hearth take"),
    ("FN_RUNNER_API_URL", "", "No agent started for a runner node, add FN_RUNNER_API_URL to configuration"),
    ("FN_RUNNER_API_URL", "http://", "no host specified for client"),
    ("DOCKER_HOST", "nonsense", "String should match pattern"),
    ("DOCKER_HOST", "http://h", "String should match pattern"),
    ("DOCKER_HOST", "unix:///none.sock", "couldn't connect to docker daemon at unix:///none.sock: .*; start Docker"),
    ("DOCKER_HOST", f"tcp://{NOBODY}", "couldn't connect to docker daemon .*; start Docker"),
    ("DOCKER_API_VERSION", "new", "'new': String should match pattern"),
    ("DOCKER_CERT_PATH", "/none", "/none: ca.pem, cert.pem and key.pem are needed there"),
    ("DOCKER_AUTH", f"{{{SECRET}", "must be a Docker configuration in JSON"),
]


@pytest.mark.parametrize(("variable", "value", "says"), WRONG, ids=[f"{row[0]}={row[1]}"[:50] for row in WRONG])
async def test_a_setting_that_is_of_no_use_is_named_with_what_to_do(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    variable: str,
    value: str,
    says: str,
) -> None:
    given = {"FN_DATA_DIR": str(tmp_path), "FN_DRIVER": "docker" if variable.startswith("DOCKER") else "process"}
    if variable == "DOCKER_CERT_PATH":
        given |= {"DOCKER_TLS_VERIFY": "1", "DOCKER_HOST": f"tcp://{NOBODY}"}
    if variable == "FN_RUNNER_API_URL":
        given["FN_NODE_TYPE"] = "runner"
    for name, text in {**given, "FN_PORT": "0", "FN_DB_WAIT_S": "0", variable: value}.items():
        monkeypatch.setenv(name, text)
    with pytest.raises(StartUpError) as refused:
        async with open_node(settings.load(), 8080):
            pass
    sentence = str(refused.value)
    assert variable in sentence
    assert re.search(says, sentence)
    assert "\n" not in sentence
    assert SECRET not in sentence + "".join(capfd.readouterr())


def test_a_fleet_of_fn_is_told_what_to_use_instead(tmp_path: Path) -> None:
    """The variables of a node of type lb: each without effect is named once, and the end says what to start."""
    given = {
        "FN_NODE_TYPE": "lb",
        "FN_RUNNER_ADDRESSES": "runner-1:9190,runner-2:9190",
        "FN_PLACER": "ch",
        "FN_GRPC_PORT": "9190",
        "FN_DATA_DIR": str(tmp_path),
    }
    started = subprocess.run([HEARTH, "start"], env={**os.environ, **given}, capture_output=True, text=True, timeout=60)
    assert started.returncode == 1
    told = [line for line in started.stderr.splitlines() if "variable of Fn has no effect" in line]
    named = [line.partition("variable=")[2].split()[0] for line in told]
    assert named == ["FN_GRPC_PORT", "FN_PLACER", "FN_RUNNER_ADDRESSES"]
    assert all("level=warning" in line for line in told)
    assert "put an HTTP balancer before nodes of type runner" in told[2]
    assert "unknown variable" not in started.stderr
    assert "FN_NODE_TYPE=lb: runners of Hearth take /invoke and /t themselves" in started.stderr
    assert "use FN_NODE_TYPE=runner with FN_RUNNER_API_URL" in started.stderr


async def test_who_holds_a_port_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        assert re.fullmatch(r"process \d+ \(.+\)", holder_of(port))
    assert holder_of(port) == "another process"


@pytest.mark.parametrize(("name", "value"), [("port", 9000), ("log_level", "debug"), ("db_url", "memory://")])
def test_what_code_gives_beats_the_environment(monkeypatch: pytest.MonkeyPatch, name: str, value: object) -> None:
    for variable in ("FN_PORT", "FN_LOG_LEVEL", "FN_DB_URL"):
        monkeypatch.setenv(variable, "1")
    assert getattr(settings.load(**{name: value}), name) == value


NUMBERS = sorted(
    str(field.validation_alias)
    for field in settings.Settings.model_fields.values()
    if {int, float} & {field.annotation, *typing.get_args(field.annotation)}
)


#: Left empty, these switch something off.
OPTIONAL = {
    *("FN_KEEP_CALLS", "FN_KEEP_CALLS_COUNT", "FN_KEEP_LOGS", "FN_KEEP_BUNDLES", "FN_KEEP_AUDIT"),
    "FN_KEEP_DEAD_LETTERS",
}


#: So does -1 here.
UNLESS_NEGATIVE = {"FN_FREEZE_IDLE_MSECS", "FN_MAX_LOCKED_MEMORY", "FN_MAX_MESSAGE_QUEUE", "FN_MAX_PENDING_SIGNALS"}


@pytest.mark.parametrize("variable", NUMBERS)
@pytest.mark.parametrize("value", ["", "no", "1e", "-1", "-2", "nan"])
def test_every_number_is_one(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    if value == "" and variable in OPTIONAL:
        assert getattr(settings.load(), variable.removeprefix("FN_").lower()) is None
        return
    if value == "-1" and variable in UNLESS_NEGATIVE:
        assert getattr(settings.load(), variable.removeprefix("FN_").lower()) == -1
        return
    with pytest.raises(StartUpError, match=rf"^{variable}='{value}': Input should be "):
        settings.load()
