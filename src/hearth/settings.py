"""What an operator can set: one frozen object; defaults < environment < code. The only reader of the environment."""

from __future__ import annotations

import base64
import contextlib
import difflib
import os
import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import unquote

import msgspec
import pydantic
from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from hearth.models.errors import StartUpError

#: Types of node; whatever else is asked for is a full node.
FULL: Final = "full"
API: Final = "api"
RUNNER: Final = "runner"
_GRACE_S: Final = 150.0
#: Read by clients, not by servers.
_OF_CLIENTS: Final = frozenset({"FN_API_URL", "FN_CONTEXT", "FN_REGISTRY", "FN_TOKEN"})


def _collector(url: str) -> str:
    if url and not re.match("https?://.", url):
        raise ValueError("Input should begin with http:// or https://")
    return url


#: Where spans go; empty: nowhere.
_Collector = Annotated[str, pydantic.AfterValidator(_collector)]


class Settings(BaseSettings):
    """The settings of one node (operations specification 1). Sizes are in the unit that the name says."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", populate_by_name=True, allow_inf_nan=False)

    node_type: str = Field(default="full", validation_alias="FN_NODE_TYPE", description="api, runner; else full")
    port: int = Field(default=8080, ge=0, le=65535, validation_alias="FN_PORT", description="0: any free port")
    bind: str = Field(default="0.0.0.0", validation_alias="FN_BIND", description="the address that is listened on")
    data_dir: Path = Field(default=Path("data"), validation_alias="FN_DATA_DIR", description="where all data lives")
    db_url: str | None = Field(
        default=None, repr=False, validation_alias="FN_DB_URL", description="sqlite3://, postgres:// or mysql://"
    )
    db_wait_s: float = Field(
        default=30.0, ge=0, validation_alias="FN_DB_WAIT_S", description="seconds a start waits for the database"
    )
    logstore_url: str = Field(
        default="",
        repr=False,
        validation_alias="FN_LOGSTORE_URL",
        description="s3:// or a database; empty: the datastore",
    )
    mq_url: str | None = Field(
        default=None,
        repr=False,
        validation_alias="FN_MQ_URL",
        description="bolt:///absolute/fn.mq, redis://host:port/ or memory://",
    )
    visibility_s: float = Field(
        default=60.0,
        gt=0,
        validation_alias="FN_MQ_VISIBILITY_S",
        description="seconds after which an async call whose node died is looked after",
    )
    max_request_size: int | None = Field(
        default=None,
        gt=0,
        validation_alias="FN_MAX_REQUEST_SIZE",
        description="bytes that the body of a request may have",
    )
    header_timeout_s: float = Field(
        default=30.0,
        gt=0,
        validation_alias="FN_HEADER_TIMEOUT_S",
        description="seconds that a client has for the head of a request",
    )
    api_cors: str = Field(
        default="", validation_alias="FN_API_CORS", description="origins of web pages that may read answers; * for all"
    )
    extensions: str = Field(
        default="", validation_alias="FN_EXTENSIONS", description="names of installed extensions, in their order"
    )
    driver: Literal["auto", "docker", "process"] = Field(
        default="auto", validation_alias="FN_DRIVER", description="auto: Docker if it answers, else processes"
    )
    log_level: str = Field(default="info", validation_alias="FN_LOG_LEVEL", description="debug ... panic")
    log_dest: str = Field(
        default="stderr",
        repr=False,
        validation_alias="FN_LOG_DEST",
        description="stderr, file:///path, udp:// or tcp://host:port",
    )
    log_prefix: str = Field(default="", validation_alias="FN_LOG_PREFIX", description="tag of lines sent to syslog")
    zipkin_url: _Collector = Field(
        default="",
        repr=False,
        validation_alias="FN_ZIPKIN_URL",
        description="http://host:9411/api/v1/spans or .../api/v2/spans",
    )
    otlp_url: _Collector = Field(
        default="",
        repr=False,
        validation_alias="FN_OTLP_URL",
        description="an OTLP/HTTP collector: http://host:4318",
    )
    otel_endpoint: _Collector = Field(
        default="",
        repr=False,
        validation_alias="OTEL_EXPORTER_OTLP_ENDPOINT",
        description="the same; FN_OTLP_URL wins",
    )
    docker_host: str = Field(
        default="unix:///var/run/docker.sock", pattern=r"^(unix|tcp)://.", validation_alias="DOCKER_HOST"
    )
    docker_api_version: str = Field(
        default="",
        pattern=r"^([0-9]+\.[0-9]+)?$",
        validation_alias="DOCKER_API_VERSION",
        description="empty: negotiated",
    )
    docker_tls_verify: str = Field(default="", validation_alias="DOCKER_TLS_VERIFY", description="1: TLS to tcp hosts")
    docker_cert_path: Path = Field(
        default=Path("~/.docker"), validation_alias="DOCKER_CERT_PATH", description="ca.pem, cert.pem and key.pem"
    )
    docker_config: Path = Field(
        default=Path("~/.docker"), validation_alias="DOCKER_CONFIG", description="the folder of docker's config.json"
    )
    docker_auth: SecretStr = Field(
        default=SecretStr(""), validation_alias="DOCKER_AUTH", description="credentials, as a docker config in JSON"
    )
    docker_networks: str = Field(
        default="", validation_alias="FN_DOCKER_NETWORKS", description="names that containers are spread over"
    )
    readonly_rootfs: bool = Field(
        default=False,
        validation_alias="FN_READONLY_ROOTFS",
        description="functions in Docker write to /tmp only",
    )
    unprivileged_containers: bool = Field(
        default=False,
        validation_alias="FN_UNPRIVILEGED_CONTAINERS",
        description="functions in Docker are user 1000, whatever their image says",
    )
    max_pids: int = Field(
        default=50, ge=0, validation_alias="FN_MAX_PIDS", description="threads and processes of one container"
    )
    max_open_files: int = Field(
        default=1024, ge=0, validation_alias="FN_MAX_OPEN_FILES", description="open files of one process"
    )
    max_total_memory: int | None = Field(
        default=None, gt=0, validation_alias="FN_MAX_TOTAL_MEMORY", description="bytes that containers share"
    )
    max_total_cpu: int | None = Field(
        default=None, gt=0, validation_alias="FN_MAX_TOTAL_CPU", description="milli-CPUs that containers share"
    )
    grace_s: float = Field(
        default=_GRACE_S, ge=0, validation_alias="FN_GRACE_S", description="seconds running calls get at shutdown"
    )

    drain_delay_s: float = Field(
        default=0.0,
        ge=0,
        validation_alias="FN_DRAIN_DELAY_S",
        description="seconds for which a node that is to stop says so, and still serves",
    )
    runner_api_url: str = Field(
        default="",
        repr=False,
        validation_alias="FN_RUNNER_API_URL",
        description="the API node of a runner: [http://]host[:port]",
    )
    runner_connect_s: float = Field(
        default=5.0,
        gt=0,
        validation_alias="FN_RUNNER_CONNECT_S",
        description="seconds that a runner's connection to its API node may take",
    )
    runner_spool_bytes: int = Field(
        default=256 << 20,
        gt=0,
        validation_alias="FN_RUNNER_SPOOL_BYTES",
        description="bytes of ended calls that a runner keeps while its API node is away",
    )
    runner_stale_s: float = Field(
        default=3600.0,
        ge=0,
        validation_alias="FN_RUNNER_STALE_S",
        description="seconds for which a runner serves routes that it knows while its API node is away",
    )
    runner_quiet_s: float = Field(
        default=3.0,
        ge=0,
        validation_alias="FN_RUNNER_QUIET_S",
        description="seconds after a start in which runners tell what ended, and no async call ends as interrupted",
    )
    runner_token: SecretStr = Field(
        default=SecretStr(""), validation_alias="FN_RUNNER_TOKEN", description="the secret that nodes share"
    )

    @property
    def data(self) -> Path:
        """The data folder, absolute."""
        return self.data_dir.absolute()

    @property
    def docker_tls(self) -> bool:
        """Whether a ``tcp`` Engine is spoken to over TLS."""
        return self.docker_tls_verify.lower() not in ("", "0", "false") and self.docker_host.startswith("tcp://")

    @property
    def docker_config_files(self) -> tuple[Path, ...]:
        """Where docker keeps its configuration: the file of today, then that of old."""
        return self.docker_config.expanduser() / "config.json", Path.home() / ".dockercfg"

    @property
    def bundles(self) -> Path:
        """The folder of bundles."""
        return self.data / "bundles"

    @property
    def database(self) -> str:
        """The URL of the datastore."""
        return self.db_url if self.db_url is not None else f"sqlite3://{self.data / 'fn.db'}"

    @property
    def queue(self) -> str:
        """The URL of the queue of async calls."""
        return self.mq_url if self.mq_url is not None else f"bolt://{self.data / 'fn.mq'}"


def load(**given: Any) -> Settings:
    """The settings of this process; what is given in code beats the environment.

    Raises:
        StartUpError: A value is of no use; the text names its variable.
    """
    try:
        return Settings(**given)
    except pydantic.ValidationError as exc:
        first = exc.errors()[0]
        name = first["loc"][0] if first["loc"] else "settings"
        is_secret = any(
            field.validation_alias == name and field.annotation is SecretStr for field in Settings.model_fields.values()
        )
        shown = "'***'" if is_secret else repr(re.sub(".*@", "***@", str(first.get("input"))))
        raise StartUpError(f"{name}={shown}: {first['msg'].removeprefix('Value error, ')}") from exc


def secrets(settings: Settings) -> set[str]:
    """What no log may show: secret values, and the passwords within URLs."""
    found: set[str] = set()
    for name in Settings.model_fields:
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            found |= _credentials(value.get_secret_value())
        elif isinstance(value, str) and "@" in value:
            password = value.rpartition("@")[0].partition("://")[2].partition(":")[2]
            found |= {password, unquote(password)}
    return found - {""}


def _credentials(text: str) -> set[str]:
    """A secret, and those within it, where it is a docker config."""
    found = {text}
    try:
        registries = msgspec.json.decode(text, type=_DockerConfig).auths.values()
    except msgspec.DecodeError:
        return found
    for entry in registries:
        found |= {value for value in entry.values() if isinstance(value, str)} - {entry.get("username")}
        with contextlib.suppress(ValueError):
            found.add(base64.b64decode(str(entry.get("auth", ""))).decode().partition(":")[2])
    return found


class _DockerConfig(msgspec.Struct):
    auths: dict[str, dict[str, Any]] = {}


def environment(**changed: str) -> dict[str, str]:
    """The variables of this process, some of them changed: for a process of its own making."""
    return {**os.environ, **changed}


def unknown_variables() -> dict[str, str]:
    """Variables that look like settings and are none, each with the one that was perhaps meant."""
    known = {str(field.validation_alias) for field in Settings.model_fields.values()}
    strangers = sorted(name for name in os.environ if name.startswith("FN_") and name not in known | _OF_CLIENTS)
    return {name: next(iter(difflib.get_close_matches(name, known, 1, 0.7)), "") for name in strangers}
