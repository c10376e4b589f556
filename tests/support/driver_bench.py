"""One bench for each driver: how a test makes containers with it, harms them, and looks what is left."""

from __future__ import annotations

import abc
import asyncio
import atexit
import contextlib
import dataclasses
import functools
import itertools
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from hearth import projects
from hearth.aio.clock import SystemClock
from hearth.drivers.base import Container, ContainerSpec, Driver, Exit
from hearth.drivers.docker.driver import DockerDriver
from hearth.drivers.local import stored
from hearth.drivers.local.build import build_bundle
from hearth.drivers.local.bundle import MANIFEST
from hearth.drivers.local.driver import LocalDriver
from hearth.drivers.local.surroundings import Walls
from hearth.images.layout import ImageStore
from hearth.models.ids import encode
from hearth.testing.scripted_driver import FakeDriver
from tests.support.docker_images import INTERPRETER, broken_image, member, python_files, python_image
from tests.support.fake_probes import script_of
from tests.support.layers import TAR_TYPE, archive, put_image

PROBE = Path(__file__).parent.parent / "functions" / "probe.py"
DOCKER = "unix:///var/run/docker.sock"
NODE = f"test-{os.getpid()}"
_numbers = itertools.count(os.getpid() << 32)


def spec(image: str, probe: str, memory_mib: int = 128, **env: str) -> ContainerSpec:
    """A container of a new id whose program does ``probe``; MARK in its environment names it."""
    container_id = encode(next(_numbers))
    return ContainerSpec(
        id=container_id, image=image, env={"PROBE": probe, "MARK": container_id, **env}, memory_mib=memory_mib
    )


async def until(condition: Callable[[], bool], limit_s: float = 60.0) -> None:
    """Let the loop turn until the condition holds."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        await asyncio.sleep(0.005)


class Bench(abc.ABC):
    """A driver, and what a test needs around it.

    Attributes:
        broken: Images that cannot start.
        tells_closed_streams: A stream that the living function closes is seen to end. The Engine, in between, keeps
            all three open as long as the container lives.
        churn: How many containers show whether they leave a trace.
        stops_processes: It has processes that a freeze can stop.
        dies_with_the_server: Nobody has to come after a killed server to clean up.
    """

    name: str
    driver: Driver
    image: str
    missing: str
    broken: list[str]
    tells_closed_streams = True
    dies_with_the_server = False
    stops_processes = True
    churn = 200

    def __init__(self) -> None:
        self.made: list[Container] = []

    async def prepare(self, probe: str, memory_mib: int = 128, image: str | None = None, **env: str) -> Container:
        """A container, removed at the end of the test."""
        container = await self.driver.prepare(spec(image or self.image, probe, memory_mib, **env))
        self.made.append(container)
        return container

    async def start(self, probe: str, memory_mib: int = 128, **env: str) -> Container:
        """A running container."""
        container = await self.prepare(probe, memory_mib, **env)
        await container.start()
        return container

    @abc.abstractmethod
    def another(self, node: str, instance: str) -> Driver:
        """A driver of the same kind for another node, or another run of a node."""

    @abc.abstractmethod
    def harm(self, container: Container) -> None:
        """SIGKILL its program, as a stranger would."""

    def alive(self, ids: Sequence[str]) -> list[str]:
        """The processes of these containers, where they are visible."""
        return []

    @abc.abstractmethod
    def left(self, node: str = NODE, ids: Sequence[str] = ()) -> list[str]:
        """What exists of a node's containers: of those made here, and of those with these ids."""


@dataclasses.dataclass(frozen=True, slots=True)
class _ProbeBundles:
    """Bundles of the probe: one that runs, and some that cannot."""

    folder: Path
    image: str
    broken: tuple[str, ...]


#: Without what this machine has installed in its Python, which may run code at each start.
_PROBE = "runtime: python\ncmd: [python3, -S, -m, hearth_fdk, func.py]"


