"""The settings of an operator: one frozen object; defaults < environment < code. The only reader of the environment."""

from __future__ import annotations

import base64
import contextlib
import difflib
import ipaddress
import os
import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import unquote

import msgspec
import pydantic
from pydantic import Field, SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from hearth.models.call_result import DEFAULT_MAX_BYTES, DEFAULT_TTL_S, MAX_TTL_S
from hearth.models.errors import StartUpError
from hearth.models.function_network import FunctionNetwork
from hearth.models.principal import AuthMode
from hearth.models.quotas import Quotas
from hearth.models.registry_login import is_host, registry_of
from hearth.models.settings_of_fn import SAME, WITHOUT_EFFECT, ZERO_IS_NONE

#: Types of node; whatever else is asked for is a full node.
FULL: Final = "full"
API: Final = "api"
RUNNER: Final = "runner"
#: What runs functions.
DriverName = Literal["process", "docker"]

_GRACE_S: Final = 150.0
#: MariaDB and MySQL take no more than 16 MiB in one value, and its statement is larger.
_MAX_RESULT_BYTES: Final = 8 << 20
#: The same holds for logs in a database.
_MAX_LOG_BYTES: Final = 8 << 20
#: Users that may be lent to functions: none of the system's, and none that means "no user" to the kernel.
_FIRST_UID: Final = 1000
_LAST_UID: Final = (1 << 32) - 3
#: At the end of a variable's name: its value is the path of a file with the variable's content.
_FILE: Final = "_FILE"
#: What stands for a secret in the manifests of Kubernetes; everybody knows it.
_PLACEHOLDER: Final = "CHANGE-ME"
#: Read by clients, not by servers.
_OF_CLIENTS: Final = frozenset({"FN_API_URL", "FN_CONTEXT", "FN_REGISTRY", "FN_TOKEN"})


def _collector(url: str) -> str:
    if url and not re.match("https?://.", url):
        raise ValueError("Input should begin with http:// or https://")
    return url


#: Where spans go; empty: nowhere.
_Collector = Annotated[str, pydantic.AfterValidator(_collector)]


def _uid_range(text: str) -> str:
    first, dash, last = text.partition("-")
    if not (first.isdecimal() and dash and last.isdecimal()):
        raise ValueError("Input should be two numbers, first-last")
    if not _FIRST_UID <= int(first) <= int(last) <= _LAST_UID:
        raise ValueError(f"Input should be a range within {_FIRST_UID}-{_LAST_UID}, the smaller number first")
    return text


#: Numbers of users, as ``first-last``.
_UidRange = Annotated[str, pydantic.AfterValidator(_uid_range)]


def _words(text: str) -> list[str]:
    """Return what commas or blanks separate."""
    return text.replace(",", " ").split()


def _networks(text: str) -> str:
    for word in _words(text):
        try:
            ipaddress.IPv4Network(word)
        except ValueError as exc:
            raise ValueError(f"Input should be IPv4 networks, as 10.1.0.0/16, separated by commas: {exc}") from exc
    return text


def _any_networks(text: str) -> str:
    for word in _words(text):
        try:
            ipaddress.ip_network(word)
        except ValueError as exc:
            raise ValueError(f"Input should be networks, as 10.1.0.0/16, separated by commas: {exc}") from exc
    return text


def _registries(text: str) -> str:
    for word in _words(text):
        if not is_host(registry_of(word)):
            raise ValueError(f"Input should be registries, as registry.example.com:5000, separated by commas: {word!r}")
    return text


#: Registries of images, as ``host[:port]``, separated by commas.
_Registries = Annotated[str, pydantic.AfterValidator(_registries)]
#: Networks of IPv4 or IPv6, separated by commas.
_AnyNetworks = Annotated[str, pydantic.AfterValidator(_any_networks)]
#: IPv4 networks, separated by commas.
_Networks = Annotated[str, pydantic.AfterValidator(_networks)]


def _listen_at(text: str) -> str:
    place_of(text)
    return text


#: An address with a port, or the path of a Unix socket as ``unix:/path``; empty: none.
_ListenAt = Annotated[str, pydantic.AfterValidator(_listen_at)]


def _socket_path(text: str) -> str:
    if text and not text.startswith("/"):
        raise ValueError("Input should be an absolute path")
    return text


_SocketPath = Annotated[str, pydantic.AfterValidator(_socket_path)]

_UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _age(given: object) -> float | None:
    if given is None or isinstance(given, int | float):
        return given
    text = str(given).strip()
    if not text:
        return None
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smhd])", text)
    if match is None or not float(match[1]):
        raise ValueError("Input should be a time greater than 0 with its unit: 90s, 30m, 12h or 30d")
    return float(match[1]) * _UNITS_S[match[2]]


#: Seconds for which a build stays at least after it was last needed: a runner may run a route as it was an hour ago.
_MIN_BUNDLE_AGE_S: Final = 2 * 3600


def _bundle_age(age_s: float | None) -> float | None:
    if age_s is not None and age_s < _MIN_BUNDLE_AGE_S:
        raise ValueError("Input should be at least 2h: calls may run a route as it was an hour ago")
    return age_s


def _if_any(given: object) -> object:
    return None if isinstance(given, str) and not given.strip() else given


def _unless_zero(given: object) -> object:
    return None if given in (0, "0") else given


#: Seconds; in the environment with a unit.
_Age = Annotated[float | None, pydantic.BeforeValidator(_age)]


class Settings(BaseSettings):
    """The settings of one node (operations specification 1). Sizes are in the unit that the name says."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", populate_by_name=True, allow_inf_nan=False)

    node_type: str = Field(default="full", validation_alias="FN_NODE_TYPE", description="api, runner; else full")
    port: int = Field(default=8080, ge=0, le=65535, validation_alias="FN_PORT", description="0: any free port")
    bind: str | None = Field(
        default=None,
        validation_alias="FN_BIND",
        description="address to listen on; default: loopback if FN_AUTH is loopback, else all addresses",
    )
    admin_bind: _ListenAt = Field(
        default="",
        validation_alias="FN_ADMIN_BIND",
        description="address:port or unix:/path where the API is served; empty: with function calls, on FN_BIND",
    )
    socket: _SocketPath = Field(
        default="",
        validation_alias="FN_SOCKET",
        description="path of a Unix socket where calls and the API are served, too",
    )
    socket_mode: Literal["0600", "0660"] = Field(
        default="0600",
        validation_alias="FN_SOCKET_MODE",
        description="who may connect to Unix sockets: 0600 (the user of the node), 0660 (its group, too)",
    )
    tls_cert: Path | None = Field(
        default=None,
        validation_alias="FN_TLS_CERT",
        description="certificate of the node in PEM, with those of intermediate authorities: listeners speak TLS",
    )
    tls_key: Path | None = Field(
        default=None, validation_alias="FN_TLS_KEY", description="private key of FN_TLS_CERT, in PEM"
    )
    tls_client_ca: Path | None = Field(
        default=None,
        validation_alias="FN_TLS_CLIENT_CA",
        description="authorities in PEM: clients must show a certificate of one of them",
    )
    tls_client_auth: Literal["all", "admin"] = Field(
        default="all",
        validation_alias="FN_TLS_CLIENT_AUTH",
        description="listeners on which FN_TLS_CLIENT_CA holds: all, or admin (that of FN_ADMIN_BIND)",
    )
    tls_ca: Path | None = Field(
        default=None,
        validation_alias="FN_TLS_CA",
        description="authorities in PEM that clients of other nodes trust, runners too; default: the system's",
    )
    tls_client_cert: Path | None = Field(
        default=None,
        validation_alias="FN_TLS_CLIENT_CERT",
        description="certificate in PEM that runners and the command show to other nodes",
    )
    tls_client_key: Path | None = Field(
        default=None, validation_alias="FN_TLS_CLIENT_KEY", description="private key of FN_TLS_CLIENT_CERT, in PEM"
    )
    auth: AuthMode = Field(
        default=AuthMode.LOOPBACK,
        validation_alias="FN_AUTH",
        description="who needs no token: loopback (programs on this machine), required (nobody), off (everybody)",
    )
    call_auth: Literal["open", "token"] = Field(
        default="open",
        validation_alias="FN_CALL_AUTH",
        description="what callers of functions show where neither route nor app says: open (nothing), token",
    )
    admin_token: SecretStr = Field(
        default=SecretStr(""),
        validation_alias="FN_ADMIN_TOKEN",
        description="token of administrators; empty: that of <data>/admin-token",
    )
    log_admin_token: bool = Field(
        default=False,
        validation_alias="FN_LOG_ADMIN_TOKEN",
        description="log the admin token once, when a start creates it: for containers",
    )
    oidc_issuer: str = Field(
        default="",
        validation_alias="FN_OIDC_ISSUER",
        description="URL of an OpenID Connect issuer whose tokens are accepted, as its discovery document spells it",
    )
    oidc_audience: str = Field(
        default="", validation_alias="FN_OIDC_AUDIENCE", description="audience that tokens of the issuer must name"
    )
    oidc_role_claim: str = Field(
        default="roles",
        validation_alias="FN_OIDC_ROLE_CLAIM",
        description="claim of the issuer's tokens that lists groups or roles; dots lead into objects",
    )
    oidc_roles: str = Field(
        default="",
        validation_alias="FN_OIDC_ROLES",
        description="roles for values of that claim: value=role, separated by commas; the first that fits decides",
    )
    oidc_apps_claim: str = Field(
        default="",
        validation_alias="FN_OIDC_APPS_CLAIM",
        description="claim that lists the apps that a token reaches, or *; empty: all apps",
    )
    oidc_ca: Path | None = Field(
        default=None,
        validation_alias="FN_OIDC_CA",
        description="authorities in PEM to trust for the issuer; default: the system's",
    )
    secret_key: SecretStr = Field(
        default=SecretStr(""),
        validation_alias="FN_SECRET_KEY",
        description="keys that encrypt secrets, the present one first; empty: <data>/secret-key, created when needed",
    )
    secret_key_file: Annotated[Path | None, pydantic.BeforeValidator(_if_any)] = Field(
        default=None, validation_alias="FN_SECRET_KEY_FILE", description="file with those keys, one on each line"
    )
    hosts: str = Field(
        default="",
        validation_alias="FN_HOSTS",
        description="host names by which clients reach the API, separated by commas; * allows all",
    )
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
        description="seconds after which another node takes over an async call whose node died",
    )
    max_misfits: int = Field(
        default=30,
        ge=1,
        validation_alias="FN_MQ_MAX_MISFITS",
        description="deliveries after which an async call ends if it is too large for every node that took it",
    )
    keep_calls: _Age = Field(
        default=None,
        validation_alias="FN_KEEP_CALLS",
        description="age at which calls are removed with their logs, such as 30d or 12h; empty: never",
    )
    keep_calls_count: Annotated[int | None, pydantic.BeforeValidator(_if_any)] = Field(
        default=None, gt=0, validation_alias="FN_KEEP_CALLS_COUNT", description="number of calls to keep; empty: all"
    )
    keep_logs: _Age = Field(
        default=None,
        validation_alias="FN_KEEP_LOGS",
        description="age at which logs are removed, such as 7d; empty: with their calls",
    )
    keep_logs_bytes: int | None = Field(
        default=None,
        gt=0,
        validation_alias="FN_KEEP_LOGS_BYTES",
        description="bytes of logs to keep, newest first; empty: all",
    )
    keep_audit: _Age = Field(
        default_factory=lambda: _age("90d"),
        validation_alias="FN_KEEP_AUDIT",
        description="age at which events of the audit log are removed; empty: never",
    )
    keep_dead_letters: _Age = Field(
        default_factory=lambda: _age("14d"),
        validation_alias="FN_KEEP_DEAD_LETTERS",
        description="age at which dead letters are removed; empty: never",
    )
    sweep_logstore: bool = Field(
        default=True,
        validation_alias="FN_SWEEP_LOGSTORE",
        description="remove old logs from FN_LOGSTORE_URL; false: leave that to the store's own rules",
    )
    keep_bundles: Annotated[_Age, pydantic.AfterValidator(_bundle_age)] = Field(
        default=None,
        validation_alias="FN_KEEP_BUNDLES",
        description="age at which builds are removed that neither a route nor an accepted call needs; empty: never",
    )
    keep_bundles_bytes: int | None = Field(
        default=None,
        gt=0,
        validation_alias="FN_KEEP_BUNDLES_BYTES",
        description="bytes of unneeded builds to keep, newest first; empty: all",
    )
    image_max_bytes: int = Field(
        default=16 << 30,
        gt=0,
        validation_alias="FN_IMAGE_MAX_BYTES",
        description="bytes of one image, compressed and unpacked, that builds and the process driver accept",
    )
    image_max_files: int = Field(
        default=1_000_000,
        gt=0,
        validation_alias="FN_IMAGE_MAX_FILES",
        description="files of one layer of an image that the process driver unpacks",
    )
    max_request_size: Annotated[int | None, pydantic.BeforeValidator(_unless_zero)] = Field(
        default=None,
        gt=0,
        validation_alias="FN_MAX_REQUEST_SIZE",
        description="largest request body, in bytes; 0: no limit",
    )
    max_api_request_size: int = Field(
        default=1 << 20,
        gt=0,
        validation_alias="FN_MAX_API_REQUEST_SIZE",
        description="largest request body of /v1, in bytes",
    )
    max_held_request_size: int = Field(
        default=16 << 20,
        gt=0,
        validation_alias="FN_MAX_HELD_REQUEST_SIZE",
        description="largest body of an async call, or for a function of format json, in bytes",
    )
    max_result_bytes: int = Field(
        default=DEFAULT_MAX_BYTES,
        ge=0,
        le=_MAX_RESULT_BYTES,
        validation_alias="FN_MAX_RESULT_BYTES",
        description="largest answer of an async call that is kept as its result, in bytes",
    )
    result_ttl: int = Field(
        default=DEFAULT_TTL_S,
        gt=0,
        le=MAX_TTL_S,
        validation_alias="FN_RESULT_TTL",
        description="seconds for which the results of async calls are kept",
    )
    image_registries: _Registries = Field(
        default="",
        validation_alias="FN_IMAGE_REGISTRIES",
        description="registries that are asked for images, as registry.example.com:5000; empty: all",
    )
    callback_allow: _AnyNetworks = Field(
        default="",
        validation_alias="FN_CALLBACK_ALLOW",
        description="networks that are not public, to which records of calls may be sent, as 10.1.0.0/16",
    )
    quota_memory_mib: int = Field(
        default=0,
        ge=0,
        validation_alias="FN_QUOTA_MEMORY_MIB",
        description="memory of the containers of one app, in MiB; 0: no limit",
    )
    quota_concurrent_calls: int = Field(
        default=0,
        ge=0,
        validation_alias="FN_QUOTA_CONCURRENT_CALLS",
        description="calls of one app in progress; 0: no limit",
    )
    quota_waiting_calls: int = Field(
        default=10_000,
        ge=0,
        validation_alias="FN_QUOTA_WAITING_CALLS",
        description="sync calls of one app that wait for a container; 0: no limit",
    )
    quota_calls_per_second: int = Field(
        default=0,
        ge=0,
        validation_alias="FN_QUOTA_CALLS_PER_SECOND",
        description="calls of one app per second; 0: no limit",
    )
    quota_burst: int = Field(
        default=0,
        ge=0,
        validation_alias="FN_QUOTA_BURST",
        description="calls of one app at once after a quiet time; 0: those of one second",
    )
    quota_queued_calls: int = Field(
        default=0,
        ge=0,
        validation_alias="FN_QUOTA_QUEUED_CALLS",
        description="accepted async calls of one app that have not started; 0: no limit",
    )
    quota_stored_bytes: int = Field(
        default=0,
        ge=0,
        validation_alias="FN_QUOTA_STORED_BYTES",
        description="bytes of queued async calls, results and logs of one app; 0: no limit",
    )
    quota_request_bytes: int = Field(
        default=0,
        ge=0,
        validation_alias="FN_QUOTA_REQUEST_BYTES",
        description="bytes of the body of a call; 0: no limit",
    )
    max_client_connections: int | None = Field(
        default=None,
        ge=0,
        validation_alias="FN_MAX_CLIENT_CONNECTIONS",
        description="connections of one client address; 0: no limit; default: half of those that the node can have",
    )
    max_client_heads: int = Field(
        default=128,
        ge=0,
        validation_alias="FN_MAX_CLIENT_HEADS",
        description="request heads of one client address that have started and not ended; 0: no limit",
    )
    header_timeout_s: float = Field(
        default=30.0,
        gt=0,
        validation_alias="FN_HEADER_TIMEOUT_S",
        description="seconds that a client has to send the head of a request",
    )
    api_cors: str = Field(
        default="",
        validation_alias="FN_API_CORS",
        description="origins of web pages that may use the node; * allows all",
    )
    public_url: str = Field(
        default="",
        validation_alias="FN_PUBLIC_LB_URL",
        description="beginning of the addresses of functions in answers of API v2, such as https://functions.example",
    )
    extensions: str = Field(
        default="", validation_alias="FN_EXTENSIONS", description="names of installed extensions, in their order"
    )
    dashboard: bool = Field(
        default=True, validation_alias="FN_DASHBOARD", description="serve the dashboard at /ui/; runners never do"
    )
    driver: Annotated[
        Literal["auto", "docker", "process"],
        pydantic.BeforeValidator(lambda name: "process" if name == "local" else name),
    ] = Field(
        default="auto",
        validation_alias="FN_DRIVER",
        description="auto: what the data folder remembers; at first Docker if it answers, else processes",
    )
    log_level: str = Field(default="info", validation_alias="FN_LOG_LEVEL", description="debug ... panic")
    log_dest: str = Field(
        default="stderr",
        repr=False,
        validation_alias="FN_LOG_DEST",
        description="stderr, file:///path, udp:// or tcp://host:port",
    )
    log_format: Literal["text", "json"] = Field(
        default="text", validation_alias="FN_LOG_FORMAT", description="form of log lines: text, or json objects"
    )
    disable_debug_user_logs: bool = Field(
        default=False,
        validation_alias="FN_DISABLE_DEBUG_USER_LOGS",
        description="the output of functions is not logged, even at level debug",
    )
    app_syslog: Literal["off", "network", "any"] = Field(
        default="network",
        validation_alias="FN_APP_SYSLOG",
        description="syslog_url of apps that are served: off (none), network, any (Unix sockets, too)",
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
        default="unix:///var/run/docker.sock",
        pattern=r"^(unix|tcp)://.",
        validation_alias="DOCKER_HOST",
        description="the Docker Engine: unix:// or tcp://",
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
    function_network: FunctionNetwork | None = Field(
        default=None,
        validation_alias="FN_FUNCTION_NETWORK",
        description="none, internet or host; default: internet where functions can be kept apart",
    )
    function_network_allow: _Networks = Field(
        default="",
        validation_alias="FN_FUNCTION_NETWORK_ALLOW",
        description="private IPv4 networks that functions may reach with internet, as 10.1.0.0/16",
    )
    docker_networks: str = Field(
        default="",
        validation_alias="FN_DOCKER_NETWORKS",
        description="networks of the Engine to use instead of Hearth's own",
    )
    readonly_rootfs: bool = Field(
        default=False,
        validation_alias="FN_READONLY_ROOTFS",
        description="functions of images write to /tmp only",
    )
    unprivileged_containers: bool = Field(
        default=False,
        validation_alias="FN_UNPRIVILEGED_CONTAINERS",
        description="functions of images are user 1000, whatever their image says",
    )
    disable_unprivileged_containers: bool = Field(
        default=False,
        validation_alias="FN_DISABLE_UNPRIVILEGED_CONTAINERS",
        description="functions of format http-stream are the user of their image, not user 1000",
    )
    disable_readonly_rootfs: bool = Field(
        default=False,
        validation_alias="FN_DISABLE_READONLY_ROOTFS",
        description="functions of format http-stream may write beside /tmp in their image",
    )
    image_enable_volume: bool = Field(
        default=False,
        validation_alias="FN_IMAGE_ENABLE_VOLUME",
        description="functions of format http-stream may have images that declare volumes",
    )
    iofs_path: Annotated[Path | None, pydantic.BeforeValidator(_if_any)] = Field(
        default=None,
        validation_alias="FN_IOFS_PATH",
        description="folder for the sockets of functions of format http-stream; default: /dev/shm, else that of TMPDIR",
    )
    iofs_docker_path: Annotated[Path | None, pydantic.BeforeValidator(_if_any)] = Field(
        default=None,
        validation_alias="FN_IOFS_DOCKER_PATH",
        description="path of FN_IOFS_PATH on the machine of the Engine, where it differs",
    )
    hot_start_timeout_msecs: int = Field(
        default=5000,
        gt=0,
        validation_alias="FN_HOT_START_TIMEOUT_MSECS",
        description="milliseconds that a container of format http-stream has to make its socket",
    )
    hot_pull_timeout_msecs: int = Field(
        default=600_000,
        gt=0,
        validation_alias="FN_HOT_PULL_TIMEOUT_MSECS",
        description="milliseconds for getting the image of a function; then 504",
    )
    freeze_idle_msecs: int = Field(
        default=-1,
        ge=-1,
        le=86_400_000,
        validation_alias="FN_FREEZE_IDLE_MSECS",
        description="milliseconds without a call after which a container is frozen until its next one; -1: never",
    )
    max_response_size: int = Field(
        default=0,
        ge=0,
        validation_alias="FN_MAX_RESPONSE_SIZE",
        description="largest body of an answer of format http-stream, in bytes; 0: no limit",
    )
    max_hdr_response_size: int = Field(
        default=0,
        ge=0,
        validation_alias="FN_MAX_HDR_RESPONSE_SIZE",
        description="largest head of an answer of format http-stream, in bytes; 0: 256 KiB",
    )
    json_lines: bool = Field(
        default=False,
        validation_alias="FN_JSON_LINES",
        description="each message to a function of format json is one line, as Fn wrote it from March 2018 on",
    )
    max_pids: int = Field(
        default=50, ge=0, validation_alias="FN_MAX_PIDS", description="threads and processes of one container"
    )
    max_open_files: int = Field(
        default=1024, ge=0, validation_alias="FN_MAX_OPEN_FILES", description="open files of one process"
    )
    max_locked_memory: int = Field(
        default=65536,
        ge=-1,
        validation_alias="FN_MAX_LOCKED_MEMORY",
        description="bytes that a process of format http-stream in Docker may lock in memory; -1: the Engine's own",
    )
    max_pending_signals: int = Field(
        default=5000,
        ge=-1,
        validation_alias="FN_MAX_PENDING_SIGNALS",
        description="signals that may wait for a function of format http-stream in Docker; -1: what the Engine gives",
    )
    max_message_queue: int = Field(
        default=819200,
        ge=-1,
        validation_alias="FN_MAX_MESSAGE_QUEUE",
        description="bytes in message queues of a function of format http-stream in Docker; -1: what the Engine gives",
    )
    max_fs_size_mb: int = Field(
        default=0,
        ge=0,
        le=1 << 20,
        validation_alias="FN_MAX_FS_SIZE_MB",
        description="MiB of /tmp of functions in Docker that write nowhere else; 0: up to their memory",
    )
    max_tmpfs_inodes: int = Field(
        default=0,
        ge=0,
        validation_alias="FN_MAX_TMPFS_INODES",
        description="files in /tmp of functions in Docker that write nowhere else; 0: no limit",
    )
    max_log_size_bytes: int = Field(
        default=1 << 20,
        gt=0,
        le=_MAX_LOG_BYTES,
        validation_alias="FN_MAX_LOG_SIZE_BYTES",
        description="bytes that are kept of the log of one call",
    )
    sandbox_policy: Literal["required", "preferred", "off"] | None = Field(
        default=None,
        validation_alias="FN_SANDBOX",
        description="functions as processes run in a sandbox: required, preferred (if one works) or off (never)",
    )
    function_users: _UidRange = Field(
        default="2000000000-2000065535",
        validation_alias="FN_FUNCTION_UIDS",
        description="user ids for functions as processes on a node that runs as root: one for each app",
    )
    max_total_memory: int | None = Field(
        default=None,
        gt=0,
        validation_alias="FN_MAX_TOTAL_MEMORY",
        description="memory for all containers together, in bytes",
    )
    max_total_cpu: int | None = Field(
        default=None,
        gt=0,
        validation_alias="FN_MAX_TOTAL_CPU",
        description="CPU for all containers together, in thousandths of a core",
    )
    scaling_policy: Literal["adaptive", "simple"] = Field(
        default="adaptive",
        validation_alias="FN_SCALING_POLICY",
        description="containers for waiting calls: adaptive (as many as are useful) or simple (one for each)",
    )
    max_starts: int | None = Field(
        default=None,
        gt=0,
        validation_alias="FN_MAX_STARTS",
        description="containers that may start at once; default: one per processor, at least 2",
    )
    start_delay_s: float = Field(
        default=0.0,
        ge=0,
        validation_alias="FN_START_DELAY_S",
        description="seconds that calls wait for a busy container before another one starts",
    )
    grace_s: float = Field(
        default=_GRACE_S,
        ge=0,
        validation_alias="FN_GRACE_S",
        description="seconds that running calls have to finish at shutdown",
    )

    drain_delay_s: float = Field(
        default=0.0,
        ge=0,
        validation_alias="FN_DRAIN_DELAY_S",
        description="seconds for which a stopping node reports that it is not ready and still serves",
    )
    runner_api_url: str = Field(
        default="",
        repr=False,
        validation_alias="FN_RUNNER_API_URL",
        description="API node of a runner: [http://]host[:port] or unix:/path",
    )
    runner_connect_s: float = Field(
        default=5.0,
        gt=0,
        validation_alias="FN_RUNNER_CONNECT_S",
        description="time limit for a runner's connection to its API node, in seconds",
    )
    runner_spool_bytes: int = Field(
        default=256 << 20,
        gt=0,
        validation_alias="FN_RUNNER_SPOOL_BYTES",
        description="bytes of finished calls that a runner keeps while its API node is unreachable",
    )
    runner_stale_s: float = Field(
        default=3600.0,
        ge=0,
        validation_alias="FN_RUNNER_STALE_S",
        description="seconds for which a runner serves known routes while its API node is unreachable",
    )
    runner_quiet_s: float = Field(
        default=3.0,
        ge=0,
        validation_alias="FN_RUNNER_QUIET_S",
        description="seconds after a start in which runners report finished calls",
    )
    runner_token: SecretStr = Field(
        default=SecretStr(""),
        validation_alias="FN_RUNNER_TOKEN",
        description="token that runners send to their API node",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return what values come from; the first that has one wins."""
        return init_settings, env_settings, _OtherNames(settings_cls)

    @pydantic.field_validator(
        "tls_cert", "tls_key", "tls_client_ca", "tls_ca", "tls_client_cert", "tls_client_key", "oidc_ca", mode="before"
    )
    @classmethod
    def _no_path_is_none(cls, given: object) -> object:
        return given or None

    @pydantic.field_validator("admin_token", "runner_token")
    @classmethod
    def _fits_a_header(cls, token: SecretStr) -> SecretStr:
        if re.fullmatch(r"[\x21-\x7e]*", token.get_secret_value()) is None:
            raise ValueError("a token consists of printable ASCII characters, without spaces")
        if token.get_secret_value() == _PLACEHOLDER:
            raise ValueError("this is the placeholder of the manifests; choose a secret of your own")
        return token

    @property
    def address(self) -> str:
        """The address that is listened on.

        Raises:
            StartUpError: It is not loopback's, although clients need no token.
        """
        if self.bind is None:
            return "127.0.0.1" if self.auth is AuthMode.LOOPBACK else "0.0.0.0"
        if not self.admin_bind:  # else it serves nothing that a mode protects
            self._check_loopback("FN_BIND", self.bind)
        return self.bind

    @property
    def admin_place(self) -> tuple[str, int] | Path | None:
        """The address and port, or the socket, where the API is served; ``None`` for the same as function calls.

        Raises:
            StartUpError: The address is not loopback's, although clients need no token.
        """
        place = place_of(self.admin_bind)
        if isinstance(place, tuple):
            self._check_loopback("FN_ADMIN_BIND", place[0])
        return place

    @property
    def control_address(self) -> str:
        """The address by which clients reach the API."""
        place = self.admin_place
        if place is None:
            return self.address
        return place[0] if isinstance(place, tuple) else "localhost"

    def _check_loopback(self, name: str, address: str) -> None:
        if self.auth is AuthMode.LOOPBACK and not is_loopback(address):
            raise StartUpError(
                f"{name}={address}: others could control this node, because FN_AUTH is loopback; set "
                "FN_AUTH=required, so that clients need a token, or FN_AUTH=off, so that everybody may do everything"
            )

    @property
    def data(self) -> Path:
        """The data folder, absolute."""
        return self.data_dir.absolute()

    @property
    def sandbox(self) -> Literal["required", "preferred", "off"]:
        """The policy for functions as processes; by default a server that runs as root requires a sandbox."""
        return self.sandbox_policy or ("required" if os.geteuid() == 0 else "preferred")

    @property
    def function_uids(self) -> range:
        """The users that functions as processes run as where the server is root."""
        first, _, last = self.function_users.partition("-")
        return range(int(first), int(last) + 1)

    @property
    def function_networks_allowed(self) -> tuple[ipaddress.IPv4Network, ...]:
        """The private networks that functions may reach."""
        return tuple(map(ipaddress.IPv4Network, _words(self.function_network_allow)))

    @property
    def registries_allowed(self) -> frozenset[str]:
        """The registries that are asked for images; empty: all."""
        return frozenset(map(registry_of, _words(self.image_registries)))

    @property
    def callback_networks(self) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
        """The networks to which records of calls may be sent, although they are not public."""
        return tuple(map(ipaddress.ip_network, _words(self.callback_allow)))

    @property
    def extension_names(self) -> list[str]:
        """The installed extensions to add, in their order."""
        return _words(self.extensions)

    @property
    def docker_network_names(self) -> tuple[str, ...]:
        """The networks that containers are spread over."""
        return tuple(_words(self.docker_networks))

    @property
    def docker_tls(self) -> bool:
        """True if Hearth speaks to a ``tcp`` Engine over TLS."""
        return self.docker_tls_verify.lower() not in ("", "0", "false") and self.docker_host.startswith("tcp://")

    @property
    def docker_config_files(self) -> tuple[Path, ...]:
        """The places of docker's configuration: today's file, then the file of old versions."""
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
    def quotas(self) -> Quotas:
        """The quotas of apps that have none of their own."""
        return Quotas(
            memory_mib=self.quota_memory_mib,
            concurrent_calls=self.quota_concurrent_calls,
            waiting_calls=self.quota_waiting_calls,
            calls_per_second=self.quota_calls_per_second,
            burst=self.quota_burst,
            queued_calls=self.quota_queued_calls,
            stored_bytes=self.quota_stored_bytes,
            request_bytes=self.quota_request_bytes,
        )

    @property
    def queue(self) -> str:
        """The URL of the queue of async calls."""
        return self.mq_url if self.mq_url is not None else f"bolt://{self.data / 'fn.mq'}"


