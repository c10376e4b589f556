"""Every metric of a node and every span, in one table each: name, kind, unit, meaning.

A name, once published, is what dashboards and alerts select by; so its kind, its unit and its labels never change.
The labels of every metric are ``fn_appname`` and ``fn_path``, empty where they do not apply.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Final, Literal

Kind = Literal["counter", "gauge", "histogram"]

#: Seconds.
TIME_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
#: The buckets of times, and powers of four of a kibibyte up to 16 GiB: names and values stay Fn's.
BYTE_BUCKETS: Final = (*TIME_BUCKETS, *(float(4**power * 1024) for power in range(13)))
#: The buckets of times, and percents of a processor up to 64 of them.
PERCENT_BUCKETS: Final = (*TIME_BUCKETS, 25.0, 50.0, 75.0, *(100.0 * 2**power for power in range(7)))
_BUCKETS: Final = {"seconds": TIME_BUCKETS, "bytes": BYTE_BUCKETS, "percent": PERCENT_BUCKETS}


@dataclasses.dataclass(frozen=True, slots=True)
class Metric:
    """What a name stands for.

    Attributes:
        unit: Of its values.
        meaning: For people: when it moves, or what is measured.
    """

    name: str
    kind: Kind
    unit: str
    meaning: str

    @property
    def buckets(self) -> tuple[float, ...]:
        """Upper bounds of a histogram's buckets."""
        return _BUCKETS.get(self.unit, TIME_BUCKETS)


_STATES: Final = {
    "wait": "wait for memory, CPU and a place to start",
    "start": "are being made and started",
    "idle": "are ready for a call",
    "busy": "serve a call",
}
_STATS: Final = {
    "net_rx": ("bytes", "received from the network"),
    "net_tx": ("bytes", "sent to the network"),
    "mem_limit": ("bytes", "memory it may use"),
    "mem_usage": ("bytes", "memory it uses"),
    "disk_read": ("bytes", "read from disks"),
    "disk_write": ("bytes", "written to disks"),
    "cpu_user": ("percent", "of one processor, in user mode"),
    "cpu_total": ("percent", "of one processor"),
    "cpu_kernel": ("percent", "of one processor, in the kernel"),
}


def _metrics() -> Iterable[Metric]:
    yield Metric("fn_calls", "counter", "calls", "submitted: entered the queue of their function")
    yield Metric("fn_queued", "gauge", "calls", "wait for a container")
    yield Metric("fn_running", "gauge", "calls", "run")
    yield Metric("fn_completed", "counter", "calls", "executed without error")
    yield Metric("fn_failed", "counter", "calls", "ended with an error, in time or late, or failed before their start")
    yield Metric("fn_timeouts", "counter", "calls", "ran into their deadline (failed, too)")
    yield Metric("fn_errors", "counter", "calls", "ended with any other error (failed, too)")
    yield Metric("fn_server_busy", "counter", "calls", "found no container in time (503; not failed)")
    for state, meaning in _STATES.items():
        yield Metric(f"fn_container_{state}_total", "gauge", "containers", f"that now {meaning}")
    yield Metric("fn_container_done_total", "gauge", "containers", "that are gone; only grows")
    for state in _STATES:
        yield Metric(
            f"fn_container_{state}_duration_seconds", "histogram", "seconds", f"from entering to leaving {state}"
        )
    for name, (unit, meaning) in _STATS.items():
        yield Metric(f"fn_docker_stats_fn_{name}", "histogram", unit, f"{meaning}; one value per container and second")
    yield Metric("fn_s3_log_upload_size", "histogram", "bytes", "of a log that was stored")
    yield Metric("fn_s3_log_download_size", "histogram", "bytes", "of a log that was fetched")
    yield Metric("hearth_records_waiting", "gauge", "calls", "whose record is not stored yet")
    yield Metric("hearth_records_lost", "counter", "calls", "whose record could not be stored")
    yield Metric("hearth_logs_lost", "counter", "logs", "of calls that could not be stored")
    yield Metric("hearth_queue_length", "gauge", "messages", "of async calls that no node has taken")
    yield Metric("hearth_queue_oldest_age_seconds", "gauge", "seconds", "since the oldest of them was accepted")
    yield Metric("hearth_log_lines_dropped", "counter", "lines", "of the log that their destination did not take")
    yield Metric("hearth_runner_spooled", "gauge", "calls", "whose ends wait for the API node")
    yield Metric("hearth_runner_records_refused", "counter", "calls", "whose ends the API node can never store")


