"""The names of every metric and every span of a node; ``docs/observability.md`` says what each of them means.

Dashboards and alerts select by published names; so the kind, the unit and the labels of a name never change.
The labels of every metric are ``fn_appname`` and ``fn_path``, empty where they do not apply.
"""

from __future__ import annotations

import dataclasses
from typing import Final, Literal

Kind = Literal["counter", "gauge", "histogram"]

#: Seconds.
TIME_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
#: The buckets of times, and powers of four of a kibibyte up to 16 GiB: names and values stay those of Fn.
BYTE_BUCKETS: Final = (*TIME_BUCKETS, *(float(4**power * 1024) for power in range(13)))
#: The buckets of times, and percents of a processor up to 64 of them.
PERCENT_BUCKETS: Final = (*TIME_BUCKETS, 25.0, 50.0, 75.0, *(100.0 * 2**power for power in range(7)))
_BUCKETS: Final = {"seconds": TIME_BUCKETS, "bytes": BYTE_BUCKETS, "percent": PERCENT_BUCKETS}


@dataclasses.dataclass(frozen=True, slots=True)
class Metric:
    """A metric and the unit of its values."""

    name: str
    kind: Kind
    unit: str

    @property
    def buckets(self) -> tuple[float, ...]:
        """The upper bounds of the buckets of a histogram."""
        return _BUCKETS.get(self.unit, TIME_BUCKETS)


#: Answers of calls, by the first digit of their status.
RESPONSES: Final = {first: f"hearth_responses_{first}xx" for first in (2, 3, 4, 5)}

#: Calls that the quotas of their apps refused, by quota.
QUOTA_REFUSALS: Final = {
    quota: f"hearth_quota_refusals_{quota}"
    for quota in (
        "memory_mib",
        "concurrent_calls",
        "waiting_calls",
        "calls_per_second",
        "queued_calls",
        "stored_bytes",
        "request_bytes",
    )
}

_STATES: Final = ("wait", "start", "idle", "busy")
_BY_KIND: Final[tuple[tuple[Kind, str, str], ...]] = (
    ("counter", "calls", "fn_calls fn_completed fn_failed fn_timeouts fn_errors fn_server_busy"),
    ("gauge", "calls", "fn_queued fn_running"),
    ("gauge", "containers", " ".join(f"fn_container_{state}_total" for state in (*_STATES, "done"))),
    ("histogram", "seconds", " ".join(f"fn_container_{state}_duration_seconds" for state in _STATES)),
    ("gauge", "containers", "hearth_containers_frozen"),
    ("gauge", "containers", "hearth_min_instances hearth_min_instances_unmet"),
    ("gauge", "slots", "hearth_slots_taken hearth_slots_free"),
    ("histogram", "bytes", "fn_docker_stats_fn_net_rx fn_docker_stats_fn_net_tx fn_docker_stats_fn_mem_limit"),
    ("histogram", "bytes", "fn_docker_stats_fn_mem_usage fn_docker_stats_fn_disk_read fn_docker_stats_fn_disk_write"),
    ("histogram", "percent", "fn_docker_stats_fn_cpu_user fn_docker_stats_fn_cpu_total fn_docker_stats_fn_cpu_kernel"),
    ("histogram", "bytes", "fn_s3_log_upload_size fn_s3_log_download_size"),
    ("counter", "calls", " ".join(RESPONSES.values())),
    ("counter", "calls", " ".join(QUOTA_REFUSALS.values())),
    ("counter", "calls", "hearth_schedule_calls hearth_schedule_skipped hearth_schedule_missed hearth_schedule_failed"),
    ("histogram", "seconds", "hearth_schedule_lateness_seconds"),
    ("counter", "connections", "hearth_connections_refused"),
    ("counter", "connections", "hearth_client_connections_refused hearth_client_heads_refused"),
    ("counter", "connections", "hearth_tls_handshakes_failed"),
    ("gauge", "seconds", "hearth_tls_certificate_expiry_timestamp_seconds"),
    ("gauge", "calls", "hearth_records_waiting hearth_runner_spooled"),
    ("counter", "calls", "hearth_records_lost hearth_runner_records_refused"),
    ("counter", "logs", "hearth_logs_lost"),
    ("counter", "bytes", "hearth_image_bytes_pulled"),
    ("gauge", "messages", "hearth_queue_length"),
    ("gauge", "seconds", "hearth_queue_oldest_age_seconds"),
    ("gauge", "calls", "hearth_dead_letters"),
    ("gauge", "seconds", "hearth_dead_letters_oldest_age_seconds"),
    ("counter", "lines", "hearth_log_lines_dropped hearth_syslog_lines_dropped"),
    ("gauge", "nodes", "hearth_functions_unsandboxed"),
)
METRICS: Final = {name: Metric(name, kind, unit) for kind, unit, names in _BY_KIND for name in names.split()}


def of_span(span: str) -> str:
    """Return the histogram of a span's durations."""
    return f"fn_span_{span}_duration_seconds"


#: The steps of each component that have a span.
_STEPS: Final = {
    "serve": "http",
    "server": "init",
    "agent": "submit submit_global submit_app get_slot wait_hot hot_launcher run_hot hot_exec launch_cold prep_cold"
    " cold_exec call_start call_end get_resource_token wait_async_resource async_dequeue async_run",
    "docker": "auth pull_image create_container attach_container start_container inspect_container wait_container"
    " remove_container collect_stats",
    "ds": "get_app get_apps insert_app update_app remove_app get_route get_routes_by_app insert_route update_route"
    " remove_route get_call get_calls insert_call update_call insert_log remove_calls get_log get_result insert_token"
    " get_token get_tokens update_token remove_token insert_audit get_audit remove_audit insert_secret get_secrets"
    " insert_fn get_fn get_fns update_fn remove_fn insert_trigger get_trigger get_trigger_by_source get_triggers"
    " update_trigger remove_trigger get_secret_values get_secret_keys get_secrets_of_key update_secret remove_secret"
    " insert_version get_versions get_version_images pin get_unpinned get_dead_letters update_dead_letter"
    " remove_dead_letters put_schedule get_schedule get_schedules remove_schedule get_schedules_due claim_firings"
    " settle_firings get_firings remove_firings claim_key get_keys update_key remove_keys"
    " get_ready_routes get_ready_fns",
    "schedules": "fire",
    "s3": "insert_log get_log list_logs",
    "mq": "push reserve delete",
    "hybrid_client": "get_app get_route get_fn get_trigger get_secrets get_token claim_key kept_ready enqueue dequeue"
    " start end http_do",
}
SPANS: Final = frozenset(f"{component}_{step}" for component, steps in _STEPS.items() for step in steps.split())
