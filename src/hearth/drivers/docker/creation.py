"""What the Engine is told to make: limits and walls around every container (drivers specification 2.2)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Final

from aiodocker.exceptions import DockerError

from hearth.drivers.base import ContainerSpec
from hearth.drivers.docker.references import Reference
from hearth.telemetry.logs import get_logger

_MIB: Final = 1024 * 1024
_CPU_PERIOD_US: Final = 100_000
#: ``/dev/shm`` is memory of the container; this bounds it below large limits, too.
_MAX_SHM_MIB: Final = 64
_UNPRIVILEGED: Final = "1000:1000"
#: Programs may be run from it, as in an image's own /tmp; its pages count as memory of the container.
_TMP: Final = "rw,exec,nosuid,nodev,mode=1777"
#: Limits that not every Engine knows, and how its refusal names them. The walls (capabilities, privileges) and the
#: memory limit itself are not among them: without those a container is not made.
_OPTIONAL: Final = {
    "MemorySwap": ("swap",),
    "PidsLimit": ("pids",),
    "Ulimits": ("ulimit", "rlimit", "nofile"),
    "ShmSize": ("shm",),
    "LogConfig": ("log driver", "logging driver", "log-driver", "logconfig"),
}

_log = get_logger(__name__)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Walls:
    """Limits that all containers of a node share.

    Attributes:
        max_pids: Threads and processes of one container together; 0: as many as the machine bears.
        max_open_files: Of each process; 0: what the Engine gives.
        networks: Containers are spread over these; none: the Engine's default network.
        read_only: Nothing but ``/tmp`` (memory of the container) can be written.
        unprivileged: User 1000 and group 1000, whatever the image says.
    """

    max_pids: int = 50
    max_open_files: int = 1024
    networks: tuple[str, ...] = ()
    read_only: bool = False
    unprivileged: bool = False


class Creation:
    """Writes the Engine's form of a container, and learns which optional limits this Engine does not take."""

    def __init__(self, walls: Walls, hostname: str, labels: Mapping[str, str]) -> None:
        self._walls = walls
        self._hostname = hostname
        self._labels = labels
        self._refused: set[str] = set()

    def form(self, spec: ContainerSpec, reference: Reference, network: str | None) -> dict[str, Any]:
        """What is posted to the Engine."""
        return {
            "Image": str(reference),
            "Hostname": self._hostname,
            "Env": [f"{name}={value}" for name, value in spec.env.items()],
            "Labels": {**spec.labels, **self._labels},
            "OpenStdin": True,
            "StdinOnce": True,
            "AttachStdin": True,
            "AttachStdout": True,
            "AttachStderr": True,
            **({"User": _UNPRIVILEGED} if self._walls.unprivileged else {}),
            "HostConfig": self._host_config(spec, network),
        }

    def learn(self, exc: DockerError) -> bool:
        """Whether the Engine refused an optional limit: then it is left out from now on, and another try is due."""
        text = str(exc.message).lower()
        for option, names in _OPTIONAL.items():
            if option not in self._refused and any(name in text for name in names):
                self._refused.add(option)
                _log.warning("the docker engine refuses a limit, going on without", option=option, error=exc.message)
                return True
        return False

    def _host_config(self, spec: ContainerSpec, network: str | None) -> dict[str, Any]:
        memory, walls = spec.memory_mib * _MIB, self._walls
        config: dict[str, Any] = {
            "Memory": memory,
            "MemorySwap": memory,  # both together: no swap
            "ShmSize": min(spec.memory_mib, _MAX_SHM_MIB) * _MIB,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "LogConfig": {"Type": "none"},  # the output is ours; the Engine keeps no second copy
            "RestartPolicy": {"Name": "no"},
            "Init": False,
        }
        if walls.read_only:
            config["ReadonlyRootfs"] = True
            config["Tmpfs"] = {"/tmp": _TMP}
        if walls.max_pids:
            config["PidsLimit"] = walls.max_pids
        if walls.max_open_files:
            limit = walls.max_open_files
            config["Ulimits"] = [{"Name": "nofile", "Soft": limit, "Hard": limit}]
        if spec.cpu_milli:
            config["CpuPeriod"] = _CPU_PERIOD_US
            config["CpuQuota"] = spec.cpu_milli * _CPU_PERIOD_US // 1000
        if network is not None:
            config["NetworkMode"] = network
        return {name: value for name, value in config.items() if name not in self._refused}


class Networks:
    """Spreads containers over networks: one has a limited number of addresses."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._used = dict.fromkeys(names, 0)

    def take(self) -> str | None:
        """The least used one, the first of equals; ``None`` where none is configured."""
        if not self._used:
            return None
        name = min(self._used, key=self._used.__getitem__)
        self._used[name] += 1
        return name

    def give_back(self, name: str | None) -> None:
        """One container less in it."""
        if name is not None:
            self._used[name] -= 1
