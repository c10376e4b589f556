"""What the Engine is asked for, and how its refusals and stumbles are taken."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiodocker.containers import DockerContainer
from aiohttp import web
from structlog.testing import capture_logs
from tests.support.clock import FakeClock
from tests.support.docker_images import python_image
from tests.support.node import HEARTH, running_node

from hearth.aio.clock import SystemClock
from hearth.drivers.base import ContainerSpec, DriverError, ImageHasVolumes, OutOfTime, PhaseLimits, StartFailed
from hearth.drivers.docker import missing_limits
from hearth.drivers.docker.creation import Walls
from hearth.drivers.docker.driver import DockerDriver
from hearth.drivers.docker.engine import Engine, parse_moment
from hearth.drivers.docker.exits import Exits
from hearth.drivers.docker.streams import Attachment
from hearth.models.function_network import FunctionNetwork
from hearth.models.ids import encode

HOST = "unix:///var/run/docker.sock"
PROBE = Path(__file__).parent.parent / "functions" / "probe.py"
RETRY = "docker temporary error, retrying"
_numbers = itertools.count(os.getpid() << 32)


def spec(probe: str = "sleep", image: str | None = None, **fields: Any) -> ContainerSpec:
    env = {"PROBE": probe}
    fields.setdefault("memory_mib", 64)
    return ContainerSpec(id=encode(next(_numbers)), image=image or python_image(PROBE), env=env, **fields)


# -- a real Engine ----------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def opened(**options: Any) -> AsyncIterator[DockerDriver]:
    driver = DockerDriver(HOST, node=f"engine-{os.getpid()}", instance="now", **options)
    await driver.open()
    try:
        yield driver
    finally:
        await driver.close()


def inspect(name: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = json.loads(subprocess.check_output(["docker", "inspect", name]))
    return found[0]


async def test_a_container_is_made_with_its_walls(docker: None) -> None:
    async with opened(walls=Walls(max_pids=7, max_open_files=99)) as driver:
        container = await driver.prepare(spec(memory_mib=32, cpu_milli=250, labels={"app": "a"}))
        made = inspect(container.id)
        await container.remove()
    host = made["HostConfig"]
    assert (host["Memory"], host["MemorySwap"], host["ShmSize"]) == (32 << 20, 32 << 20, 32 << 20)
    assert (host["CpuPeriod"], host["CpuQuota"], host["PidsLimit"]) == (100_000, 25_000, 7 + 1)
    assert host["Ulimits"] == [{"Name": "nofile", "Soft": 99, "Hard": 99}]
    assert (host["CapDrop"], host["SecurityOpt"]) == (["ALL"], ["no-new-privileges"])
    assert (host["LogConfig"]["Type"], host["RestartPolicy"]["Name"], host["Init"]) == ("none", "no", True)
    assert made["Config"]["Labels"]["app"] == "a"


def image_with_volume() -> str:
    made = subprocess.check_output(["docker", "create", python_image(PROBE)], text=True).strip()
    try:
        subprocess.run(["docker", "commit", "-c", "VOLUME /data", made, "hearth-test/volume"], check=True)
    finally:
        subprocess.run(["docker", "rm", made], check=True)
    return "hearth-test/volume:latest"


async def test_images_with_volumes_are_refused_where_functions_listen(docker: None) -> None:
    image = image_with_volume()
    async with opened() as driver:
        with pytest.raises(ImageHasVolumes, match="it declares volumes: /data"):
            await driver.prepare(refused := spec(image=image, listens=True))
        await (await driver.prepare(spec(image=image))).remove()
        await (await driver.prepare(spec(listens=True))).remove()
    gone = subprocess.run(["docker", "inspect", refused.id], capture_output=True, check=False)
    assert gone.returncode != 0, "nothing is left"
    async with opened(walls=Walls(listeners_have_volumes=True)) as driver:
        made = await driver.prepare(spec(image=image, listens=True))
        volumes = [mount["Name"] for mount in inspect(made.id)["Mounts"] if mount["Type"] == "volume"]
        assert len(volumes) == 1
        await made.remove()
        left = subprocess.run(["docker", "volume", "inspect", volumes[0]], capture_output=True, check=False)
        assert left.returncode != 0, "its volume goes with it"


async def test_containers_are_spread_over_the_least_used_network(docker: None) -> None:
    async with opened(walls=Walls(networks=("none", "bridge"))) as driver:
        containers = [await driver.prepare(spec()) for _ in range(3)]
        used = [inspect(container.id)["HostConfig"]["NetworkMode"] for container in containers]
        await containers[1].remove()
        again = await driver.prepare(spec())
        used.append(inspect(again.id)["HostConfig"]["NetworkMode"])
        await asyncio.gather(*[container.remove() for container in (*containers, again)])
    assert used == ["none", "bridge", "none", "bridge"]


async def run(driver: DockerDriver, wanted: ContainerSpec) -> None:
    container = await driver.prepare(wanted)
    try:
        await container.start()
    finally:
        await container.remove()


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("", "secret", "invalid environment variable in the config"),
        ("SECRET", "a\0b", "NUL character in an environment variable of the config"),
        ("A\0B", "secret", "NUL character in an environment variable of the config"),
    ],
)
async def test_an_environment_that_the_engine_refuses_fails_the_start_at_once(
    docker: None, variable: str, value: str, reason: str
) -> None:
    async with opened() as driver:
        refused = spec()
        refused = dataclasses.replace(refused, env={**refused.env, variable: value})
        with capture_logs() as logs, pytest.raises(StartFailed) as failed:
            await run(driver, refused)
    assert (failed.value.reason, failed.value.image_fault) == (reason, True)
    assert [entry["event"] for entry in logs if entry["log_level"] == "warning"] == [
        "docker engine refuses a container"
    ]
    assert value not in str(logs)


async def test_the_engine_says_when_a_container_ended_by_the_clock_of_this_machine(docker: None) -> None:
    clock = SystemClock()
    async with opened() as driver:
        container = await driver.prepare(spec("exit-3"))
        started = clock.now()
        await container.start()
        assert (await container.wait()).code == 3
        ended = await container.ended_at()
        assert ended is not None
        assert started < ended < clock.now()
        await container.remove()


async def test_the_clock_of_an_engine_elsewhere_is_not_trusted(scripted: ScriptedEngine) -> None:
    """Its time is close to ours, its kernel is not ours."""
    engine = Engine(scripted.host, SystemClock())
    scripted.info = {"KernelVersion": os.uname().release}
    assert not await engine.has_our_clock()
    for kernel, ours in ((os.uname().release, True), ("5.0-elsewhere", False)):
        scripted.info = {"KernelVersion": kernel, "SystemTime": None}
        assert await engine.has_our_clock() is ours
    await engine.close()


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-29T23:00:26.449844084Z", "2026-11-29T23:00:26.449844+00:00"),
        ("2026-11-29T23:00:26.5+02:00", "2026-11-29T23:00:26.500000+02:00"),
        ("2026-11-29T23:00:26Z", "2026-11-29T23:00:26+00:00"),
        ("0001-01-01T00:00:00Z", None),
        ("None", None),
    ],
)
def test_times_of_the_engine_are_read_to_the_microsecond(text: str, moment: str | None) -> None:
    found = parse_moment(text)
    assert (None if found is None else found.isoformat()) == moment


async def listening(engine: Engine) -> None:
    async with asyncio.timeout(60):
        while engine.docker.events.json_stream is None:
            await asyncio.sleep(0.01)


async def test_an_end_is_known_by_its_event_before_the_engine_answers(
    docker: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*args: object, **options: object) -> None:
        await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(DockerContainer, "wait", never)
    async with opened() as driver:
        await listening(driver._opened().engine)
        container = await driver.prepare(spec("exit-3"))
        await container.start()
        assert (await container.wait()).code == 3
        assert await container.channel.stdout.read() == b""
        await container.remove()


async def test_an_end_whose_event_is_missed_is_known_by_the_engines_answer(
    docker: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Exits, "_take", lambda *args: None)
    async with opened() as driver:
        container = await driver.prepare(spec("exit-3"))
        await container.start()
        assert (await container.wait()).code == 3
        await container.remove()


@pytest.fixture
def checked_image(docker: None, request: pytest.FixtureRequest) -> Any:
    """An image whose health check is this Python program."""
    made: list[str] = []

    def make(program: str) -> str:
        interpreter = f"{sys.base_prefix}/bin/python{sys.version_info.major}.{sys.version_info.minor}"
        check = f"HEALTHCHECK --interval=200ms --retries=1 CMD {json.dumps([interpreter, '-c', program])}"
        base = subprocess.check_output(["docker", "create", python_image(PROBE)], text=True).strip()
        made.append(f"hearth-test/checked:{os.getpid()}-{len(made)}")
        subprocess.run(["docker", "commit", "--change", check, base, made[-1]], check=True, capture_output=True)
        subprocess.run(["docker", "rm", base], check=True, capture_output=True)
        return made[-1]

    yield make
    subprocess.run(["docker", "rmi", "-f", *made], check=True, capture_output=True)


async def test_a_start_waits_until_the_image_says_it_is_healthy(checked_image: Any) -> None:
    async with opened(limits=PhaseLimits(start_s=20)) as driver:
        container = await driver.prepare(spec(image=checked_image("pass")))
        await container.start()
        assert inspect(container.id)["State"]["Health"]["Status"] == "healthy"
        await container.remove()


@pytest.mark.parametrize(
    ("probe", "check", "reason"),
    [
        ("sleep", "import sys; sys.exit(1)", "health check fails"),
        ("exit-3", "import time; time.sleep(60)", "exit code 3"),
    ],
)
async def test_a_container_that_gets_not_healthy_does_not_start(
    checked_image: Any, probe: str, check: str, reason: str
) -> None:
    async with opened(limits=PhaseLimits(start_s=20)) as driver:
        container = await driver.prepare(spec(probe, image=checked_image(check)))
        with pytest.raises(StartFailed, match=reason) as failed:
            await container.start()
        assert failed.value.image_fault
        await container.remove()


async def test_a_lack_of_memory_may_be_told_after_the_end(docker: None, monkeypatch: pytest.MonkeyPatch) -> None:
    show = DockerContainer.show
    asked = 0

    async def show_late(container: DockerContainer, **options: Any) -> dict[str, Any]:
        nonlocal asked
        shown = await show(container, **options)
        if not shown["State"]["Running"]:
            asked += 1
            if asked <= 4:
                shown["State"]["OOMKilled"] = False
        return shown

    monkeypatch.setattr(DockerContainer, "show", show_late)
    async with opened() as driver:
        container = await driver.prepare(spec("allocate"))
        await container.start()
        ended = await container.wait()
        assert (ended.code, ended.oom) == (137, True)
        await container.remove()


# -- a scripted one ---------------------------------------------------------------------------------------------------


class ScriptedEngine:
    """Makes and removes containers in name only; ``answers`` come first, one for each request.

    Events are told as ``told`` has them, ``None`` ends a connection; without ``told`` they are refused.
    """

    def __init__(self, host: str) -> None:
        self.host = host
        self.refuses = ""
        self.answers: list[tuple[int, str]] = []
        self.created: list[dict[str, Any]] = []
        self.is_broken = False
        self.removed = 0
        self.info: dict[str, str | bool | None] = {}
        self.first_removal = asyncio.Event()
        self.told: asyncio.Queue[dict[str, Any] | None] | None = None
        self.asked_for_events = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.path.endswith("/events"):
            self.asked_for_events += 1
            return await self._tell(request)
        if request.path.endswith("/version"):
            return web.json_response({"ApiVersion": "1.41"})
        if request.path.endswith("/info"):
            return web.json_response(
                {name: SystemClock().now().isoformat() if value is None else value for name, value in self.info.items()}
            )
        if request.path.endswith(("/networks", "/containers/json")):
            return web.json_response([])
        if self.is_broken:
            return web.json_response({"message": "busy"}, status=500)
        if self.answers:
            status, message = self.answers.pop(0)
            return web.json_response({"message": message}, status=status)
        if request.method == "DELETE":
            self.removed += 1
            self.first_removal.set()
            return web.Response(status=204)
        if request.path.endswith("/kill"):
            return web.json_response({"message": "No such container: x"}, status=404)
        form = await request.json()
        if self.refuses in form["HostConfig"]:
            return web.json_response(
                {"message": f"this kernel has no {_SAID.get(self.refuses, self.refuses)}"}, status=400
            )
        self.created.append(form["HostConfig"])
        return web.json_response({"Id": "x"}, status=201)

    async def _tell(self, request: web.Request) -> web.StreamResponse:
        if self.told is None:
            return web.json_response({"message": "forbidden"}, status=403)
        stream = web.StreamResponse()
        await stream.prepare(request)
        while (event := await self.told.get()) is not None:
            await stream.write(json.dumps(event).encode() + b"\n")
        return stream


_SAID = {
    "MemorySwap": "swap limit",
    "PidsLimit": "pids limit",
    "Ulimits": "ulimits",
    "ShmSize": "shm size",
    "Memory": "memory limit",
    "CapDrop": "capabilities",
    "SecurityOpt": "no-new-privileges",
}


@pytest.fixture
async def scripted(tmp_path: Path) -> AsyncIterator[ScriptedEngine]:
    engine = ScriptedEngine(f"unix://{tmp_path}/e.sock")
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", engine.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    await web.UnixSite(runner, f"{tmp_path}/e.sock").start()
    yield engine
    await runner.cleanup()


@contextlib.asynccontextmanager
async def opened_on(scripted: ScriptedEngine, limits: PhaseLimits) -> AsyncIterator[DockerDriver]:
    walls = Walls(network=FunctionNetwork.NONE)  # the firewall of the machine is not this Engine's
    driver = DockerDriver(scripted.host, node="n", instance="i", limits=limits, walls=walls)
    await driver.open()
    yield driver
    await driver.close()


@pytest.fixture
async def driver(scripted: ScriptedEngine) -> AsyncIterator[DockerDriver]:
    async with opened_on(scripted, PhaseLimits()) as made:
        yield made


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("MemorySwap", missing_limits.SWAP),
        ("PidsLimit", missing_limits.PROCESSES),
        ("Ulimits", missing_limits.OPEN_FILES),
        ("ShmSize", missing_limits.SHARED_MEMORY),
    ],
)
async def test_a_limit_that_the_engine_refuses_is_left_out_with_one_warning(
    scripted: ScriptedEngine, driver: DockerDriver, option: str, sentence: str
) -> None:
    scripted.refuses = option
    assert driver.warnings == ()
    with capture_logs() as logs:
        for _ in range(2):
            await (await driver.prepare(spec(image="x"))).remove()
    assert [option in made for made in scripted.created] == [False, False]
    assert [entry["option"] for entry in logs if entry["log_level"] == "warning"] == [option]
    assert driver.warnings == (sentence,)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("MemoryLimit", missing_limits.MEMORY),
        ("SwapLimit", missing_limits.SWAP),
        ("CpuCfsQuota", missing_limits.CPU),
        ("PidsLimit", missing_limits.PROCESSES),
    ],
)
async def test_a_limit_that_the_engine_does_not_have_is_told(
    scripted: ScriptedEngine, name: str, sentence: str
) -> None:
    """Such an Engine refuses nothing: it makes the container without the limit."""
    scripted.info = {name: False}
    with capture_logs() as logs:
        async with opened_on(scripted, PhaseLimits()) as driver:
            assert driver.warnings == (sentence,)
    assert [entry["event"] for entry in logs if entry["log_level"] == "warning"] == [sentence]
    scripted.info = {name: True}
    async with opened_on(scripted, PhaseLimits()) as driver:
        assert driver.warnings == ()


async def test_a_limit_that_nobody_asks_for_is_not_missed(scripted: ScriptedEngine) -> None:
    scripted.info = {"PidsLimit": False}
    driver = DockerDriver(scripted.host, node="n", instance="i", walls=Walls(max_pids=0, network=FunctionNetwork.NONE))
    await driver.open()
    assert driver.warnings == ()
    await driver.close()


async def test_a_node_and_the_doctor_tell_what_the_engine_does_not_limit(
    scripted: ScriptedEngine, tmp_path: Path
) -> None:
    scripted.info = {"MemoryLimit": False, "PidsLimit": False, "SwapLimit": True}

    def look() -> tuple[list[str], list[tuple[str, str]]]:
        with running_node("docker", tmp_path, "none", DOCKER_HOST=scripted.host, FN_FUNCTION_NETWORK="none") as node:
            warnings = node.http.get("/readyz").json()["warnings"]
        environment = {**os.environ, "FN_DRIVER": "docker", "FN_DATA_DIR": str(tmp_path), "DOCKER_HOST": scripted.host}
        done = subprocess.run([HEARTH, "doctor", "-o", "json"], env=environment, capture_output=True, text=True)
        found = [finding for finding in json.loads(done.stdout) if finding["check"] == "docker limit"]
        return warnings, [(finding["status"], finding["found"]) for finding in found]

    warnings, found = await asyncio.to_thread(look)
    assert warnings == [missing_limits.MEMORY, missing_limits.PROCESSES]
    assert found == [("warn", missing_limits.MEMORY), ("warn", missing_limits.PROCESSES)]


@pytest.mark.parametrize("wall", ["CapDrop", "SecurityOpt", "Memory"])
async def test_a_wall_that_the_engine_refuses_is_never_left_out(
    scripted: ScriptedEngine, driver: DockerDriver, wall: str
) -> None:
    scripted.refuses = wall
    with pytest.raises(StartFailed):
        await driver.prepare(spec(image="x"))
    assert scripted.created == []


async def test_what_passes_is_tried_again_in_create_and_remove(scripted: ScriptedEngine, driver: DockerDriver) -> None:
    scripted.answers = [(500, "try again"), (503, "busy")]
    with capture_logs() as logs:
        container = await driver.prepare(spec(image="x"))
        scripted.answers = [(500, "device or resource busy")] * 3
        await container.remove()
    assert [entry["call"] for entry in logs if entry["event"] == RETRY] == ["create"] * 2 + ["remove"] * 3
    assert scripted.removed == 1


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (500, "no space left on device"),
        (400, "bad"),
        (500, "invalid reference"),
        (500, "error during container init: x"),
    ],
)
async def test_what_stays_is_not_tried_again(
    scripted: ScriptedEngine, driver: DockerDriver, status: int, message: str
) -> None:
    scripted.answers = [(status, message)]
    with capture_logs() as logs, pytest.raises(DriverError, match=message):
        await driver.prepare(spec(image="x"))
    assert [entry for entry in logs if entry["event"] == RETRY] == []
    assert scripted.created == []


async def test_create_gives_up_at_its_limit_when_the_engine_never_recovers(scripted: ScriptedEngine) -> None:
    scripted.is_broken = True
    async with opened_on(scripted, PhaseLimits(create_s=0.2)) as driver:
        with pytest.raises(OutOfTime) as late:
            await driver.prepare(spec(image="x"))
        assert late.value.phase == "create"
        scripted.is_broken = False


async def test_a_removal_goes_on_after_its_caller_has_waited_for_the_limit(scripted: ScriptedEngine) -> None:
    async with opened_on(scripted, PhaseLimits(remove_s=0.2)) as driver:
        container = await driver.prepare(spec(image="x"))
        scripted.is_broken = True
        with pytest.raises(OutOfTime) as late:
            await container.remove()
        assert late.value.phase == "remove"
        assert scripted.removed == 0
        scripted.is_broken = False
        await scripted.first_removal.wait()


async def test_a_container_that_is_gone_is_removed(scripted: ScriptedEngine, driver: DockerDriver) -> None:
    container = await driver.prepare(spec(image="x"))
    scripted.answers = [(404, "No such container: x")]
    await container.remove()
    await container.kill()
    assert container.exited is not None


async def test_streams_given_up_while_they_are_being_opened_are_closed(scripted: ScriptedEngine) -> None:
    engine = Engine(scripted.host, SystemClock())
    attachment = Attachment()
    opening = asyncio.ensure_future(attachment.open(engine, "x", "stdout=1"))
    attachment.abort()
    with pytest.raises(ConnectionAbortedError):
        await opening
    await attachment.output.wait_ended()
    await engine.close()


def died(engine_id: str, code: int) -> dict[str, Any]:
    return {"status": "die", "time": 1, "Actor": {"ID": engine_id, "Attributes": {"exitCode": str(code)}}}


async def test_ends_are_told_to_those_who_expect_them_also_over_the_next_connection(scripted: ScriptedEngine) -> None:
    clock = FakeClock()
    engine = Engine(scripted.host, clock)
    scripted.told = asyncio.Queue()
    exits = Exits(engine, "a=b")
    first, second, known = exits.expect("1"), exits.expect("2"), exits.expect("3")
    known.cancel()
    for event in (died("other", 9), died("3", 9), died("1", 3), died("1", 4), None, died("2", 137)):
        scripted.told.put_nowait(event)
    assert await first == 3
    async with asyncio.timeout(60):
        while not clock.pending:
            await asyncio.sleep(0.01)
    clock.advance(1.0)
    assert await second == 137
    scripted.told.put_nowait(None)
    await exits.close()
    await engine.close()
    assert repr(exits) == "<Exits expected=0>"


async def test_an_engine_that_refuses_events_is_not_asked_again(scripted: ScriptedEngine) -> None:
    engine = Engine(scripted.host, SystemClock())
    with capture_logs() as logs:
        exits = Exits(engine, "a=b")
        async with asyncio.timeout(60):
            while not logs:
                await asyncio.sleep(0.01)
        await exits.close()
    await engine.close()
    assert [entry["log_level"] for entry in logs] == ["info"]
    assert scripted.asked_for_events == 1
