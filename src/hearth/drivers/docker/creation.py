"""The requests that create containers: limits and isolation of each container (drivers specification 2.2)."""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Mapping
from typing import Any, Final

from aiodocker.exceptions import DockerError

from hearth.drivers.base import ContainerSpec
from hearth.drivers.docker import missing_limits, secret_files
from hearth.drivers.sockets import FOLDER, LISTENER, NAME
from hearth.models.function_network import FunctionNetwork
from hearth.telemetry.logs import get_logger

_MIB: Final = 1024 * 1024
_CPU_PERIOD_US: Final = 100_000
#: ``/dev/shm`` is memory of the container; this bounds it below large limits, too.
_MAX_SHM_MIB: Final = 64
_UNPRIVILEGED: Final = "1000:1000"
#: Programs may be run from it, as in an image's own /tmp; its pages count as memory of the container.
_TMP: Final = "rw,exec,nosuid,nodev,mode=1777"
#: Limits that not every Engine knows, how its refusal names them, and what is missing without. The walls
#: (capabilities, privileges) and the memory limit itself are not among them: without those a container is not made.
_OPTIONAL: Final = {
    "MemorySwap": (("swap",), missing_limits.SWAP),
    "PidsLimit": (("pids",), missing_limits.PROCESSES),
    "Ulimits": (("ulimit", "rlimit", "nofile"), missing_limits.OPEN_FILES),
    "ShmSize": (("shm",), missing_limits.SHARED_MEMORY),
    "LogConfig": (("log driver", "logging driver", "log-driver", "logconfig"), missing_limits.OUTPUT),
}

_log = get_logger(__name__)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Walls:
    """Limits that all containers of a node share.

    Attributes:
        max_pids: Threads and processes of one container together; 0: as many as the machine bears.
        max_open_files: Of each process; 0: what the Engine gives.
        locked_memory: Bytes that each process of a container that listens may lock; -1: what the Engine gives. The next
            two are limits of the same containers.
        pending_signals: Signals that wait for its user.
        message_queue: Bytes in POSIX message queues of its user.
        tmp_mib: Size of ``/tmp`` where nothing else can be written; 0: as far as the memory of the container goes.
        tmp_files: Files in that ``/tmp``; 0: as many as fit.
        networks: Containers are spread over these; none: a network of Hearth's own.
        network: What functions may reach, where ``networks`` names none.
        allowed_networks: The private networks that they may reach then, with ``internet``.
        calls_port: Where the node answers their calls on addresses of the machine; 0: nowhere.
        read_only: Nothing but ``/tmp`` (memory of the container) can be written.
        unprivileged: User 1000 and group 1000, whatever the image says.
        listeners_read_only: The same as ``read_only`` for containers that listen on a socket, as Fn's server has it.
        listeners_unprivileged: The same as ``unprivileged`` for them.
        listeners_have_volumes: They may be made of images that declare volumes: those are disks of the machine, which
            no limit of the container bounds.
    """

    max_pids: int = 50
    max_open_files: int = 1024
    locked_memory: int = 65536
    pending_signals: int = 5000
    message_queue: int = 819200
    tmp_mib: int = 0
    tmp_files: int = 0
    networks: tuple[str, ...] = ()
    network: FunctionNetwork | None = None
    allowed_networks: tuple[ipaddress.IPv4Network, ...] = ()
    calls_port: int = 0
    read_only: bool = False
    unprivileged: bool = False
    listeners_read_only: bool = True
    listeners_unprivileged: bool = True
    listeners_have_volumes: bool = False


