"""Bundles as child processes: the embedded driver that needs no daemon (drivers specification 3)."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

from hearth.drivers.base import Capabilities, Container, ContainerSpec, Driver, ImageNotFound
from hearth.drivers.process import bundle, cgroups, sandbox
from hearth.drivers.process.container import Limit, ProcessContainer
from hearth.telemetry.logs import get_logger

_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_BASE_ENV: Final = {"PATH": _PATH, "HOME": "/tmp", "TMPDIR": "/tmp", "LANG": "C.UTF-8"}
#: Address space that a program maps without using it: interpreters, libraries.
_SPACE_MARGIN_MIB: Final = 256

_log = get_logger(__name__)


class ProcessDriver(Driver):
    """Runs bundles.

    Args:
        bundles: The folder of bundles.
        node: Names this node among those of the machine.
        sandboxed: False leaves bubblewrap out even where it works.
    """

    name = "process"

    def __init__(self, bundles: Path, node: str, *, sandboxed: bool = True) -> None:
        self._bundles = bundles
        self._node = node
        self._want_sandbox = sandboxed
        self._bwrap: str | None = None
        self._groups: cgroups.MemoryGroups | None = None
        self._alive: set[ProcessContainer] = set()
        self.capabilities = self._capabilities()

    def __repr__(self) -> str:
        return f"<ProcessDriver alive={len(self._alive)} sandbox={self._bwrap is not None}>"

    async def open(self) -> None:
        """Find out what works here, remove what an earlier run left, warn where functions are not walled in."""
        self._bwrap = await asyncio.to_thread(sandbox.find) if self._want_sandbox else None
        self._groups = await asyncio.to_thread(cgroups.find, self._node)
        self.capabilities = self._capabilities()
        if self._bwrap is None:
            _log.warning(
                "functions run WITHOUT a sandbox: they can read what this server can read; install bubblewrap (bwrap)"
            )
        if self._groups is None:
            _log.warning("no writable memory control group: memory is limited by address space only")

    async def close(self) -> None:
        """Give the node's control group back."""
        if self._groups is not None:
            await asyncio.to_thread(self._groups.close)

    async def prepare(self, spec: ContainerSpec) -> Container:
        """Find the bundle and set up what its process will need."""
        found = await asyncio.to_thread(self._find, spec.image)
        if found is None:
            _log.info("no such bundle", image=spec.image, bundles=str(self._bundles))
            raise ImageNotFound(spec.image, "no such bundle")
        argv = list(found.manifest.cmd)
        if self._bwrap is not None:
            roots = found.manifest.roots
            argv = sandbox.wrap(self._bwrap, argv, folder=found.folder, workdir=found.files, roots=roots)
        group = None if self._groups is None else self._groups.make(spec.id, spec.memory_mib)
        env = {**_BASE_ENV, **found.manifest.env, **spec.env}
        limit = Limit(group, (spec.memory_mib + _SPACE_MARGIN_MIB) << 20)
        container = ProcessContainer(spec.id, argv, env, str(found.files), limit, self._alive.discard)
        self._alive.add(container)
        return container

    def _find(self, image: str) -> bundle.Bundle | None:
        folder = bundle.locate(self._bundles, image)
        return None if folder is None else bundle.load(folder)

    def _capabilities(self) -> Capabilities:
        return Capabilities(
            limits_memory=self._groups is not None,
            limits_cpu=False,
            isolates_network=False,
            stats=False,
            images=False,
        )
