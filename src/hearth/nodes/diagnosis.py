"""Check what works on this machine, and what would stop a node from starting, without touching a running node."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import os
import shutil
import stat
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, Literal

import httpx
import sqlalchemy as sa

from hearth.aio.clock import SystemClock
from hearth.authorize import admin_token
from hearth.drivers.base import DriverUnavailable
from hearth.drivers.docker import init, missing_limits, networks
from hearth.drivers.local.driver import counts_in_namespaces
from hearth.drivers.local.network.apps import AppNetworks
from hearth.drivers.local.network.namespace import PACKAGES, NetworkFailed
from hearth.drivers.local.surroundings import Surroundings
from hearth.host import cgroups
from hearth.models.errors import HearthError, IssuerUnavailable, StartUpError
from hearth.models.function_network import FunctionNetwork
from hearth.models.principal import AuthMode
from hearth.nodes.docker import docker_engine
from hearth.nodes.driver_choice import Choice, choose
from hearth.nodes.drivers import process_walls
from hearth.nodes.memory_probe import limit_holds
from hearth.nodes.oidc import issuer_keys
from hearth.nodes.ports import holder_of, listen
from hearth.nodes.startup_errors import DATABASE, LOG_STORE, QUEUE, named_errors
from hearth.nodes.stores import keyring
from hearth.nodes.tls import client_tls, expiry_warning, tls_files
from hearth.queues.open import open_queue
from hearth.settings import API, RUNNER, DriverName, Settings
from hearth.sql import schema
from hearth.sql.address import parse
from hearth.sql.engine import connect
from hearth.sql.errors import failures, reason
from hearth.sql.schema.tables import secrets as secrets_table
from hearth.stores.logs.open import open_logstore
from hearth.stores.secrets.keyring import KeyUnusable, check_keys

Status = Literal["ok", "warn", "fail"]
_GIB: Final = 1 << 30
_LITTLE_DISK_BYTES: Final = _GIB
_NO_DISK_BYTES: Final = _GIB // 10
_SKEW_S: Final = 2.0
_API_LIMIT_S: Final = 5.0
_OLDEST: Final = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
#: Queues that are files or memory of one node: nothing answers there.
_OWN_QUEUES: Final = ("bolt", "memory")


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Attributes:
        found: What exists, or what is wrong.
        advice: What to do; empty if nothing is wrong.
    """

    check: str
    status: Status
    found: str
    advice: str = ""


def ok(check: str, found: str) -> Finding:
    """Return the finding that nothing is wrong."""
    return Finding(check, "ok", found)


async def diagnose(settings: Settings) -> list[Finding]:
    """Check everything that a node with these settings needs."""
    checks: list[tuple[str, Callable[[Settings], Awaitable[list[Finding]]]]] = [
        ("access", _access),
        ("disk", _disk),
        ("port", _port),
        ("tls", _tls),
        ("oidc", _oidc),
    ]
    if settings.node_type == RUNNER:
        checks.append(("api node", _api_node))
    else:
        checks += [("database", _database), ("secrets", _secrets), ("queue", _queue), ("log store", _logs)]
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


async def _access(settings: Settings) -> list[Finding]:
    path = settings.data / admin_token.FILE
    if not settings.admin_token.get_secret_value() and path.exists():
        admin_token.read(path, os.geteuid())
    found = f"FN_AUTH={settings.auth}, listening on {settings.address}"
    if settings.admin_bind:
        found += f", the API on {settings.admin_bind}"
    if settings.auth is AuthMode.OFF:
        advice = "set FN_AUTH=required, unless a network of its own or an extension protects it"
        return [Finding("access", "warn", f"{found}: everybody who reaches this node controls it", advice)]
    return [ok("access", found)]


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
    found = [_free(settings.address, settings.port, "FN_BIND")]
    if isinstance(place := settings.admin_place, tuple):
        found.append(_free(*place, "FN_ADMIN_BIND"))
    return found


def _free(address: str, port: int, setting: str) -> Finding:
    try:
        listen(address, port, of=setting).close()
    except StartUpError as exc:
        if "(hearth)" not in str(exc):
            raise
        return ok("port", f"{port}: held by {holder_of(port)}, which serves already")
    return ok("port", f"{port} is free")