class _OtherNames(PydanticBaseSettingsSource):
    """Variables that are named in another way: with Fn's name, or by a file that holds the value."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Return the value of a field, ``None`` if it has none, and its key."""
        name = str(field.validation_alias)
        spelled = _spelled(name)
        value = os.environ.get(spelled)
        if value is not None and spelled == f"{name}{_FILE}":
            value = _content(spelled, value)
        return None if spelled in ZERO_IS_NONE and value == "0" else value, name, False

    def __call__(self) -> dict[str, Any]:
        """Return the values that there are."""
        found = (self.get_field_value(field, name) for name, field in self.settings_cls.model_fields.items())
        return {key: value for value, key, _ in found if value is not None}


def _spelled(name: str) -> str:
    """Return the variable that gives the value of a setting; that of Hearth, if none does."""
    others = (f"{name}{_FILE}", *(given for given, meant in SAME.items() if meant == name))
    return next((one for one in (name, *others) if one in os.environ), name)


def _content(variable: str, path: str) -> str:
    try:
        return Path(path).read_text().rstrip("\r\n")
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is not a text file"
        raise StartUpError(f"{variable}={path}: {reason}; name a file that holds the value") from exc


def place_of(text: str) -> tuple[str, int] | Path | None:
    """Return the address and port, or the path, that a text names; ``None`` for an empty one.

    Raises:
        ValueError: It is neither ``address:port`` nor ``unix:/path``.
    """
    if not text:
        return None
    scheme, _, path = text.partition(":")
    if scheme == "unix" and path.startswith("/"):
        return Path(path)
    address, _, port = text.rpartition(":")
    if address.startswith("[") and address.endswith("]"):
        address = address[1:-1]
    elif ":" in address:
        address = ""
    if not address or not port.isdecimal() or int(port) > 65535:
        raise ValueError("Input should be address:port, as 127.0.0.1:8081 or [::1]:8081, or unix:/absolute/path")
    return address, int(port)