METRICS: Final = {metric.name: metric for metric in _metrics()}


def of_span(span: str) -> str:
    """The histogram that a span's durations go to."""
    return f"fn_span_{span}_duration_seconds"


#: Spans by name: what each of them times.
SPANS: Final = {
    "serve_http": "a request, from its head to the end of its answer",
    "server_init": "a node's start",
    "agent_submit": "a call, from its acceptance to its record",
    "agent_submit_global": "the same, without labels; a trace of its own",
    "agent_submit_app": "the same, by app; a trace of its own",
    "agent_get_slot": "the wait for a container, hot or cold",
    "agent_wait_hot": "the wait for a hot container",
    "agent_hot_launcher": "the life of a function's launcher",
    "agent_run_hot": "the life of a hot container",
    "agent_hot_exec": "a call's exchange with a hot container",
    "agent_launch_cold": "the wait for a cold container",
    "agent_prep_cold": "the making of a cold container",
    "agent_cold_exec": "a cold container's run",
    "agent_call_start": "what comes before an execution: an async call is taken over",
    "agent_call_end": "what comes after it: the record is stored",
    "agent_get_resource_token": "the wait for memory and CPU",
    "agent_wait_async_resource": "the wait for room for an async call",
    "agent_async_dequeue": "a look into the queue of async calls",
    "agent_async_run": "an async call, from its reservation to its end",
    "docker_auth": "the search for an image's credentials",
    "docker_pull_image": "the fetch of an image",
    "docker_create_container": "the creation of a container",
    "docker_attach_container": "the connection to its streams",
    "docker_start_container": "its start",
    "docker_inspect_container": "a look at it",
    "docker_wait_container": "its run, as the Engine sees it",
    "docker_remove_container": "its removal",
    "docker_collect_stats": "its samples, as long as they come",
    "ds_get_app": "the datastore: an app is read",
    "ds_get_apps": "the datastore: apps are listed",
    "ds_insert_app": "the datastore: an app is stored",
    "ds_update_app": "the datastore: an app is changed",
    "ds_remove_app": "the datastore: an app is removed",
    "ds_get_route": "the datastore: a route is read",
    "ds_get_routes_by_app": "the datastore: routes are listed",
    "ds_insert_route": "the datastore: a route is stored",
    "ds_update_route": "the datastore: a route is changed",
    "ds_remove_route": "the datastore: a route is removed",
    "ds_get_call": "the datastore: a call's record is read",
    "ds_get_calls": "the datastore: calls are listed",
    "ds_insert_call": "the datastore: records of calls are stored",
    "ds_update_call": "the datastore: a call's record is changed",
    "ds_insert_log": "the datastore: a call's log is stored",
    "ds_get_log": "the datastore: a call's log is read",
    "s3_insert_log": "the object store: a call's log is stored",
    "s3_get_log": "the object store: a call's log is read",
    "mq_push": "the queue: an async call is made durable",
    "mq_reserve": "the queue: async calls are taken",
    "mq_delete": "the queue: a call that has ended is forgotten",
    "hybrid_client_get_app": "a runner asks its API node: an app",
    "hybrid_client_get_route": "a runner asks its API node: a route",
    "hybrid_client_enqueue": "a runner asks its API node: an async call is handed over",
    "hybrid_client_dequeue": "a runner asks its API node: async calls are taken",
    "hybrid_client_start": "a runner asks its API node: a call's start",
    "hybrid_client_end": "a runner asks its API node: a call's end",
    "hybrid_client_http_do": "one HTTP request of a runner to its API node",
}
