"""A function, ready to be called: what is computed once for all its calls and containers."""

from __future__ import annotations

import datetime as dt

from hearth.agent.cap import ContainerCap
from hearth.agent.meters import ContainerSeries
from hearth.agent.shares import Share
from hearth.agent.stats import CallStats
from hearth.contracts import contract_for
from hearth.contracts.base import Contract
from hearth.contracts.formats import USUAL, Terms
from hearth.models.call import Call
from hearth.models.function import FunctionRef, FunctionSpec
from hearth.models.times import ZERO
from hearth.telemetry.node import Telemetry
from hearth.telemetry.tracing import Relation, Step, Tracing


class FunctionSpans:
    """The spans of a function's calls and containers."""

    __slots__ = ("cold_exec", "cold_slot", "end", "hot_exec", "hot_slot", "prepare_cold", "reserve", "start", "submit")

    def __init__(self, tracing: Tracing, ref: FunctionRef) -> None:
        app, name = ref.labels
        steps = tracing.steps
        self.submit = steps(
            Step("agent_submit", app, name),
            Step("agent_submit_global", relation=Relation.ROOT, is_present=False),
            Step("agent_submit_app", app, relation=Relation.ROOT, is_present=False),
        )
        self.hot_slot = steps(Step("agent_get_slot", app, name), Step("agent_wait_hot", app, name))
        self.cold_slot = steps(Step("agent_get_slot", app, name), Step("agent_launch_cold", app, name))
        self.start = steps(Step("agent_call_start", app, name))
        self.hot_exec = steps(Step("agent_hot_exec", app, name))
        self.cold_exec = steps(Step("agent_cold_exec", app, name))
        self.end = steps(Step("agent_call_end", app, name))
        self.reserve = steps(Step("agent_get_resource_token", app, name))
        self.prepare_cold = steps(Step("agent_prep_cold", app, name))


class Function:
    """A function, ready to be called.

    Attributes:
        contract: Makes the exchanges of its calls.
        key: Names the slot queue: the hot key of its spec.
        spans: The spans of its calls and containers.
        stats: Counts its calls.
        share: The share of its app.
        cap: The places of its containers; all its versions share them.
        containers: The metrics of its containers.
        timeout: The time of a call.
        times_run: The timeout of its calls begins with their run; else it includes their wait for a container.
        log_fields: The fields of log lines about its containers.
        record: The record of a call, less what is of one call only.
    """

    __slots__ = (
        "cap",
        "containers",
        "contract",
        "key",
        "log_fields",
        "record",
        "ref",
        "share",
        "spans",
        "spec",
        "stats",
        "timeout",
        "times_run",
    )

    def __init__(
        self,
        spec: FunctionSpec,
        stats: CallStats,
        telemetry: Telemetry,
        share: Share,
        cap: ContainerCap,
        terms: Terms = USUAL,
    ) -> None:
        self.spec = spec
        self.ref = spec.ref
        self.key = spec.hot_key
        self.timeout = dt.timedelta(seconds=spec.timeout_s)
        self.times_run = spec.ref.is_fn
        self.contract: Contract = contract_for(spec.contract, terms)
        self.spans = FunctionSpans(telemetry.tracing, spec.ref)
        self.stats = stats.of(spec.ref)
        self.share = share
        self.cap = cap
        self.containers = ContainerSeries(telemetry.metrics, spec.ref)
        self.record = Call.of(spec, "", ZERO, method="", url="", headers={})
        self.log_fields = {"app_name": spec.ref.app_name, "path": spec.ref.name, "image": spec.image}

    def __repr__(self) -> str:
        return f"<Function {self.ref} {self.spec.image} {self.spec.contract}>"
