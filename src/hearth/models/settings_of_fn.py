"""The variables of Fn's server that Hearth does not have under the same name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

#: Variables of Fn, each with the variable of Hearth that means the same. The latter wins.
SAME: Final[Mapping[str, str]] = {
    "FN_API_CORS_ORIGINS": "FN_API_CORS",
    "FN_DOCKER_AUTH": "DOCKER_AUTH",
    "FN_DS_DB_PING_MAX_RETRIES": "FN_DB_WAIT_S",  # Fn tries once a second
    "FN_MAX_TOTAL_CPU_MCPUS": "FN_MAX_TOTAL_CPU",
    "FN_MAX_TOTAL_MEMORY_BYTES": "FN_MAX_TOTAL_MEMORY",
}
#: Those of which 0 is the same as none.
ZERO_IS_NONE: Final = frozenset({"FN_MAX_TOTAL_CPU_MCPUS", "FN_MAX_TOTAL_MEMORY_BYTES"})

_BALANCER: Final = "no node sends calls to another one: put an HTTP balancer before nodes of type runner"
_PREFORK: Final = "no containers are made in advance; idle containers stay for the idle_timeout of their function"
_CLEANER: Final = "Hearth removes no images of the Docker Engine: use docker image prune"

#: Variables of Fn without effect here, each with what Hearth does instead.
WITHOUT_EFFECT: Final[Mapping[str, str]] = {
    "FN_API_CORS_HEADERS": "pages may send Origin, Content-Length, Content-Type and Authorization",
    "FN_CONTAINER_LABEL_TAG": "containers have the label hearth.node, and a start removes what is left of earlier runs",
    "FN_DOCKER_LOAD_FILE": "load the images with docker load before the start",
    "FN_ENABLE_NB_RESOURCE_TRACKER": "a call waits for memory; limit those that wait with FN_QUOTA_WAITING_CALLS",
    "FN_EXECUTION_HEADROOM": "a detached call waits in the queue without a limit, and its timeout begins with its run",
    "FN_EXPERIMENTAL_PREFORK_CMD": _PREFORK,
    "FN_EXPERIMENTAL_PREFORK_IMAGE": _PREFORK,
    "FN_EXPERIMENTAL_PREFORK_NETWORKS": _PREFORK,
    "FN_EXPERIMENTAL_PREFORK_POOL_SIZE": _PREFORK,
    "FN_EXPERIMENTAL_PREFORK_USE_ONCE": _PREFORK,
    "FN_GRPC_PORT": "nodes speak HTTP on FN_PORT only",
    "FN_HOT_LAUNCHER_TIMEOUT_MSECS": "a function without calls is forgotten after an hour, or twice its idle_timeout",
    "FN_HOT_POLL_MSECS": "calls that wait are served as soon as there is room: nothing is polled",
    "FN_HTTP_IDLE_TIMEOUT": "connections without a request are closed after 75 s",
    "FN_IMAGE_CLEAN_EXEMPT_TAGS": _CLEANER,
    "FN_IMAGE_CLEAN_MAX_SIZE": _CLEANER,
    "FN_IOFS_OPTS": "no file system is mounted for sockets: choose one with FN_IOFS_PATH",
    "FN_IOFS_TMPFS": "sockets are in memory where FN_IOFS_PATH is; it is /dev/shm by default",
    "FN_JAEGER_URL": "Jaeger takes spans of FN_OTLP_URL or FN_ZIPKIN_URL",
    "FN_MAX_REQUEST_HEADER_SIZE": "request heads have up to 1 MiB; larger ones are answered 431",
    "FN_PLACER": _BALANCER,
    "FN_PROCESS_COLLECTOR_LIST": "/metrics describes this process only",
    "FN_REQUEST_BODY_READ_TIMEOUT": "the timeout of the function limits the time for the body, too",
    "FN_REQUEST_HEADER_READ_TIMEOUT": "set FN_HEADER_TIMEOUT_S, in seconds",
    "FN_RESPONSE_WRITE_TIMEOUT": "the timeout of the function limits the time for the answer, too",
    "FN_RID_HEADER": "Fn does not read it, either; the id of a call is Fn-Call-Id",
    "FN_RUNNER_ADDRESSES": _BALANCER,
}
