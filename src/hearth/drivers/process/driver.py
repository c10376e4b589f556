"""Bundles as child processes: the embedded driver that needs no daemon (drivers specification 3)."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import sys
from pathlib import Path
from typing import Final

from hearth.clock import Clock, SystemClock
from hearth.drivers.base import (
    Capabilities,
    Container,
    ContainerSpec,
    Driver,
    DriverUnavailable,
    ImageNotFound,
    OutOfTime,
    PhaseLimits,
    StartFailed,
)
from hearth.drivers.process import bundle, cgroups, keyrings, launch, programs, sandbox
from hearth.drivers.process.container import ProcessContainer
from hearth.telemetry.logs import get_logger

_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_BASE_ENV: Final = {"PATH": _PATH, "HOME": "/tmp", "TMPDIR": "/tmp", "LANG": "C.UTF-8"}
#: Address space that a program maps without using it: interpreters, libraries.
_SPACE_MARGIN_MIB: Final = 256
#: Threads and processes of one function together.
_MAX_PIDS: Final = 50
#: The sandbox's own two processes.
_SANDBOX_PIDS: Final = 2
_OPEN_FILES: Final = 1024

_log = get_logger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class _Plan:
    """What was read from the disk about one container to be."""

    found: bundle.Bundle
    env: dict[str, str]
    fault: str | None


@dataclasses.dataclass(frozen=True, slots=True)
class _Origin:
    """What a container runs: its image, the digest of its bundle, a descriptor that keeps that from being removed."""

    image: str
    content: str
    held: int


class ProcessDriver(Driver):
    """Runs bundles.

    Args:
        bundles: The folder of bundles.
        node: Names this node among those of the machine.
        sandboxed: False leaves bubblewrap out even where it works.
        limits: Of each phase of a container's life.
        clock: Times samples and limits.
    """

    name = "process"

    def __init__(
        self,
        bundles: Path,
        node: str,
        *,
        sandboxed: bool = True,
        limits: PhaseLimits | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._bundles = bundles
        self._node = node
        self._want_sandbox = sandboxed
        self._limits = limits or PhaseLimits()
        self._clock = clock or SystemClock()
        self._bwrap: str | None = None
        self._filter: int | None = None
        self._groups: cgroups.Groups | None = None
        self._inherited: list[int] = []
        self._alive: set[ProcessContainer] = set()
        self._origins: dict[str, _Origin] = {}
        self.capabilities = self._capabilities()

    def __repr__(self) -> str:
        return f"<ProcessDriver alive={len(self._alive)} sandbox={self._bwrap is not None}>"

    async def open(self) -> None:
        """Find out what works here, remove what an earlier run left, warn where functions are not walled in."""
        if not hasattr(os, "pidfd_open"):
            raise DriverUnavailable(f"functions as processes need Linux 5.3 or later, not {sys.platform}")
        if self._want_sandbox:
            self._filter = keyrings.open_filter() if self._filter is None else self._filter
            self._bwrap = await asyncio.to_thread(sandbox.find)
        self._groups = await asyncio.to_thread(cgroups.find, self._node)
        self._inherited = await asyncio.to_thread(launch.inherited)
        self.capabilities = self._capabilities()
        await self._remove_leftovers()
        self._warn()

    async def close(self) -> None:
        """Give the node's control groups back."""
        for container in list(self._alive):
            await container.give_up()
            self._forget(container)
        if self._filter is not None:
            os.close(self._filter)
            self._filter = None
        if self._groups is not None:
            await asyncio.to_thread(self._groups.close)

    async def prepare(self, spec: ContainerSpec) -> Container:
        """Find the bundle and set up what its process will need."""
        try:
            async with asyncio.timeout(self._limits.create_s):
                plan, held = await self._held(spec)
        except TimeoutError as exc:
            raise OutOfTime("create", self._limits.create_s) from exc
        try:
            group = self._group(spec)
        except BaseException:
            os.close(held)
            raise
        command = self._command(plan, spec, group)
        self._origins[spec.id] = _Origin(spec.image, plan.found.manifest.content, held)
        container = ProcessContainer(
            spec.id,
            command,
            plan.fault,
            group,
            spec.memory_mib,
            self._clock,
            self._limits,
            self._forget,
        )
        self._alive.add(container)
        return container

    async def is_stale(self, container: Container) -> bool:
        """Compare the digest of what it runs with that of what lies there now."""
        origin = self._origins.get(container.id)
        if origin is None:
            return False
        folder = bundle.locate(self._bundles, origin.image)
        found = None if folder is None else await asyncio.to_thread(bundle.load, folder)
        return found is not None and found.manifest.content != origin.content

    def _forget(self, container: ProcessContainer) -> None:
        self._alive.discard(container)
        if (origin := self._origins.pop(container.id, None)) is not None:
            os.close(origin.held)

    async def _held(self, spec: ContainerSpec) -> tuple[_Plan, int]:
        """What is to run, and what keeps it from being removed when it is built anew."""
        while True:
            plan = await asyncio.to_thread(self._plan, spec)
            if plan is None:
                _log.info("no such bundle", image=spec.image, bundles=str(self._bundles))
                raise ImageNotFound(spec.image, "no such bundle")
            if (held := plan.found.hold()) is not None:
                return plan, held

    async def _remove_leftovers(self) -> None:
        left = [] if self._groups is None else await asyncio.to_thread(self._groups.leftovers)
        if not left:
            return
        _log.info("removing processes of an earlier run", containers=len(left))
        try:
            async with asyncio.timeout(self._limits.remove_s):
                for group in left:
                    await group.clear(self._clock)
        except TimeoutError:
            _log.error("processes of an earlier run cannot be removed", group=repr(group))

    def _plan(self, spec: ContainerSpec) -> _Plan | None:
        """Read what is to run. Blocks: for a thread."""
        folder = bundle.locate(self._bundles, spec.image)
        found = None if folder is None else bundle.load(folder)
        if found is None:
            return None
        manifest = found.manifest
        env = {**_BASE_ENV, **manifest.env, **spec.env}
        missing = [root for root in manifest.roots if not Path(root).exists()]
        if missing:
            return _Plan(found, env, f"{missing[0]}: no such file or directory; build the bundle again")
        visible = None if self._bwrap is None else [*sandbox.SYSTEM, *manifest.roots, str(found.folder)]
        return _Plan(found, env, programs.find_fault(manifest.cmd, found.files, env["PATH"], visible))

    def _group(self, spec: ContainerSpec) -> cgroups.Group | None:
        if self._groups is None:
            return None
        pids = _MAX_PIDS if self._bwrap is None else _MAX_PIDS + _SANDBOX_PIDS
        try:
            return self._groups.make(spec.id, spec.memory_mib, pids)
        except OSError as exc:
            raise StartFailed(f"control group: {exc}") from exc

    def _command(self, plan: _Plan, spec: ContainerSpec, group: cgroups.Group | None) -> launch.Command:
        bwrap, files = self._bwrap, plan.found.files
        cmd = launch.lay_out(plan.found.manifest.cmd, len(plan.env))
        if bwrap is not None:
            roots, fd = plan.found.manifest.roots, None if self._filter is None else launch.FILTER
            cmd = sandbox.wrap(bwrap, cmd, folder=plan.found.folder, workdir=files, roots=roots, filter_fd=fd)
        limits = launch.Limits(
            groups=[] if group is None else group.entries,
            open_files=_OPEN_FILES,
            address_space=0 if group is not None else (spec.memory_mib + _SPACE_MARGIN_MIB) << 20,
        )
        command = launch.enter(cmd, plan.env, limits, files if bwrap is None else None)
        return dataclasses.replace(command, hidden=self._inherited, filter_fd=None if bwrap is None else self._filter)

    def _warn(self) -> None:
        if self._bwrap is None:
            _log.warning(
                "functions run WITHOUT a sandbox: they can read what this server can read; install bubblewrap (bwrap)"
            )
        if self._groups is None:
            _log.warning("no writable memory control group: memory is limited by address space only")
        if self._groups is None or not self._groups.limits_pids:
            _log.warning("no writable pids control group: a function may start processes without limit")

    def _capabilities(self) -> Capabilities:
        return Capabilities(
            limits_memory=self._groups is not None,
            limits_cpu=False,
            isolates_network=False,
            stats=True,
            images=False,
        )
