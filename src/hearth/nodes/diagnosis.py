"""What works on this machine, and what a start would stumble over. Nothing that a running node uses is touched."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import os
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, Literal

import httpx
import sqlalchemy as sa

from hearth.clock import SystemClock
from hearth.drivers.base import DriverUnavailable
from hearth.drivers.docker.engine import Engine
from hearth.drivers.docker.tls import client_context
from hearth.drivers.process import cgroups, sandbox
from hearth.logstores.open import open_logstore
from hearth.models.errors import HearthError, StartUpError
from hearth.nodes.blame import DATABASE, LOG_STORE, QUEUE, blamed
from hearth.nodes.memory_probe import limit_holds
from hearth.nodes.ports import holder_of, listen
from hearth.queues.open import open_queue
from hearth.settings import API, RUNNER, Settings
from hearth.sql import schema
from hearth.sql.address import parse
from hearth.sql.engine import connect
from hearth.sql.failures import failures, told

Status = Literal["ok", "warn", "fail"]
_GIB: Final = 1 << 30
_LITTLE_DISK_BYTES: Final = _GIB
_NO_DISK_BYTES: Final = _GIB // 10
_SKEW_S: Final = 2.0
_API_LIMIT_S: Final = 5.0
_USER_NAMESPACES: Final = Path("/proc/sys/user/max_user_namespaces")
_OLDEST: Final = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
#: Queues that are files or memory of one node: nothing answers there.
_OWN_QUEUES: Final = ("bolt", "memory")


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        found: What is there, or what is wrong.
        advice: What to do; empty if it is well.
    """

    check: str
    status: Status
    found: str
    advice: str = ""


def ok(check: str, found: str) -> Finding:
    """It is well."""
    return Finding(check, "ok", found)


async def diagnose(settings: Settings) -> list[Finding]:
    """Look at everything that a node with these settings needs."""
    checks: list[tuple[str, Callable[[Settings], Awaitable[list[Finding]]]]] = [("disk", _disk), ("port", _port)]
    if settings.node_type == RUNNER:
        checks.append(("api node", _api_node))
    else:
        checks += [("database", _database), ("queue", _queue), ("log store", _logs)]
    if settings.node_type != API:
        checks.append(("driver", _drivers))
    checks.append(("clock", _clock))
    findings: list[Finding] = []
    for name, check in checks:
        try:
            findings += await check(settings)
        except (HearthError, OSError) as exc:
            found, _, advice = str(exc).partition("; ")
            findings.append(Finding(name, "fail", found, advice))
    return findings


async def _disk(settings: Settings) -> list[Finding]:
    folder = settings.data
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    found = f"{settings.data}: {free / _GIB:.1f} GiB free"
    if not os.access(folder, os.W_OK):
        return [Finding("disk", "fail", f"{folder} cannot be written to", "set FN_DATA_DIR to another folder")]
    if free < _NO_DISK_BYTES:
        return [Finding("disk", "fail", found, "make room")]
    if free < _LITTLE_DISK_BYTES:
        return [Finding("disk", "warn", found, "make room, before databases and logs fill it")]
    return [ok("disk", found)]


async def _port(settings: Settings) -> list[Finding]:
    try:
        listen(settings.bind, settings.port).close()
    except StartUpError as exc:
        if "(hearth)" not in str(exc):
            raise
        return [ok("port", f"{settings.port}: held by {holder_of(settings.port)}, which serves already")]
    return [ok("port", f"{settings.port} is free")]


async def _database(settings: Settings) -> list[Finding]:
    with blamed(*DATABASE, settings.database):
        address = parse(settings.database)
    if address.path is not None and not address.path.exists():
        return [ok("database", f"{address.shown}: will be made")]
    with blamed(*DATABASE, settings.database):
        engine = await connect(address, wait_s=0)
    try:
        async with engine.connect() as connection:
            version = await connection.run_sync(schema.look, address.shown)
            skew = await _skew(connection, address.dialect)
    except failures() as exc:
        return [Finding("database", "fail", f"{address.shown}: {told(exc)}", DATABASE[1])]
    finally:
        await engine.dispose()
    found = [ok("database", f"{address.shown}: {version}{'' if version.current else ', a start migrates it'}")]
    if skew is not None and abs(skew) > _SKEW_S:
        found.append(Finding("clock", "warn", f"differs from the database's by {skew:.1f} s", "set both by NTP"))
    return found