async def _tls(settings: Settings) -> list[Finding]:
    files = tls_files(settings)
    if files is None:
        return []
    try:
        loaded = await asyncio.to_thread(files.load)
    except ValueError as exc:
        return [Finding("tls", "fail", str(exc), "set FN_TLS_CERT and FN_TLS_KEY to files of this node")]
    if stat.S_IMODE(files.key.stat().st_mode) & stat.S_IROTH:
        return [Finding("tls", "warn", f"{files.key}: every user of this machine can read it", "chmod 600 the file")]
    if warning := expiry_warning(loaded.validity, SystemClock().now()):
        return [Finding("tls", "warn", warning, f"renew {files.cert}; a running node reads the new one")]
    return [ok("tls", f"{files.cert}: valid until {loaded.validity.not_after:%Y-%m-%d %H:%M} UTC")]


async def _oidc(settings: Settings) -> list[Finding]:
    if not settings.oidc_issuer:
        return []
    async with await issuer_keys(settings, SystemClock()) as keys:
        try:
            await keys.check()
        except IssuerUnavailable as exc:
            advice = "until it answers, its tokens are refused; see that FN_OIDC_ISSUER is spelled as it spells itself"
            return [Finding("oidc", "warn", f"{settings.oidc_issuer}: {exc.__cause__ or exc}", advice)]
    return [ok("oidc", f"{settings.oidc_issuer}: it publishes its keys")]


async def _database(settings: Settings) -> list[Finding]:
    with named_errors(*DATABASE, settings.database):
        address = parse(settings.database)
    if address.path is not None and not address.path.exists():
        return [ok("database", f"{address.shown}: will be made")]
    with named_errors(*DATABASE, settings.database):
        engine = await connect(address, wait_s=0)
    try:
        async with engine.connect() as connection:
            version = await connection.run_sync(schema.look, address.shown)
            skew = await _skew(connection, address.dialect)
    except failures() as exc:
        return [Finding("database", "fail", f"{address.shown}: {reason(exc)}", DATABASE[1])]
    finally:
        await engine.dispose()
    found = [ok("database", f"{address.shown}: {version}{'' if version.current else ', a start migrates it'}")]
    if skew is not None and abs(skew) > _SKEW_S:
        found.append(Finding("clock", "warn", f"differs from the database's by {skew:.1f} s", "set both by NTP"))
    return found


async def _secrets(settings: Settings) -> list[Finding]:
    """Check that the keys of this node decrypt the stored secrets."""
    check_keys(settings.secret_key.get_secret_value())
    with named_errors(*DATABASE, settings.database):
        address = parse(settings.database)
    used = {} if address.path is not None and not address.path.exists() else await _used_keys(settings)
    if not used:
        return [ok("secrets", "none is stored")]
    advice = "restore the key from a backup, or run hearth secrets rotate-key and store these secrets again"
    try:
        known = {key.id for key in await asyncio.to_thread(keyring(settings).load)}
    except KeyUnusable as exc:
        found, _, hint = str(exc).partition("; ")
        return [Finding("secrets", "warn", found, hint or advice)]
    amount = sum(used.values())
    if missing := sorted(used.keys() - known):
        lost = sum(used[key_id] for key_id in missing)
        found = f"{lost} of {amount} need the key {', '.join(missing)}, which is not in {keyring(settings).place}"
        return [Finding("secrets", "warn", found, advice)]
    return [ok("secrets", f"{amount}, with the keys of {keyring(settings).place}")]


async def _used_keys(settings: Settings) -> dict[str, int]:
    """Count the stored secrets of each key; none where the table does not exist yet."""
    with named_errors(*DATABASE, settings.database):
        engine = await connect(parse(settings.database), wait_s=0)
    table = secrets_table
    query = sa.select(table.c.key_id, sa.func.count()).group_by(table.c.key_id)
    try:
        async with engine.connect() as connection:
            if not await connection.run_sync(lambda sync: sa.inspect(sync).has_table(table.name)):
                return {}
            return {row[0]: int(row[1]) for row in await connection.execute(query)}
    finally:
        await engine.dispose()


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
    with named_errors(*QUEUE):
        queue = await open_queue(settings.queue, SystemClock())
    try:
        await queue.acknowledge([])
    finally:
        await queue.close()
    return [ok("queue", f"{scheme}: it answers")]


async def _logs(settings: Settings) -> list[Finding]:
    if not settings.logstore_url:
        return [ok("log store", "with the records, in the database")]
    with named_errors(*LOG_STORE, settings.logstore_url):
        store = await open_logstore(settings.logstore_url, wait_s=0)
    await store.close()
    return [ok("log store", f"{settings.logstore_url.partition('://')[0]}: it answers")]


