"""Functions that try to get out of their container, on a node that is root and on one that is an ordinary user.

Each test sees that no attempt worked, and that nothing outside has changed.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.jails import ORDINARY_UID, Jail, opened_jail, user_of
from tests.support.waiting import until

SECRET = b"secret of the host"
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")


KINDS = [f"{user}, network {network}" for user in ("root", "ordinary user") for network in ("none", "internet", "host")]
#: With an image that brings a root file system: its walls are the same, so one network will do.
KINDS += [f"{user}, network none, an image" for user in ("root", "ordinary user")]


@pytest.fixture(scope="module", params=KINDS)
def jail(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jail]:
    """A server of either kind, with each network of functions."""
    user, network, *image = request.param.replace("network ", "").split(", ")
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    if os.geteuid() != 0:
        pytest.skip("the server is started as other users")
    folder = tmp_path_factory.mktemp("jail")
    images = {"escape:1": {"user": "1000:1000"}} if image else None
    with opened_jail(folder, is_root=user == "root", network=network, images=images) as opened:
        if "unavailable" in opened.capabilities:
            pytest.skip(opened.capabilities["unavailable"])
        assert opened.capabilities.get("isolates_network") is (network != "host")
        yield opened


def devices() -> dict[str, tuple[int, int, int]]:
    found = {name: os.stat(f"/dev/{name}") for name in DEVICES}
    return {name: (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid) for name, info in found.items()}


def test_no_namespace_is_made_or_joined(jail: Jail) -> None:
    found = jail.run("namespaces").told
    assert "done" not in found.values(), found
    assert {name: result for name, result in found.items() if name.startswith("clone3")} == {
        name: "ENOSYS" for name in found if name.startswith("clone3")
    }, "the C library falls back to clone"


def test_no_control_group_is_mounted_or_written(jail: Jail) -> None:
    found = jail.run("groups").told
    assert set(found.values()) <= {"EPERM", "EACCES", "ENOENT", "ENOSYS"}, found


def test_system_calls_that_change_the_machine_are_refused(jail: Jail) -> None:
    found = jail.run("calls").told
    assert set(found.values()) <= {"EPERM", "ENOSYS", "EAFNOSUPPORT"}, found
    assert found["a call of a later kernel"] == "ENOSYS"
    assert socket.gethostname() != "taken"


def test_what_programs_do_all_the_time_works(jail: Jail) -> None:
    if jail.has_own_root:
        pytest.skip("the image has this Python, and nothing else")
    there = {path for path in ("/etc/mime.types", "/etc/fonts") if os.path.exists(path)}
    fonts = {"FONTS": "1"} if "/etc/fonts" in there else {}
    found = jail.run("ordinary", env={"SYSTEM_FILES": " ".join(there), **fonts}).told
    assert found.pop("user") == found.pop("group") == "function"
    assert set(found.values()) == {"done"}, found


def test_devices_are_neither_made_nor_changed(jail: Jail) -> None:
    before = devices()
    found = jail.run("devices").told
    assert "done" not in found.values(), found
    assert devices() == before


def test_other_processes_and_the_kernel_are_out_of_reach(jail: Jail) -> None:
    secret = ctypes.create_string_buffer(SECRET)
    with subprocess.Popen(["sleep", "600"], user=ORDINARY_UID, env={"MARK": "victim"}) as victim:
        env = {"VICTIM": str(victim.pid), "ADDRESS": str(ctypes.addressof(secret))}
        found = jail.run("processes", env=env).told
        assert found.pop("visible") == []
        assert "done" not in found.values(), found
        assert victim.poll() is None
        victim.kill()


def test_it_has_no_right_no_inherited_descriptor_and_no_ignored_signal(jail: Jail) -> None:
    found = jail.run("state").told
    assert {found[name] for name in found if name.startswith("Cap")} == {"0" * 16}
    assert found["NoNewPrivs"] == "1"
    assert found["Seccomp"] == "2"
    assert found["SigBlk"] == "0" * 16
    ignored = {number for number in range(1, 65) if int(found["SigIgn"], 16) >> (number - 1) & 1}
    assert ignored <= {signal.SIGPIPE, signal.SIGXFSZ, 32, 33}, "those that Python ignores, and those of the C library"
    assert found["uid"] == 1000
    assert found["core"] == [0, 0]
    assert found["files"] == [1024, 1024]
    assert found["oom"] == 500
    assert found["umask"] == 0o022
    if jail.is_root:  # its node gives functions device nodes of their own
        assert {name for name, place in found["devices"].items() if place == os.stat(f"/dev/{name}").st_dev} == set()
    held = {name: target for name, target in found["descriptors"].items() if name.startswith("self/")}
    assert {name for name, target in held.items() if target.startswith(("pipe:", "/dev/null"))} >= {"self/0", "self/1"}
    assert not [target for target in found["descriptors"].values() if "mnt:" in target or "net:" in target]
    assert len(held) <= 5  # three pipes, its copy of one, the status that it reads


def test_it_is_an_ordinary_user_of_the_machine_another_one_for_each_app(jail: Jail) -> None:
    with jail.held("stay", app="a") as first, jail.held("stay", app="b") as second, jail.held("stay", app="a") as third:
        users = [set[int]().union(*map(user_of, pids)) for pids in (first, second, third)]
    assert all(len(ids) == 1 for ids in users), "one number for user and group, and no further group"
    if jail.is_root:
        assert users[0] == users[2] != users[1]
        assert min(users[0] | users[1]) >= 2_000_000_000
    else:
        assert users[0] == users[1] == {ORDINARY_UID}


def test_set_uid_programs_give_nothing(jail: Jail) -> None:
    assert "done" not in jail.run("set_uid").told.values()


def test_files_of_others_cannot_be_read(jail: Jail) -> None:
    data = jail.bundles.parent
    other = jail.bundles / "other" / "latest" / "function"
    other.mkdir(parents=True, exist_ok=True)
    (other / "func.py").write_text("code of another app")
    (data / "fn.db").write_text("records")
    paths = [data / "fn.db", other / "func.py", "/etc/shadow", "/etc/ssl/private", "/root/.bashrc", "/root/.ssh"]
    paths += ["/var/lib/docker", "/sys/kernel", "/proc/1/environ", "/etc/gshadow", f"/proc/{os.getpid()}/environ"]
    found = jail.run("files", env={"PATHS": json.dumps([str(path) for path in paths])}).told
    if jail.has_own_root:
        assert [found.pop(f"write {folder}") for folder in ("/", "..", "/etc")] == ["done"] * 3
    own = found.pop("read /proc/1/environ")
    assert own in ("done", "EACCES"), "its sandbox's first process, which has nothing of the server's"
    assert "done" not in found.values(), found
    assert not [result for result in found.values() if result.startswith("lists")], found
    assert not list(jail.bundles.rglob("escape/escape"))


def test_sockets_of_the_host_are_not_there(jail: Jail) -> None:
    path = jail.bundles.parent / "server.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        paths = [
            str(path),
            "/var/run/docker.sock",
            "/run/docker.sock",
            "/run/systemd/private",
            "/run/dbus/system_bus_socket",
        ]
        found = jail.run("sockets", env={"PATHS": json.dumps(paths)}).told
    path.unlink()
    assert set(found.values()) == {"ENOENT"}, found


@pytest.mark.parametrize(
    ("network", "result"), [("none", "ECONNREFUSED"), ("internet", "ECONNREFUSED"), ("host", "done")]
)
@pytest.mark.parametrize("kind", ["root", "ordinary user"])
def test_abstract_sockets_of_the_host_are_in_reach_with_its_network_only(
    tmp_path: Path, network: str, result: str, kind: str
) -> None:
    name = f"\0hearth-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(name)
        listener.listen()
        with opened_jail(tmp_path, is_root=kind == "root", network=network) as jail:
            if "unavailable" in jail.capabilities:
                pytest.skip(jail.capabilities["unavailable"])
            found = jail.run("sockets", env={"PATHS": json.dumps([name])}).told
    assert found == {name: result}


def test_file_systems_in_memory_hold_no_more_than_the_function_may_use(jail: Jail) -> None:
    ran = jail.run("fill", memory_mib=32)
    if jail.limits_memory:
        assert ran.oom, "they are counted as its memory"
        return
    taken = ran.told
    assert sum(taken.values()) <= 32 << 20
    own_root = {"/run"} if jail.has_own_root else set()  # the first folder of it that is tried
    assert {folder for folder, count in taken.items() if count} == {"/tmp", "/dev/shm"} | own_root


def test_memory_outside_of_the_address_space_is_limited(jail: Jail) -> None:
    ran = jail.run("hidden_memory", memory_mib=32)
    if jail.limits_memory:
        assert ran.oom
    else:
        assert ran.told == {"memfd": 0, "shm": 0, "semaphores": 0, "messages": 0}


def test_a_bomb_of_memory_ends_after_attempts_to_widen_its_limit(jail: Jail) -> None:
    ran = jail.run("hog", memory_mib=64)
    assert ran.code != 0
    assert ran.oom == jail.limits_memory


def test_a_bomb_of_processes_is_bounded(jail: Jail) -> None:
    assert jail.run("fork_bomb").told["made"] < 52
    assert until(lambda: jail.left() == [])


def test_a_bomb_of_descriptors_is_bounded(jail: Jail) -> None:
    assert jail.run("descriptor_bomb").told["made"] < 1024


def test_a_daemon_ends_with_its_container(jail: Jail) -> None:
    assert jail.run("daemon").told == {"left": True}
    assert until(lambda: jail.left() == [])


@pytest.mark.parametrize("daemon", ["daemon", "clean_daemon"])
def test_without_a_sandbox_a_daemon_ends_with_its_container_too(tmp_path: Path, daemon: str) -> None:
    with opened_jail(tmp_path, is_root=False, sandbox="off") as jail:
        assert jail.run(daemon).told == {"left": True}
        assert jail.left() == []


def test_without_a_sandbox_containers_of_others_stay(tmp_path: Path) -> None:
    with opened_jail(tmp_path, is_root=False, sandbox="off") as jail, jail.held("stay_with_a_clean_daemon") as others:
        with jail.held("stay_with_a_clean_daemon") as processes:
            assert len(others) == len(processes) == 2
        assert until(lambda: sorted(jail.left()) == sorted(others))


@pytest.mark.parametrize("sandbox", ["required", "off"])
@pytest.mark.parametrize("function", ["stay_with_a_daemon", "stay_with_a_clean_daemon"])
def test_what_a_killed_server_leaves_ends_with_its_next_start_at_the_latest(
    tmp_path: Path, sandbox: str, function: str
) -> None:
    with opened_jail(tmp_path, is_root=False, sandbox=sandbox) as jail, jail.held(function) as processes:
        assert len(processes) >= 2
        jail.die()
    with opened_jail(tmp_path, is_root=False, sandbox=sandbox) as jail:
        assert until(lambda: jail.left() == [])