async def _skew(connection: Any, dialect: str) -> float | None:
    """Seconds by which the server's clock is ahead of ours; a file has none."""
    if dialect == "sqlite":
        return None
    theirs = await connection.scalar(sa.text("SELECT UTC_TIMESTAMP(6)" if dialect == "mysql" else "SELECT now()"))
    aware = theirs if theirs.tzinfo else theirs.replace(tzinfo=dt.UTC)
    return float((aware - SystemClock().now()).total_seconds())


async def _queue(settings: Settings) -> list[Finding]:
    scheme, _, place = settings.queue.partition("://")
    if scheme in _OWN_QUEUES:
        return [ok("queue", f"{scheme}, of this node alone{f': {place}' if place else ''}")]
    with blamed(*QUEUE):
        queue = await open_queue(settings.queue, SystemClock())
    try:
        await queue.settle([])
    finally:
        await queue.close()
    return [ok("queue", f"{scheme}: it answers")]


async def _logs(settings: Settings) -> list[Finding]:
    if not settings.logstore_url:
        return [ok("log store", "with the records, in the database")]
    with blamed(*LOG_STORE, settings.logstore_url):
        store = await open_logstore(settings.logstore_url, wait_s=0)
    await store.close()
    return [ok("log store", f"{settings.logstore_url.partition('://')[0]}: it answers")]


async def _api_node(settings: Settings) -> list[Finding]:
    url = settings.runner_api_url
    try:
        async with httpx.AsyncClient(timeout=_API_LIMIT_S) as client:
            answer = await client.get(f"{url if '://' in url else f'http://{url}'}/version")
        answer.raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL) as exc:
        return [Finding("api node", "fail", f"{url or 'none'}: {exc}", "set FN_RUNNER_API_URL, and start that node")]
    return [ok("api node", f"{url}: it answers")]


# -- what runs functions --------------------------------------------------------------------------------------------


async def _drivers(settings: Settings) -> list[Finding]:
    docker: list[Finding] = [] if settings.driver == "process" else [await _docker(settings)]
    docker_works = any(finding.status == "ok" for finding in docker)
    return [*docker, *await asyncio.to_thread(_processes, settings.driver == "docker" or docker_works)]


async def _docker(settings: Settings) -> Finding:
    tls = client_context(settings.docker_cert_path.expanduser()) if settings.docker_tls else None
    engine = Engine(settings.docker_host, SystemClock(), tls=tls, api_version=settings.docker_api_version)
    try:
        await engine.ping()
        version = await engine.docker.version()
    except DriverUnavailable as exc:
        if settings.driver == "docker":
            return Finding("docker", "fail", str(exc), "start Docker, correct DOCKER_HOST, or set FN_DRIVER=process")
        return Finding("docker", "warn", str(exc), "functions will run as processes; start Docker to run images")
    finally:
        await engine.close()
    return ok("docker", f"Engine {version.get('Version')}, API {version.get('ApiVersion')} at {settings.docker_host}")


def _processes(spare: bool) -> list[Finding]:
    """What functions as processes have here. Where Docker runs them, that is of less weight."""
    if not hasattr(os, "pidfd_open"):
        status: Status = "warn" if spare else "fail"
        return [Finding("process", status, "Linux 5.3 or later is needed", "renew the kernel, or use Docker")]
    return [ok("process", "functions can run as processes"), _sandbox(), _memory_limits()]


def _sandbox() -> Finding:
    if (program := sandbox.find()) is not None:
        return ok("sandbox", f"{program}, with namespaces of users")
    if shutil.which("bwrap") is None:
        return Finding("sandbox", "warn", "bubblewrap is not installed", "install bubblewrap (bwrap)")
    try:
        allowed = int(_USER_NAMESPACES.read_text())
    except (OSError, ValueError):
        allowed = 0
    found = "bubblewrap does not work here" if allowed else "namespaces of users are switched off"
    return Finding("sandbox", "warn", found, "allow unprivileged user namespaces (sysctl user.max_user_namespaces)")


def _memory_limits() -> Finding:
    groups = cgroups.find("doctor")
    if groups is None:
        advice = "delegate a control group to Hearth; until then only address space is limited"
        return Finding("memory limit", "warn", "no control group can be made", advice)
    try:
        if limit_holds(groups):
            return ok("memory limit", f"control groups version {groups.version}: a process above its limit is ended")
        advice = "see that the memory controller is on"
        return Finding("memory limit", "warn", f"control groups version {groups.version} do not hold", advice)
    finally:
        groups.close()


async def _clock(settings: Settings) -> list[Finding]:
    now = SystemClock().now()
    if now < _OLDEST:
        return [Finding("clock", "fail", f"it is {now:%Y-%m-%d %H:%M} here", "set the clock, by NTP if possible")]
    return [ok("clock", f"{now:%Y-%m-%d %H:%M:%S} UTC")]