@functools.cache
def _probe_bundles() -> _ProbeBundles:
    """Build the bundles once; each bench has a copy of its own."""
    folder = Path(tempfile.mkdtemp(prefix="hearth-probe-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    bundles, sources = folder / "bundles", folder / "sources"
    sources.mkdir()
    programs = {"absent": "./missing", "not-executable": "./func.py", "not-in-path": "no-such-program"}
    broken = tuple(_spoiled(sources / name, bundles, program) for name, program in programs.items())
    return _ProbeBundles(bundles, _build(sources / "probe", bundles, _PROBE), broken)


def _build(source: Path, bundles: Path, recipe: str) -> str:
    """Build a bundle of the probe, named like its folder."""
    source.mkdir(exist_ok=True)
    (source / "func.py").write_bytes(PROBE.read_bytes())
    (source / "func.yaml").write_text(f"name: {source.name}\n{recipe}\n")
    func = projects.load(source)
    build_bundle(func, bundles)
    return func.image()


def _spoiled(source: Path, bundles: Path, program: str) -> str:
    """Build a bundle whose command cannot run: a build refuses that, but what it was built on may change."""
    image = _build(source, bundles, "cmd: [cat]")
    manifest = bundles / source.name / "latest" / MANIFEST
    manifest.write_text(json.dumps({**json.loads(manifest.read_bytes()), "cmd": [program]}))
    return image


@functools.cache
def _probe_images() -> _ProbeBundles:
    """The same with images that bring a root file system, unpacked once for all benches."""
    folder = Path(tempfile.mkdtemp(prefix="hearth-probe-images-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    store, bundles = ImageStore(folder / "images"), folder / "bundles"
    store.make()
    entrypoint = [INTERPRETER, "-S", "/function.py"]
    env = ["PYTHONUNBUFFERED=1"]
    put_image(store, [archive(*python_files(PROBE))], ["probe:1"], TAR_TYPE, entrypoint=entrypoint, env=env)
    broken = {"absent:1": "/missing", "not-executable:1": "/program", "not-in-path:1": "no-such-program"}
    for name, program in broken.items():
        put_image(store, [archive(member("program", b"not a program", 0o644))], [name], entrypoint=[program])
    for name in ("probe:1", *broken):
        stored.find(bundles, name)
    return _ProbeBundles(bundles, "probe:1", tuple(broken))


class DockerBench(Bench):
    """The Docker Engine of this machine."""

    tells_closed_streams = False
    churn = 30  # the Engine takes a quarter of a second for each

    def __init__(self) -> None:
        super().__init__()
        self.driver = self.another(NODE, "now")
        self.image, self.missing = python_image(PROBE), "localhost:1/none:1"
        self.broken = [broken_image("/missing", 0), broken_image("/program", 0o644)]

    def another(self, node: str, instance: str) -> Driver:
        return DockerDriver(DOCKER, node=node, instance=instance)

    def harm(self, container: Container) -> None:
        subprocess.run(["docker", "kill", "--signal", "KILL", container.id], check=True, capture_output=True)

    def left(self, node: str = NODE, ids: Sequence[str] = ()) -> list[str]:
        command = ["docker", "ps", "--all", "--quiet", "--filter", f"label=hearth.node={node}"]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()


class ProcessBench(Bench):
    """Child processes, in a sandbox or not; of bundles, or of images that bring a root file system."""

    def __init__(self, folder: Path, *, sandboxed: bool, images: bool = False) -> None:
        super().__init__()
        self._bundles = folder / "bundles"
        self._sandboxed = self.dies_with_the_server = sandboxed
        self.driver = self.another(NODE, "now")
        if images:
            built = _probe_images()
            self._bundles.symlink_to(built.folder)
        else:
            built = _probe_bundles()
            shutil.copytree(built.folder, self._bundles, symlinks=True, dirs_exist_ok=True)
        self.image, self.missing, self.broken = built.image, "none:1", list(built.broken)

    def build(self, source: Path, recipe: str) -> str:
        """A bundle of the probe, named like its folder."""
        return _build(source, self._bundles, recipe)

    def spoiled(self, source: Path, program: str) -> str:
        """A bundle whose command cannot run."""
        return _spoiled(source, self._bundles, program)

    def another(self, node: str, instance: str) -> Driver:
        walls = Walls(sandbox="required" if self._sandboxed else "off")
        return LocalDriver(self._bundles, node, walls=walls, freezes=True)

    def harm(self, container: Container) -> None:
        (pid,) = [pid for pid, env in _environments() if f"MARK={container.id}".encode() in env.split(b"\0")]
        os.kill(pid, signal.SIGKILL)

    def left(self, node: str = NODE, ids: Sequence[str] = ()) -> list[str]:
        mount = Path("/sys/fs/cgroup")
        roots = [tree / "hearth" / node for tree in (mount, *mount.iterdir())]
        groups = [str(path) for root in roots if root.is_dir() for path in root.iterdir() if path.is_dir()]
        return groups + self.alive([*ids, *(made.id for made in self.made)])

    def alive(self, ids: Sequence[str]) -> list[str]:
        marks = [f"MARK={container_id}".encode() for container_id in ids]
        return [str(pid) for pid, env in _environments() if any(mark in env for mark in marks)]


class FakeBench(Bench):
    """The scripted driver."""

    stops_processes = False

    def __init__(self) -> None:
        super().__init__()
        self.image, self.missing, self.broken = "probe", "none", ["broken"]
        self.driver = self.fake = FakeDriver(SystemClock(), {"probe": script_of, "broken": script_of})

    def another(self, node: str, instance: str) -> Driver:
        return FakeDriver(SystemClock(), self.fake.images)

    def harm(self, container: Container) -> None:
        self.fake.containers[container.id].end(Exit(137))

    def left(self, node: str = NODE, ids: Sequence[str] = ()) -> list[str]:
        return list(self.fake.containers)


def _environments() -> list[tuple[int, bytes]]:
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            found.append((int(path.parent.name), path.read_bytes()))
    return found


def make_bench(name: str, folder: Path) -> Bench:
    """The bench of a driver's name."""
    bench: Bench
    if name == "docker":
        bench = DockerBench()
    elif name == "fake":
        bench = FakeBench()
    else:
        bench = ProcessBench(folder, sandboxed=name != "process without sandbox", images=name == "process with images")
    bench.name = name
    return bench


@contextlib.asynccontextmanager
async def opened(bench: Bench) -> AsyncIterator[Bench]:
    """Open its driver; at the end remove what was made, and see that nothing is left."""
    await bench.driver.open()
    try:
        yield bench
    finally:
        await asyncio.gather(*[container.remove() for container in bench.made])
        await bench.driver.close()
    assert bench.left() == []
