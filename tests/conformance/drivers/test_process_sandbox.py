"""What a function in a sandbox cannot see or do (drivers specification 3)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.driver_bench import ProcessBench, make_bench, opened

from hearth.drivers.base import Container, OutOfTime, PhaseLimits, StartFailed
from hearth.drivers.local import bundle, sandbox, system_files
from hearth.drivers.local.driver import LocalDriver
from hearth.host import cgroups


@contextlib.asynccontextmanager
async def sandboxing(folder: Path) -> AsyncIterator[ProcessBench]:
    """The driver with a sandbox."""
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    bench = make_bench("process", folder)
    assert isinstance(bench, ProcessBench)
    async with opened(bench):
        yield bench


@pytest.fixture
async def walled(tmp_path: Path) -> AsyncIterator[ProcessBench]:
    async with sandboxing(tmp_path) as bench:
        yield bench


async def told(container: Container) -> Any:
    chunks = []
    while chunk := await container.channel.stdout.read():
        chunks.append(chunk)
    assert (await container.wait()).code == 0, await container.stderr.read()
    return json.loads(b"".join(chunks))


async def test_the_servers_files_and_sockets_are_not_there(walled: ProcessBench, tmp_path: Path) -> None:
    (tmp_path / "fn.db").write_text("secret")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "server.sock"))
        hidden: list[str | Path] = [tmp_path / name for name in ("fn.db", "server.sock", "probe")]
        hidden += ["/root", "/var/run/docker.sock"]
        hidden += ["/etc/shadow", "/sys", "/var", "/home/somebody", Path(__file__).parent, os.path.expanduser("~/.ssh")]
        paths = json.dumps([str(path) for path in hidden])
        seen = await told(await walled.start("look", PATHS=paths))
    # The interpreter's own folder may lie in the home of who runs the tests; nothing else of it shows.
    allowed = {str(path) for path in hidden if Path(sys.base_prefix).is_relative_to(path)}
    assert set(seen["seen"]) <= allowed


async def test_a_link_in_a_bundle_leads_to_nothing_of_the_server(walled: ProcessBench, tmp_path: Path) -> None:
    (tmp_path / "fn.db").write_text("secret")
    stored = tmp_path / "bundles" / "probe" / "latest"
    links: dict[str, str | Path] = {"up": "../../../../fn.db", "root": "/proc/1/root"}
    links |= {"absolute": tmp_path / "fn.db", "folder": tmp_path}
    for name, target in links.items():
        (stored / "function" / name).symlink_to(target)
    assert (stored / "function" / "up").read_text() == "secret", "outside of the sandbox they do lead there"
    paths = [*links, "folder/fn.db", f"root{tmp_path}/fn.db", "func.py"]
    seen = await told(await walled.start("look", PATHS=json.dumps(paths)))
    # The folders above the bundle are there, made for its path, and hold nothing else.
    assert set(seen["seen"]) <= {"func.py", "folder", "root"}
    assert "func.py" in seen["seen"]
    assert set(seen["written"]) <= {"folder"}, "which is in its own /tmp, where the tests run in /tmp"
    assert not (tmp_path / "hearth-probe").exists()


async def test_only_tmp_can_be_written_and_is_its_own(walled: ProcessBench, tmp_path: Path) -> None:
    files = tmp_path / "bundles" / "probe" / "latest" / "function"
    paths = json.dumps(["/", "/usr", "/etc", "/home", "/proc/sys/kernel", str(files), "/tmp"])
    seen = await told(await walled.start("look", PATHS=paths))
    assert seen["written"] == ["/tmp"]
    assert not Path("/tmp/hearth-probe").exists()
    assert not Path("/hearth-probe").exists()
    assert "hearth-probe" not in (await told(await walled.start("inside")))["tmp"]


async def test_what_is_read_only_stays_so(walled: ProcessBench) -> None:
    assert await told(await walled.start("remount")) == {"remounted": False, "written": False}
    assert not Path("/usr/hearth-probe").exists()


async def test_no_other_process_no_environment_no_descriptor_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_SERVER", "1")
    inherited = os.open("/dev/null", os.O_RDONLY)
    try:
        os.set_inheritable(inherited, True)
        async with sandboxing(tmp_path) as walled:
            neighbour = await walled.start("sleep", SECRET_OF_A_NEIGHBOUR="1")
            seen = await told(await walled.start("inside"))
            assert neighbour.exited is None
    finally:
        os.close(inherited)
    assert seen["pids"] <= 3  # the sandbox's first process, the function
    assert not [env for env in seen["environments"] if "SECRET" in env]
    assert seen["descriptors"] == [0, 1, 2, 3]  # and the folder that it lists
    assert seen["user"] == []


async def test_a_bomb_of_descriptors_does_not_hurt_a_neighbour(walled: ProcessBench) -> None:
    neighbour, bomb = await walled.start("echo"), await walled.start("descriptor-bomb")
    assert 100 < int(await bomb.channel.stdout.read()) < 1024
    await neighbour.channel.stdin.write(b"alive")
    assert await neighbour.channel.stdout.read() == b"alive"


async def test_a_sandbox_that_cannot_be_set_up_says_why(walled: ProcessBench, tmp_path: Path) -> None:
    container = await walled.prepare("sleep")
    shutil.rmtree(tmp_path / "bundles" / "probe")
    await container.start()
    ended = await container.wait()
    assert ended.code != 0
    assert "bwrap" in ended.error


async def test_a_program_outside_of_the_sandbox_is_refused(walled: ProcessBench, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    container = await walled.prepare("sleep", image=walled.spoiled(tmp_path / "outside", str(program)))
    with pytest.raises(StartFailed, match="outside of what a function sees"):
        await container.start()


async def test_an_interpreter_that_vanished_is_named(walled: ProcessBench, tmp_path: Path) -> None:
    interpreter = tmp_path / "python" / "bin" / "python3"
    image = walled.build(tmp_path / "old", "runtime: python")
    manifest = tmp_path / "bundles" / "old" / "latest" / bundle.MANIFEST
    written = json.loads(manifest.read_bytes())
    manifest.write_text(json.dumps({**written, "cmd": [str(interpreter)], "roots": [str(tmp_path / "python")]}))
    container = await walled.prepare("sleep", image=image)
    with pytest.raises(StartFailed, match="no such file or directory; build the bundle again") as failed:
        await container.start()
    assert failed.value.image_fault


async def test_an_environment_too_large_for_the_system_is_refused(walled: ProcessBench) -> None:
    container = await walled.prepare("env", LONG="x" * 200_000)
    with pytest.raises(StartFailed, match="too long"):
        await container.start()
    assert container.exited is None


async def test_a_disk_that_hangs_ends_the_create_phase(tmp_path: Path) -> None:
    bundles = tmp_path / "bundles"
    driver = LocalDriver(bundles, f"test-{os.getpid()}-hang", limits=PhaseLimits(create_s=0.05))
    await driver.open()
    folder = bundles / "stuck" / "latest"
    folder.mkdir(parents=True)
    os.mkfifo(folder / bundle.MANIFEST)
    bench = make_bench("process", tmp_path)
    bench.driver = driver
    with pytest.raises(OutOfTime, match="create"):
        await bench.prepare("sleep", image="stuck")
    await (await bench.prepare("sleep")).remove()
    (folder / bundle.MANIFEST).write_text("")  # lets the thread go
    await driver.close()


async def test_a_removal_that_hangs_is_told_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = LocalDriver(tmp_path / "bundles", f"test-{os.getpid()}-hang", limits=PhaseLimits(remove_s=0.05))
    bench = make_bench("process", tmp_path)
    bench.driver = driver
    await driver.open()
    if not driver.capabilities.limits_memory:
        pytest.skip("no control groups here")
    container = await bench.start("sleep")
    with monkeypatch.context() as patch:
        patch.setattr(cgroups.Group, "remove", lambda group: False)
        with pytest.raises(OutOfTime, match="remove"):
            await container.remove()
        await (await asyncio.gather(bench.prepare("sleep")))[0].kill()
    for made in bench.made:
        while True:  # on a busy machine this short limit may pass again
            with contextlib.suppress(OutOfTime):
                await made.remove()
                break
    assert bench.left() == []
    await driver.close()


async def test_requirements_are_installed_into_the_bundle(walled: ProcessBench, tmp_path: Path) -> None:
    source = tmp_path / "needy"
    (source / "wheels").mkdir(parents=True)
    name = "wheels/hearth_sample-1.0-py3-none-any.whl"
    with zipfile.ZipFile(source / name, "w") as wheel:
        info = "hearth_sample-1.0.dist-info"
        wheel.writestr("hearth_sample.py", "WORD = 'installed'\n")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: hearth-sample\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    (source / "requirements.txt").write_text(f"--no-index\n./{name}\n")
    container = await walled.prepare("use-package", image=walled.build(source, "runtime: python"))
    await container.start()
    assert await container.channel.stdout.read() == b"installed"


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
def test_user_namespaces_are_off_inside_without_the_filter_too(tmp_path: Path) -> None:
    system_files.write(tmp_path)
    found = sandbox.find((), tmp_path, None)
    view = sandbox.View(system_files=tmp_path, workdir="/usr", tmp_bytes=1 << 20, shm_bytes=1 << 20)

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(found.wrap(command, view, filtered=False), capture_output=True, text=True, timeout=60)

    assert run("true").returncode == 0
    refused = run("unshare", "--user", "true")
    assert refused.returncode != 0
    assert "No space left on device" in refused.stderr, "the limit of namespaces is none"