async def _api_node(settings: Settings) -> list[Finding]:
    url = settings.runner_api_url
    try:
        tls = await asyncio.to_thread(client_tls, settings)
        path = url.removeprefix("unix:") if url.startswith("unix:/") else None
        base = "http://localhost" if path else url if "://" in url else f"http://{url}"
        transport = httpx.AsyncHTTPTransport(verify=tls, uds=path)
        async with httpx.AsyncClient(timeout=_API_LIMIT_S, transport=transport) as client:
            answer = await client.get(f"{base}/version")
        answer.raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL) as exc:
        return [Finding("api node", "fail", f"{url or 'none'}: {exc}", "set FN_RUNNER_API_URL, and start that node")]
    return [ok("api node", f"{url}: it answers")]


# -- what runs functions --------------------------------------------------------------------------------------------


async def _drivers(settings: Settings) -> list[Finding]:
    choice = await asyncio.to_thread(choose, settings)
    docker = [] if choice.name == "process" else await _docker(settings, choice)
    name = choice.name or ("docker" if docker[0].status == "ok" else "process")
    processes = await asyncio.to_thread(_processes, settings, name == "docker")
    if name == "process":
        processes.append(await _function_network(settings, is_sandboxed=_is_ok(processes, "sandbox")))
    return [_chosen(choice, name), *docker, *processes]


def _is_ok(findings: list[Finding], check: str) -> bool:
    """Return whether a check was made and found nothing wrong."""
    return any(finding.check == check and finding.status == "ok" for finding in findings)


async def _function_network(settings: Settings, *, is_sandboxed: bool) -> Finding:
    """Try out whether functions can be given a network of their own."""
    wanted = settings.function_network
    if not is_sandboxed:
        found = "without a sandbox functions use the network of the machine"
        return Finding("function network", "warn", found, "set up the sandbox")
    if wanted not in (None, FunctionNetwork.INTERNET):
        return ok("function network", f"FN_FUNCTION_NETWORK={wanted}")
    networks = AppNetworks(settings.function_networks_allowed, SystemClock())
    try:
        await networks.open()
    except NetworkFailed as exc:
        found, _, advice = str(exc).partition("; ")
        advice = (
            f"{advice or f'install {PACKAGES}, and see that /dev/net/tun can be opened'}, or set FN_FUNCTION_NETWORK"
        )
        if wanted is not None:
            return Finding("function network", "fail", found, advice)
        used = process_walls(settings).network_without_tools
        return Finding("function network", "warn", f"FN_FUNCTION_NETWORK={used} is used: {found}", advice)
    finally:
        await networks.close()
    return ok("function network", "internet, without private addresses and those of this machine")


def _chosen(choice: Choice, name: DriverName) -> Finding:
    """Say which driver a start takes, and why."""
    if choice.is_change:
        found = f"{name}: {choice.reason}, but functions here were deployed for {choice.remembered}"
        return Finding("driver", "warn", found, "deploy them again, or unset FN_DRIVER")
    if choice.name is None:
        engine = "an Engine answers" if name == "docker" else "no Engine answers"
        return ok("driver", f"{name}: {choice.reason}; {engine}")
    return ok("driver", f"{name}: {choice.reason}")


async def _docker(settings: Settings, choice: Choice) -> list[Finding]:
    engine = docker_engine(settings)
    try:
        version = await engine.ping()
        is_own = not settings.docker_networks and settings.function_network in (None, FunctionNetwork.INTERNET)
        network = await networks.diagnose(engine, settings.function_networks_allowed) if is_own else None
        unlimited = await missing_limits.look(engine, max_pids=settings.max_pids)
    except DriverUnavailable as exc:
        if choice.name == "docker":
            advice = "start Docker, correct DOCKER_HOST, or set FN_DRIVER=process"
            return [Finding("docker", "fail", str(exc), advice)]
        return [Finding("docker", "warn", str(exc), "functions will run as processes; start Docker to run images")]
    finally:
        await engine.close()
    shown = f"Engine {version.get('Version')}, API {version.get('ApiVersion')} at {settings.docker_host}"
    found = [ok("docker", shown)]
    if init.is_missing(version):
        found.append(Finding("docker init", "warn", init.MISSING, "install tini (docker-init) on the Engine's machine"))
    if network is not None:
        found.append(Finding("docker network", "warn", *network))
    advice = "switch the control group on (boot options of the Engine's machine), or use another Engine"
    found += [Finding("docker limit", "warn", sentence, advice) for sentence in unlimited]
    return found


