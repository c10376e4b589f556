"""Warm calls: how many, how long, at which cost, from 1 to 512 connections."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
from tests.support.docker_images import python_image
from tests.support.node import MULTI, RunningNode, build_multi, running_node

from bench.figures import Figures
from bench.limits import limit
from bench.load import load, memory_mib
from bench.release import Release

#: The loop and the pipes with nothing around them: as many processes of the function as are of use.
_PROXY = ("proxy", "8", str(MULTI))


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """A server under load."""

    name: str
    url: str
    pid: int | None
    node: RunningNode | None = None


def warm(
    figures: Figures,
    *,
    connections: Sequence[int],
    rounds: int,
    seconds: float,
    drivers: Sequence[str],
    formats: Sequence[str] = ("http", "json", "http-stream"),
    reference: str = "",
    release: Release | None = None,
) -> None:
    """Load each target in turn, round after round.

    Args:
        figures: Takes the samples.
        connections: The loads.
        rounds: How often each target gets each load.
        seconds: How long each load lasts.
        drivers: A node of each.
        formats: A route of each on each node.
        reference: The URL of a route of another platform.
        release: Another commit of Hearth, which is installed; its node runs functions as processes.
    """
    with contextlib.ExitStack() as stack:
        targets = list(_targets(stack, drivers, formats, reference, release))
        for target in targets:
            load(target.url, target.pid, connections=8, seconds=1)
        for _ in range(rounds):
            for count in connections:
                for target in targets:
                    _measure(figures, target, count, seconds)
        for target in targets:
            if target.pid is not None:
                figures.add("after the load", target.name, "MiB", memory_mib(target.pid))


def _targets(
    stack: contextlib.ExitStack,
    drivers: Sequence[str],
    formats: Sequence[str],
    reference: str,
    release: Release | None,
) -> Iterator[Target]:
    yield Target("raw ASGI", *stack.enter_context(limit("raw")))
    yield Target("proxy", *stack.enter_context(limit(*_PROXY)))
    for driver in drivers:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        image = python_image(MULTI) if driver == "docker" else build_multi(data, data / "source")
        node = stack.enter_context(running_node(driver, data, image))
        for name in formats:
            url = node.url + node.route(name, name, memory=64)
            yield Target(f"{driver} {name}", url, node.process.pid, node)
    if release:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        node = stack.enter_context(running_node("process", data, release.build(data), [release.hearth, "start"]))
        yield Target(release.name, node.url + node.route("http", "http", memory=64), node.process.pid, node)
    if reference:
        yield Target("reference", reference, None)


def _measure(figures: Figures, target: Target, count: int, seconds: float) -> None:
    before = _starts(target)
    done = load(target.url, target.pid, connections=count, seconds=seconds)
    if done.errors or not done.requests:
        raise SystemExit(f"bench: {target.name} over {count}: {done.errors} of {done.requests} requests failed")
    figures.add("warm", target.name, "requests/s", done.rate, at=count, against="proxy")
    figures.add("warm", target.name, "ms p50", done.p50_ms, at=count)
    figures.add("warm", target.name, "ms p99", done.p99_ms, at=count)
    if target.pid is not None:
        figures.add("warm", target.name, "us CPU each", done.cpu_us, at=count)
    if target.node is not None:
        started = (_starts(target) - before) * 1000 / done.requests
        figures.add("warm", target.name, "starts per 1,000", started, at=count)


def _starts(target: Target) -> float:
    """Containers started so far."""
    if target.node is None:
        return 0.0
    text = httpx.get(f"{target.node.url}/metrics").text
    found = re.findall(r"^fn_container_start_duration_seconds_count\{[^}]*\} (\S+)$", text, re.MULTILINE)
    return sum(map(float, found))