def is_loopback(address: str) -> bool:
    """Return whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def load(**given: Any) -> Settings:
    """Return the settings of this process; values given in code override the environment.

    Raises:
        StartUpError: A value is invalid; the text names its variable.
    """
    try:
        return Settings(**given)
    except pydantic.ValidationError as exc:
        first = exc.errors()[0]
        name = first["loc"][0] if first["loc"] else "settings"
        is_secret = any(
            name in (key, field.validation_alias) and field.annotation is SecretStr
            for key, field in Settings.model_fields.items()
        )
        shown = "'***'" if is_secret else repr(re.sub(".*@", "***@", str(first.get("input"))))
        raise StartUpError(f"{_spelled(str(name))}={shown}: {first['msg'].removeprefix('Value error, ')}") from exc


def secrets(settings: Settings) -> set[str]:
    """Return what no log may show: secret values, and the passwords within URLs."""
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
    """Yield a secret, and the secrets within it if it is a docker config."""
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
    """Return the variables of this process, some of them changed, for a child process."""
    return {**os.environ, **changed}


def unknown_variables() -> dict[str, str]:
    """Variables that look like settings and are none, each with the one that was perhaps meant."""
    known = {str(field.validation_alias) for field in Settings.model_fields.values()}
    expected = known | _OF_CLIENTS | SAME.keys() | WITHOUT_EFFECT.keys() | {f"{name}{_FILE}" for name in known}
    strangers = sorted(name for name in os.environ if name.startswith("FN_") and name not in expected)
    return {name: next(iter(difflib.get_close_matches(name, known, 1, 0.7)), "") for name in strangers}


def variables_without_effect() -> dict[str, str]:
    """Variables of Fn's server that are set and have no effect, each with what Hearth does instead."""
    return {name: instead for name, instead in WITHOUT_EFFECT.items() if name in os.environ}
