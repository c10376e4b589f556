"""Bundles as child processes: the embedded driver that needs no daemon (drivers specification 3)."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import platform
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Final

from hearth.aio.clock import Clock, SystemClock
from hearth.aio.loop_share import loop_share
from hearth.drivers.base import (
    PULL,
    Capabilities,
    Container,
    ContainerSpec,
    Driver,
    DriverError,
    DriverUnavailable,
    FetchImage,
    ImageError,
    ImageHasVolumes,
    ImageNotFound,
    ImageRefused,
    OutOfTime,
    PhaseLimits,
    StartFailed,
)
from hearth.drivers.local import bundle, launch, marks, programs, sandbox, starter, stored, system_images
from hearth.drivers.local.container import ProcessContainer
from hearth.drivers.local.network.apps import AppNetworks
from hearth.drivers.local.network.namespace import NOTHING, Joined, NetworkFailed
from hearth.drivers.local.resolving import Resolver
from hearth.drivers.local.surroundings import Surroundings, Walls
from hearth.drivers.local.system_files import HOSTNAME, UID
from hearth.drivers.local.system_images import NoProgram
from hearth.drivers.local.users import NoUserLeft
from hearth.drivers.logins import Logins
from hearth.drivers.sockets import FOLDER, LISTENER, NAME, SocketFolders, UnixSocket
from hearth.host import cgroups
from hearth.images.errors import ImageStoreError, InvalidImage, RegistryAway, RegistryNotAllowed, RegistryRefused
from hearth.images.registry.credentials import Credentials
from hearth.images.registry.pull import Pulls
from hearth.images.registry.references import InvalidReference, parse
from hearth.images.unpack import Limits
from hearth.models.errors import ApiError
from hearth.models.function_network import FunctionNetwork
from hearth.models.image import pinned
from hearth.telemetry.logs import get_logger
from hearth.telemetry.node import Telemetry

_BASE_ENV: Final = {"PATH": programs.PATH, "HOME": "/tmp", "TMPDIR": "/tmp", "LANG": "C.UTF-8"}
_UNPRIVILEGED: Final = f"{UID}:{UID}"
_MIB: Final = 1 << 20
#: Address space that a program maps without using it: interpreters, libraries.
_SPACE_MARGIN_MIB: Final = 256
#: The sandbox's own two processes.
_SANDBOX_PIDS: Final = 2
#: Of the folder of the sockets' folders: each of those admits the user of its app only.
_PASSABLE: Final = 0o711
#: From this Linux on, processes are counted within their user namespace, not all those of a user together.
_COUNTS_IN_NAMESPACES: Final = (5, 14)

_log = get_logger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class _Plan:
    """The facts read from the disk about a container to be created.

    Attributes:
        found: Its bundle.
        env: Its environment.
        fault: Why it cannot run.
        program: The path of its program, if the image brings a root file system; so for the next.
        user: Its user.
        is_writable: It may write to its root file system.
    """

    found: bundle.Bundle
    env: dict[str, str]
    fault: str | None
    program: str = ""
    user: system_images.User | None = None
    is_writable: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class _Origin:
    """The origin of a container.

    Attributes:
        image: Its reference.
        content: The digest of its bundle.
        kept: Descriptors that live as long as it: a lock on the bundle, a mount namespace.
        app: The app whose user it has.
    """

    image: str
    content: str
    kept: tuple[int, ...]
    app: str


class LocalDriver(Driver):
    """Runs bundles.

    Args:
        bundles: The folder of bundles; the store of their images is beside it.
        node: Names this node among those of the machine.
        walls: Around functions.
        limits: Of each phase of a container's life.
        image_limits: The most that an image may have.
        sockets: Where the sockets of functions are made; ``None``: in memory where possible.
        freezes: Containers are to be frozen between calls, if that is possible.
        clock: Times samples and limits.
        telemetry: Counts nodes without a sandbox.
        fetch: Gets images that are not in the store, and name no registry.
        credentials: The credentials of registries; without any, only public images can be pulled.
        registries: The registries that are asked for images; empty: all.
    """

    name = "process"

    def __init__(
        self,
        bundles: Path,
        node: str,
        *,
        walls: Walls | None = None,
        limits: PhaseLimits | None = None,
        image_limits: Limits | None = None,
        sockets: Path | None = None,
        freezes: bool = False,
        clock: Clock | None = None,
        telemetry: Telemetry | None = None,
        fetch: FetchImage | None = None,
        credentials: Credentials | None = None,
        registries: Collection[str] = (),
    ) -> None:
        self._bundles = bundles
        self._node = node
        self._walls = walls or Walls()
        self._limits = limits or PhaseLimits()
        self._image_limits = image_limits or Limits()
        self._fetch = fetch
        self._clock = clock or SystemClock()
        telemetry = telemetry or Telemetry()
        credentials = credentials or Credentials()
        self._logins = Logins(credentials, self._limits.pull_s)
        self._pulls = Pulls(
            stored.image_store(bundles),
            credentials,
            self._clock,
            most_bytes=self._image_limits.bytes,
            limit_s=self._limits.pull_s,
            check=stored.manifest_of,
            metrics=telemetry.metrics,
            registries=registries,
        )
        self._resolver = Resolver(bundles, self._pulls)
        self._sockets = SocketFolders(node, self._clock, parent=sockets, ready_s=self._limits.ready_s, mode=_PASSABLE)
        self._surroundings = Surroundings(bundles, node, self._walls)
        self._networks: AppNetworks | None = None
        self._no_network = ""
        self._groups: cgroups.Groups | None = None
        self._freezes = freezes
        self._unsandboxed = telemetry.metrics.gauge("hearth_functions_unsandboxed")
        self._marks = marks.Marks(node)
        self._is_clean = False
        self._alive: set[ProcessContainer] = set()
        self._origins: dict[str, _Origin] = {}
        self.capabilities = self._capabilities()

    def __repr__(self) -> str:
        return f"<LocalDriver alive={len(self._alive)} sandbox={self._sandboxed}>"

    async def open(self) -> None:
        """Find out what works here, remove what an earlier run left, warn where functions are not walled in."""
        if not hasattr(os, "pidfd_open"):
            raise DriverUnavailable(f"functions as processes need Linux 5.3 or later, not {sys.platform}")
        self._groups = await asyncio.to_thread(cgroups.find, self._node, freezes=self._freezes)
        await asyncio.to_thread(self._sockets.open)
        await asyncio.to_thread(self._surroundings.set_up, self._sockets.root, counts_memory=self._groups is not None)
        await self._import_builds()
        await self._set_up_network()
        self.capabilities = self._capabilities()
        self._unsandboxed.set(not self._sandboxed)
        self._is_clean = await self._remove_leftovers()
        for warning in self.warnings:
            _log.warning(warning)

    async def cleaned(self) -> bool:
        """Return what :meth:`open` has found."""
        return self._is_clean

    async def check(self) -> None:
        """Make sure that control groups can be made, where they were there at the start."""
        if self._groups is not None:
            try:
                await asyncio.to_thread(self._groups.restore)
            except OSError as exc:
                raise DriverUnavailable(f"no control group can be made: {exc}; see {exc.filename}") from exc

    @property
    def warnings(self) -> Sequence[str]:
        """Walls and limits that are missing."""
        found = []
        if not self._sandboxed:
            found.append(
                "functions run without a sandbox, and use the network of the machine: "
                f"{self._surroundings.missing or 'FN_SANDBOX=off'}"
            )
        if self._groups is None:
            found.append("memory of functions is limited by address space only: no writable memory control group")
        if self._walls.max_pids and not (self._counts_in_namespace or (self._groups and self._groups.limits_pids)):
            found.append("processes of functions are not limited: no writable pids control group")
        if not self.capabilities.limits_cpu:
            found.append("CPU of functions is not limited: no writable cpu control group")
        if self._sandboxed and (missing := self._surroundings.overlays.missing):
            found.append(
                f"root file systems of images are read-only, also where a function may write to them: {missing}"
            )
        if self._needs_marks and not marks.can_mark():
            found.append(
                "processes that functions leave behind may outlive them: the server has a hard limit of its resident "
                "set or file locks; start it without (ulimit -H -m unlimited)"
            )
        if self._no_network:
            found.append(self._no_network)
        return found

    async def close(self) -> None:
        """Give the node's control groups back."""
        await self._pulls.close()
        for container in list(self._alive):
            await container.give_up()
            self._forget(container)
        if self._networks is not None:
            await self._networks.close()
        self._surroundings.close()
        await asyncio.to_thread(self._sockets.remove)
        self._sockets.close()
        if self._groups is not None:
            await asyncio.to_thread(self._groups.close)

    async def prepare(self, spec: ContainerSpec) -> Container:
        """Find the bundle and set up what its process will need."""
        if spec.secrets and spec.secrets_as_files and not self._sandboxed:
            reason = "this node has no sandbox, which secrets_as: files needs; use secrets_as: env"
            raise StartFailed(reason, image_fault=True)
        spec = dataclasses.replace(spec, image=await self.get_image(spec))
        try:
            async with asyncio.timeout(self._limits.create_s):
                plan, held = await self._held(spec)
        except TimeoutError as exc:
            raise OutOfTime("create", self._limits.create_s) from exc
        if spec.cpu_milli and not self.capabilities.limits_cpu:
            _log.warning("CPU of a function is not limited: no writable cpu control group", image=spec.image)
        share = loop_share()
        with contextlib.ExitStack() as undo:
            undo.callback(os.close, held)
            namespace = await self._join(spec.app, undo)
            entry, kept = self._enter(spec, namespace, undo), [held]
            if plan.is_writable:
                entry, overlay = await self._enter_writable(plan, spec, namespace)
                if overlay is not None:
                    undo.callback(os.close, overlay)
                    kept.append(overlay)
            socket = self._make_socket(spec, undo)
            await share.turn()
            with share:  # where processors are busy, the kernel may take milliseconds
                group = self._group(spec)
            undo.pop_all()
        mark = self._mark()
        command = self._command(plan, spec, entry, group, mark, socket)
        self._origins[spec.id] = _Origin(spec.image, plan.found.manifest.content, tuple(kept), spec.app)
        container = ProcessContainer(
            spec.id,
            command,
            plan.fault,
            group,
            mark,
            spec.memory_mib,
            self._clock,
            self._limits,
            self._forget,
            socket,
        )
        self._alive.add(container)
        return container

    async def resolve(self, image: str) -> str:
        """Look into the image store, or ask the registry that the reference names."""
        return await self._resolver.resolve(image)

    async def digest_of(self, container: Container) -> str:
        """Return the digest of its bundle."""
        origin = self._origins.get(container.id)
        return "" if origin is None else bundle.digest_of(origin.image) or origin.content

    async def is_stale(self, container: Container) -> bool:
        """Compare the digest of what it runs with that of what lies there now."""
        origin = self._origins.get(container.id)
        if origin is None or bundle.digest_of(origin.image):
            return False
        try:
            found = await asyncio.to_thread(stored.digest, self._bundles, origin.image)
        except (OSError, ImageStoreError) as exc:
            _log.warning("bundle not compared with what runs", image=origin.image, error=str(exc))
            return False
        return found is not None and found != origin.content

    def _forget(self, container: ProcessContainer) -> None:
        self._alive.discard(container)
        if (origin := self._origins.pop(container.id, None)) is not None:
            for descriptor in origin.kept:
                os.close(descriptor)
            self._surroundings.leave(origin.app)
            if self._networks is not None:
                self._networks.release(origin.app)

    async def get_image(self, spec: ContainerSpec) -> str:
        """Get the image of a container, unless it is here; return the reference to run.

        A tag may mean another image by now, so it is always asked for.

        Raises:
            ImageRefused: The registry refused it.
            ImageError: It is not available for another reason.
            OutOfTime: The pull took longer than its limit.
        """
        image = spec.image
        if bundle.locate(self._bundles, image) is None:
            return image
        try:
            async with asyncio.timeout(self._limits.pull_s):
                if await asyncio.to_thread(stored.is_pinned_here, self._bundles, image):
                    return image
                if await asyncio.to_thread(stored.is_of_registry, self._bundles, image):
                    return await self._from_registry(spec)
                if self._fetch is not None:
                    await self._fetch(image)
        except TimeoutError as exc:
            raise OutOfTime(PULL, self._limits.pull_s) from exc
        except InvalidReference as exc:
            raise ImageError(image, str(exc)) from exc
        except ApiError as exc:
            if await asyncio.to_thread(stored.digest, self._bundles, image) is None:
                raise ImageError(image, f"not here, and the API node does not send it: {exc.message}", 502) from exc
        except ImageStoreError as exc:
            raise _image_error(image, exc) from exc
        return image

    async def _from_registry(self, spec: ContainerSpec) -> str:
        """Pull an image from its registry; return the reference with its digest.

        While the registry does not answer, an image that every app may use runs as it was pulled last.
        """
        login = None
        if spec.find_login is not None:
            login = await self._logins.of_app(spec.image, parse(spec.image).registry, spec.find_login)
        try:
            return pinned(spec.image, await self._pulls.pull(spec.image, login))
        except RegistryAway:
            if login is not None or await asyncio.to_thread(stored.digest, self._bundles, spec.image) is None:
                raise
            _log.warning("registry does not answer, its image runs as it was pulled last", image=spec.image)
            return spec.image

    async def _held(self, spec: ContainerSpec) -> tuple[_Plan, int]:
        """Return the plan of a container, and a descriptor that keeps its bundle when a new one is built."""
        while True:
            try:
                plan = await asyncio.to_thread(self._plan, spec)
                held = None if plan is None else plan.found.hold()
            except OSError as exc:
                raise StartFailed(f"bundle {spec.image}: {exc.strerror or exc}") from exc
            except ImageStoreError as exc:
                raise _image_error(spec.image, exc) from exc
            if plan is None:
                _log.info("no such bundle", image=spec.image, bundles=str(self._bundles))
                raise ImageNotFound(spec.image, "no such bundle")
            if held is not None:
                return plan, held

    async def _remove_leftovers(self) -> bool:
        if ended := await asyncio.to_thread(marks.end_all, self._marks.all):
            _log.info("ended processes of an earlier run", processes=ended)
        left = [] if self._groups is None else await asyncio.to_thread(self._groups.leftovers)
        if not left:
            return True
        _log.info("removing processes of an earlier run", containers=len(left))
        try:
            async with asyncio.timeout(self._limits.remove_s):
                for group in left:
                    await group.clear(self._clock)
        except TimeoutError:
            _log.error("processes of an earlier run cannot be removed", group=repr(group))
            return False
        return True

    def _plan(self, spec: ContainerSpec) -> _Plan | None:
        """Read what is to run. Blocks: for a thread."""
        found = stored.find(self._bundles, spec.image, self._image_limits)
        if found is None:
            return None
        manifest = found.manifest
        if manifest.system is not None:
            return self._plan_of_system(spec, found, manifest.system)
        env = found.environment(_BASE_ENV, {**spec.env, **_variables(spec)})
        missing = [root for root in manifest.roots if not Path(root).exists()]
        if missing:
            return _Plan(found, env, f"{missing[0]}: no such file or directory; build the bundle again")
        hidden = [root for root in manifest.roots if self._surroundings.hides(Path(root))]
        if hidden:
            fault = f"{hidden[0]}: functions do not run as root and cannot enter it; build the bundle with this Python"
            return _Plan(found, env, f"{fault}: {sys.base_prefix}")
        visible = None if not self._sandboxed else [*sandbox.SYSTEM, *manifest.roots, str(found.folder)]
        return _Plan(found, env, programs.find_fault(manifest.cmd, found.files, env["PATH"], visible))

    def _plan_of_system(self, spec: ContainerSpec, found: bundle.Bundle, system: bundle.System) -> _Plan:
        """Read what is to run of an image that brings a root file system."""
        walls = self._walls
        if system.volumes and spec.listens and not walls.listeners_have_volumes:
            raise ImageHasVolumes(spec.image, system.volumes)
        unprivileged = walls.unprivileged or (spec.listens and walls.listeners_unprivileged)
        given = {**spec.env, **_variables(spec)}
        try:
            if not self._sandboxed:
                why = self._surroundings.missing or "FN_SANDBOX=off"
                raise NoProgram(f"an image with a root file system of its own needs a sandbox on this node: {why}")
            if self._surroundings.starter_fd is None:
                raise NoProgram(f"images with a root file system of their own do not run on {platform.machine()}")
            user = system_images.find_user(found.root, _UNPRIVILEGED if unprivileged else system.user)
            env = found.environment({"PATH": programs.PATH, "HOSTNAME": HOSTNAME, "HOME": user.home}, given)
            program = system_images.find_program(found.root, found.manifest.cmd, system.workdir, env["PATH"])
        except NoProgram as exc:
            return _Plan(found, given, str(exc))
        read_only = walls.read_only or (spec.listens and walls.listeners_read_only)
        return _Plan(found, env, None, program, user, not read_only and not self._surroundings.overlays.missing)

    async def _import_builds(self) -> None:
        """Make images of the builds of earlier releases. Without them, those run as before."""
        try:
            if imported := await asyncio.to_thread(stored.import_builds, self._bundles):
                _log.info("builds of an earlier release have images now", builds=imported)
        except (OSError, ImageStoreError) as exc:
            _log.error("builds of an earlier release have no images: they run, but cannot be pulled", error=str(exc))

    async def _set_up_network(self) -> None:
        """Choose the network of functions, and set up what it needs.

        Raises:
            DriverUnavailable: The network that the operator asks for does not work here.
        """
        wanted = self._walls.network
        if not self._sandboxed:
            if wanted in (FunctionNetwork.NONE, FunctionNetwork.INTERNET):
                raise DriverUnavailable(
                    f"FN_FUNCTION_NETWORK={wanted.value}: functions that run without a sandbox use the network of the "
                    f"machine ({self._surroundings.missing or 'FN_SANDBOX=off'}); set it to host"
                )
            return
        network = wanted or FunctionNetwork.INTERNET
        if network is FunctionNetwork.INTERNET:
            networks = AppNetworks(self._walls.allowed_networks, self._clock, self._surroundings.inherited)
            self._networks = networks
            try:
                await networks.open()
                await self._try_out(networks)
            except NetworkFailed as exc:
                self._networks = None
                await networks.close()
                if wanted is not None:
                    raise DriverUnavailable(f"FN_FUNCTION_NETWORK=internet: {exc}") from exc
                network = self._walls.network_without_tools
                self._no_network = f"FN_FUNCTION_NETWORK={network.value} is used instead of internet: {exc}"
        await asyncio.to_thread(self._surroundings.set_network, network)

    async def _try_out(self, networks: AppNetworks) -> None:
        """Run the sandbox in a network.

        Raises:
            NetworkFailed: It does not work there.
        """
        namespace = await networks.acquire("")
        try:
            if said := await asyncio.to_thread(self._surroundings.why_not_within, namespace):
                raise NetworkFailed(f"the sandbox does not work in a network namespace: {said}")
        finally:
            networks.release("")

    async def _join(self, app: str, undo: contextlib.ExitStack) -> Joined:
        if self._networks is None:
            return NOTHING
        try:
            async with asyncio.timeout(self._limits.create_s):
                namespace = await self._networks.acquire(app)
        except TimeoutError as exc:
            raise OutOfTime("create", self._limits.create_s) from exc
        except NetworkFailed as exc:
            raise StartFailed(f"the network of the app cannot be set up: {exc}") from exc
        undo.callback(self._networks.release, app)
        return namespace

    def _enter(self, spec: ContainerSpec, namespace: Joined, undo: contextlib.ExitStack) -> list[str]:
        try:
            entry = self._surroundings.enter(spec.app, namespace)
        except NoUserLeft as exc:
            raise StartFailed("every user of FN_FUNCTION_UIDS is taken by another app; widen the range") from exc
        undo.callback(self._surroundings.leave, spec.app)
        return entry

    async def _enter_writable(
        self, plan: _Plan, spec: ContainerSpec, namespace: Joined
    ) -> tuple[list[str], int | None]:
        """Do the same with an overlay over the root file system of the image."""
        enter = self._surroundings.enter_writable
        size_mib = self._sizes(spec, is_writable=True)[2]
        made = asyncio.get_running_loop().run_in_executor(None, enter, spec.app, namespace, plan.found.root, size_mib)
        try:
            return await asyncio.shield(made)
        except asyncio.CancelledError:
            made.add_done_callback(_close_unused)
            raise
        except OSError as exc:
            raise StartFailed(f"its root file system cannot be made writable: {exc.strerror or exc}") from exc

    def _sizes(self, spec: ContainerSpec, *, is_writable: bool) -> tuple[int, int, int]:
        """Return the MiB of /tmp, of /dev/shm, and of what may be written to the root file system.

        Together they hold no more than the function may use, or each, where a control group counts them as its memory.
        """
        memory = spec.memory_mib
        if self._groups is not None:
            return memory, memory, memory
        shm = max(1, memory // 4)
        root = max(1, (memory - shm) // 2) if is_writable else 0
        return max(1, memory - shm - root), shm, root

    def _make_socket(self, spec: ContainerSpec, undo: contextlib.ExitStack) -> UnixSocket | None:
        if not spec.listens:
            return None
        try:
            socket = self._sockets.make(spec.id, owner=self._surroundings.user_of(spec.app), mode=0o700)
        except OSError as exc:
            raise StartFailed(f"the folder of its socket cannot be made: {exc}") from exc
        undo.callback(socket.close)
        return socket

    def _group(self, spec: ContainerSpec) -> cgroups.Group | None:
        if self._groups is None:
            return None
        try:
            return self._groups.make(spec.id, spec.memory_mib, self._pids, spec.cpu_milli)
        except OSError as exc:
            raise StartFailed(f"control group: {exc}") from exc

    def _command(
        self,
        plan: _Plan,
        spec: ContainerSpec,
        entry: list[str],
        group: cgroups.Group | None,
        mark: marks.Mark | None,
        socket: UnixSocket | None,
    ) -> launch.Command:
        if socket is not None:
            folder = FOLDER if self._sandboxed else str(socket.folder)
            plan.env[LISTENER] = f"unix:{folder}/{NAME}"
        secrets = [name for name in plan.env if name in _variables(spec)]
        env = {name: value for name, value in plan.env.items() if name not in secrets}
        processes = self._pids if self._counts_in_namespace else 0
        if plan.program:
            cmd = starter.wrap(plan.found.manifest.cmd, plan.program, processes=processes)
        else:
            where = None if self._sandboxed else plan.found.files
            cmd = launch.lay_out(plan.found.manifest.cmd, len(env), secrets=secrets, folder=where, processes=processes)
        tmp_mib, shm_mib, _ = self._sizes(spec, is_writable=plan.is_writable)
        files = spec.secrets if spec.secrets_as_files else {}
        numbers = {name: launch.FIRST_FREE + number for number, name in enumerate(files)}
        sockets = None if socket is None else socket.folder
        cmd = self._surroundings.wrap(
            cmd,
            plan.found,
            plan.user,
            numbers,
            is_writable=plan.is_writable,
            tmp_mib=tmp_mib,
            shm_mib=shm_mib,
            sockets=sockets,
        )
        limits = launch.Limits(
            groups=[] if group is None else group.entries,
            open_files=self._walls.max_open_files,
            address_space=0 if group is not None else (spec.memory_mib + _SPACE_MARGIN_MIB) * _MIB,
            mark=mark,
        )
        command = launch.enter([*entry, *cmd], env | {name: plan.env[name] for name in secrets}, limits)
        filter_fd = self._surroundings.filter_fd if self._sandboxed else None
        return dataclasses.replace(
            command,
            hidden=self._surroundings.inherited,
            filter_fd=filter_fd,
            starter_fd=self._surroundings.starter_fd if plan.program else None,
            files=[value.encode() for value in files.values()],
            has_stdout=socket is None,
        )

    def _mark(self) -> marks.Mark | None:
        """Return what a container's processes are found by, where neither a sandbox nor a control group holds them."""
        return self._marks.make() if self._needs_marks and marks.can_mark() else None

    @property
    def _needs_marks(self) -> bool:
        return not self._sandboxed and self._groups is None

    @property
    def _sandboxed(self) -> bool:
        return self._surroundings.sandbox is not None

    @property
    def _pids(self) -> int:
        """Processes and threads of one container, the sandbox's own included; 0 means no limit."""
        own = _SANDBOX_PIDS if self._sandboxed else 0
        return self._walls.max_pids and self._walls.max_pids + own

    @property
    def _counts_in_namespace(self) -> bool:
        """True if a limit of the user's processes holds for one container, and nothing else limits them."""
        if not self._sandboxed or (self._groups is not None and self._groups.limits_pids):
            return False
        return counts_in_namespaces()

    def _capabilities(self) -> Capabilities:
        return Capabilities(
            limits_memory=self._groups is not None,
            limits_cpu=self._groups is not None and self._groups.limits_cpu,
            isolates_network=self._surroundings.network is not FunctionNetwork.HOST,
            stats=True,
            freeze=self._groups is not None and self._groups.freezes,
            images=False,
            unread_input=True,
        )


def counts_in_namespaces() -> bool:
    """Return whether this kernel counts the processes of a user in each user namespace."""
    return tuple(int(part) for part in os.uname().release.split(".")[:2]) >= _COUNTS_IN_NAMESPACES


def _image_error(image: str, exc: ImageStoreError) -> DriverError:
    """Return an error of the store or of a registry as one of the driver; it names the image itself."""
    match exc:
        case RegistryRefused():
            return ImageRefused(image, exc.status, exc.reason)
        case RegistryNotAllowed():
            return ImageRefused(image, 403, exc.reason)
        case RegistryAway():
            return ImageError(image, f"the registry cannot be read: {exc.reason}", 502)
        case _:
            return ImageError(image, str(exc).removeprefix(f"{image}: "), 502 if isinstance(exc, InvalidImage) else 500)


def _close_unused(made: asyncio.Future[tuple[list[str], int | None]]) -> None:
    """Close the overlay that nobody waited for."""
    if made.exception() is None and (overlay := made.result()[1]) is not None:
        os.close(overlay)


def _variables(spec: ContainerSpec) -> Mapping[str, str]:
    """Return the secrets that are variables of the environment."""
    return {} if spec.secrets_as_files else spec.secrets