def _processes(settings: Settings, spare: bool) -> list[Finding]:
    """Check what functions as processes need. With Docker as the driver, failures are warnings."""
    if not hasattr(os, "pidfd_open"):
        status: Status = "warn" if spare else "fail"
        return [Finding("process", status, "Linux 5.3 or later is needed", "renew the kernel, or use Docker")]
    sandbox = _sandbox(settings, spare)
    limits = _limits(settings, is_sandboxed=sandbox.status == "ok")
    return [ok("process", "functions can run as processes"), sandbox, *limits, *_freezer(settings)]


def _sandbox(settings: Settings, spare: bool) -> Finding:
    """Try the sandbox out in a folder of its own: a running node's is left alone."""
    if settings.sandbox == "off":
        return Finding("sandbox", "warn", "FN_SANDBOX=off: functions run without walls", "unset it")
    with tempfile.TemporaryDirectory(prefix="hearth-doctor-") as folder:
        surroundings = Surroundings(Path(folder, "bundles"), "doctor", process_walls(settings))
        try:
            surroundings.set_up(counts_memory=True)
        except DriverUnavailable as exc:
            found, _, advice = str(exc).partition("; ")
            return Finding("sandbox", "warn" if spare else "fail", found, advice)
        finally:
            surroundings.close()
    if surroundings.sandbox is None:
        found, _, advice = surroundings.missing.partition("; ")
        return Finding("sandbox", "warn", f"functions run without walls: {found}", advice)
    if why := surroundings.overlays.missing:
        advice = "renew the kernel, or set FN_READONLY_ROOTFS"
        return Finding("sandbox", "warn", f"works, but root file systems of images are read-only: {why}", advice)
    return ok("sandbox", f"{surroundings.sandbox.program}, with user namespaces")


def _limits(settings: Settings, *, is_sandboxed: bool) -> list[Finding]:
    groups = cgroups.find("doctor")
    try:
        return [_memory_limit(groups), _cpu_limit(groups), _process_limit(groups, settings.max_pids, is_sandboxed)]
    finally:
        if groups is not None:
            groups.close()


def _memory_limit(groups: cgroups.Groups | None) -> Finding:
    if groups is None:
        advice = "delegate a control group to Hearth; until then only address space is limited"
        return Finding("memory limit", "warn", "no control group can be made", advice)
    if limit_holds(groups):
        return ok("memory limit", f"control groups version {groups.version}: a process above its limit is ended")
    advice = "see that the memory controller is on"
    return Finding("memory limit", "warn", f"control groups version {groups.version} do not hold", advice)


def _cpu_limit(groups: cgroups.Groups | None) -> Finding:
    if groups is not None and groups.limits_cpu:
        return ok("cpu limit", f"control groups version {groups.version}: cpus is a quota")
    advice = "delegate the cpu controller to Hearth; until then it refuses routes with cpus"
    return Finding("cpu limit", "warn", "no cpu control group can be made", advice)


def _process_limit(groups: cgroups.Groups | None, max_pids: int, is_sandboxed: bool) -> Finding:
    if not max_pids:
        return ok("process limit", "FN_MAX_PIDS=0: none")
    if groups is not None and groups.limits_pids:
        return ok("process limit", f"control groups version {groups.version}: FN_MAX_PIDS={max_pids}")
    if is_sandboxed and counts_in_namespaces():
        return ok("process limit", f"by the sandbox: FN_MAX_PIDS={max_pids}")
    advice = "delegate the pids controller to Hearth; until then functions may start any number of processes"
    return Finding("process limit", "warn", "no pids control group can be made", advice)


def _freezer(settings: Settings) -> list[Finding]:
    """Check that functions as processes can be frozen, if they are to be."""
    if settings.freeze_idle_msecs < 0:
        return []
    groups = cgroups.find("doctor", freezes=True)
    try:
        if groups is not None and groups.freezes:
            return [ok("freezer", f"control groups version {groups.version} freeze idle functions")]
    finally:
        if groups is not None:
            groups.close()
    advice = "delegate a control group with a freezer to Hearth, or unset FN_FREEZE_IDLE_MSECS"
    return [Finding("freezer", "warn", "no control group can freeze idle functions", advice)]


async def _clock(settings: Settings) -> list[Finding]:
    now = SystemClock().now()
    if now < _OLDEST:
        return [Finding("clock", "fail", f"it is {now:%Y-%m-%d %H:%M} here", "set the clock, by NTP if possible")]
    return [ok("clock", f"{now:%Y-%m-%d %H:%M:%S} UTC")]