class Creation:
    """Writes the Engine's form of a container, and learns which optional limits this Engine does not take.

    Attributes:
        has_init: The Engine can run an init process in a container, which reaps the orphans of a function: without
            it they stay as zombies and fill the limit of processes.
    """

    def __init__(self, walls: Walls, hostname: str, labels: Mapping[str, str]) -> None:
        self._walls = walls
        self._hostname = hostname
        self._labels = labels
        self.has_init = True
        self._refused: set[str] = set()

    @property
    def missing(self) -> tuple[str, ...]:
        """A sentence for each limit that was refused."""
        return tuple(sentence for option, (_, sentence) in _OPTIONAL.items() if option in self._refused)

    def form(self, spec: ContainerSpec, image: str, network: str, sockets: str = "") -> dict[str, Any]:
        """Return what is posted to the Engine.

        Args:
            spec: The container.
            image: A reference or an image's id.
            network: The network that it joins.
            sockets: The folder of its socket as the Engine sees it, if it listens.
        """
        variables = {**spec.env, **({} if spec.secrets_as_files else spec.secrets)}
        if spec.listens:
            variables[LISTENER] = f"unix:{FOLDER}/{NAME}"
        unprivileged = self._walls.unprivileged or (spec.listens and self._walls.listeners_unprivileged)
        return {
            "Image": image,
            "Hostname": self._hostname,
            "Env": [f"{name}={value}" for name, value in variables.items()],
            "Labels": {**spec.labels, **self._labels},
            "OpenStdin": not spec.listens,
            "StdinOnce": not spec.listens,
            "AttachStdin": not spec.listens,
            "AttachStdout": True,
            "AttachStderr": True,
            **({"User": _UNPRIVILEGED} if unprivileged else {}),
            "HostConfig": self._host_config(spec, network, sockets),
        }

    def learn(self, exc: DockerError) -> bool:
        """Return whether the Engine refused an optional limit. It is left out from now on: try again."""
        text = str(exc.message).lower()
        for option, (names, _) in _OPTIONAL.items():
            if option not in self._refused and any(name in text for name in names):
                self._refused.add(option)
                _log.warning("the docker engine refuses a limit, going on without", option=option, error=exc.message)
                return True
        return False

    def _host_config(self, spec: ContainerSpec, network: str, sockets: str) -> dict[str, Any]:
        memory, walls = spec.memory_mib * _MIB, self._walls
        config: dict[str, Any] = {
            "Memory": memory,
            "MemorySwap": memory,  # both together: no swap
            "ShmSize": min(spec.memory_mib, _MAX_SHM_MIB) * _MIB,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "LogConfig": {"Type": "none"},  # the output is ours; the Engine keeps no second copy
            "RestartPolicy": {"Name": "no"},
            "NetworkMode": network,
            "Init": self.has_init,
        }
        mounts = []
        if spec.secrets_as_files and spec.secrets:
            mounts.append(secret_files.mount(spec.secrets))
        if spec.listens:
            mounts.append({"Type": "bind", "Source": sockets, "Target": FOLDER})
        if mounts:
            config["Mounts"] = mounts
        if walls.read_only or (spec.listens and walls.listeners_read_only):
            config["ReadonlyRootfs"] = True
            config["Tmpfs"] = {"/tmp": self._tmp}
        if walls.max_pids:
            config["PidsLimit"] = walls.max_pids + self.has_init
        if ulimits := self._ulimits(spec):
            config["Ulimits"] = [{"Name": name, "Soft": limit, "Hard": limit} for name, limit in ulimits.items()]
        if spec.cpu_milli:
            config["CpuPeriod"] = _CPU_PERIOD_US
            config["CpuQuota"] = spec.cpu_milli * _CPU_PERIOD_US // 1000
        return {name: value for name, value in config.items() if name not in self._refused}

    @property
    def _tmp(self) -> str:
        """The options of ``/tmp`` where nothing else can be written."""
        walls = self._walls
        size = f",size={walls.tmp_mib}m" if walls.tmp_mib else ""
        return f"{_TMP}{size},nr_inodes={walls.tmp_files}" if walls.tmp_files else f"{_TMP}{size}"

    def _ulimits(self, spec: ContainerSpec) -> dict[str, int]:
        """Return the limits of the container's processes by name; those of Fn for containers that listen."""
        walls = self._walls
        limits = {"nofile": walls.max_open_files} if walls.max_open_files else {}
        if spec.listens:
            limits |= {
                "memlock": walls.locked_memory,
                "sigpending": walls.pending_signals,
                "msgqueue": walls.message_queue,
            }
        return {name: limit for name, limit in limits.items() if limit >= 0}
