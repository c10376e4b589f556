"""What functions as processes reach, on a node that is root and on one that is an ordinary user."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.jails import Jail, opened_jail
from tests.support.outside import ANSWER, PORT, Outside, addresses_of_this_machine, connected
from tests.support.waiting import until

REACH = Path(__file__).parents[2] / "functions" / "reach.py"
KINDS = ["root", "ordinary user"]
#: How a connection ends that the routes of the namespace refuse.
REFUSED = "PermissionError"


@pytest.fixture(scope="module")
def outside() -> Iterator[Outside]:
    for program in ("bwrap", "slirp4netns"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    with connected() as network:
        yield network


@pytest.fixture(scope="module")
def control_api(outside: Outside) -> Iterator[int]:
    """A service on all addresses of this machine; its port."""
    with socket.create_server(("", 0), backlog=64) as listener:
        threading.Thread(target=accept, args=(listener,), daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def accept(listener: socket.socket) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            connection.sendall(b"HTTP/1.1 200 API\r\n\r\n")


@pytest.fixture(scope="module", params=KINDS)
def jail(request: pytest.FixtureRequest, outside: Outside, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jail]:
    """Functions with the default network."""
    folder = tmp_path_factory.mktemp("jail")
    with opened_jail(folder, is_root=request.param == "root", function=REACH) as opened:
        assert opened.capabilities["isolates_network"], opened.capabilities
        yield opened


def reach(jail: Jail, app: str = "app", **act: Any) -> dict[str, Any]:
    told: dict[str, Any] = jail.run("reach", app=app, env={"REACH": json.dumps(act)}).told
    return told


def helpers(jail: Jail) -> list[int]:
    """The helper processes of this server's networks."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if words[0].endswith(b"slirp4netns") and any(word.startswith(b"/proc/%d/" % jail.pid) for word in words):
            found.append(int(path.parent.name))
    return found


def test_the_internet_is_reached(jail: Jail, outside: Outside) -> None:
    place = f"{outside.public}:{PORT}"
    assert reach(jail, connect=[place])["connect"] == {place: ANSWER}


def test_this_machine_is_not_reached_by_any_address(jail: Jail, outside: Outside, control_api: int) -> None:
    own = [f"{address}:{control_api}" for address in addresses_of_this_machine()]
    assert f"{outside.ours[0]}:{control_api}" in own
    virtual = [f"10.0.2.{number}:{control_api}" for number in (1, 2, 3, 50, 254)]
    itself = [f"{address}:{control_api}" for address in ("127.0.0.1", "127.1.2.3", "0.0.0.0", "10.0.2.100")]
    found = reach(jail, connect=[*own, *virtual, *itself])["connect"]
    assert {place: found[place] for place in own} == dict.fromkeys(own, REFUSED)
    assert not [place for place in found if found[place].startswith("HTTP")], found


def test_private_and_link_addresses_are_refused(jail: Jail, outside: Outside) -> None:
    places = [f"{outside.private}:{PORT}", f"{outside.link}:{PORT}", "169.254.169.254:80", "100.100.100.200:80"]
    places += ["172.31.0.1:80", "192.168.1.1:80", "224.0.0.1:80", "255.255.255.255:80"]
    found = reach(jail, connect=places)["connect"]
    assert set(found.values()) <= {REFUSED, "OSError"}, found


def test_abstract_sockets_of_the_machine_are_out_of_reach(jail: Jail) -> None:
    name = f"hearth-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("\0" + name)
        listener.listen()
        assert reach(jail, abstract=[name])["abstract"] == {name: "ConnectionRefusedError"}


def test_functions_of_other_apps_are_not_reached(jail: Jail) -> None:
    act = json.dumps({"listen": 7070})
    places = ["10.0.2.100:7070", "127.0.0.1:7070"]
    with jail.held("reach", app="a", env={"REACH": act}):
        assert reach(jail, app="b", connect=places)["connect"] == dict.fromkeys(places, "ConnectionRefusedError")
        assert len(helpers(jail)) >= 2


def test_a_function_cannot_change_its_routes(jail: Jail, outside: Outside) -> None:
    found = reach(jail, routes=["10.0.0.0/8", f"{outside.ours[0]}/32"])["routes"]
    assert set(found.values()) == {"EPERM"}, found


def test_an_address_that_the_machine_gets_later_is_refused(jail: Jail, outside: Outside, control_api: int) -> None:
    place = f"{outside.spare}:{control_api}"
    with jail.held("reach", env={"REACH": json.dumps({"listen": 7070})}):  # the network exists
        os.spawnlp(os.P_WAIT, "ip", "ip", "address", "add", f"{outside.spare}/32", "dev", outside.cable)
        try:
            assert until(lambda: reach(jail, connect=[place])["connect"] == {place: REFUSED})
        finally:
            os.spawnlp(os.P_WAIT, "ip", "ip", "address", "delete", f"{outside.spare}/32", "dev", outside.cable)


def test_a_network_that_is_routed_to_this_machine_itself_is_refused(
    jail: Jail, outside: Outside, control_api: int
) -> None:
    place, public = f"{outside.routed}.77:{control_api}", f"{outside.public}:{PORT}"
    routes = [f"local {outside.routed}.0/24 dev lo", "local 0.0.0.0/0 dev lo table 4177"]
    with jail.held("reach", env={"REACH": json.dumps({"listen": 7070})}):  # the network exists
        for route in routes:
            subprocess.run(["ip", "route", "add", *route.split()], check=True)
        try:
            assert until(lambda: reach(jail, connect=[place])["connect"] == {place: REFUSED})
            assert reach(jail, app="new", connect=[place, public])["connect"] == {place: REFUSED, public: ANSWER}
        finally:
            for route in routes:
                subprocess.run(["ip", "route", "delete", *route.split()], check=True)


def test_the_connections_of_an_app_are_bounded(jail: Jail) -> None:
    """Each takes memory of the helper, which no limit of a function counts."""
    with jail.held("reach", app="bounded", env={"REACH": json.dumps({"listen": 7070})}):
        found = helpers(jail)
        assert found
        limits = [Path(f"/proc/{pid}/limits").read_text().splitlines() for pid in found]
        (open_files,) = {" ".join(line.split()) for lines in limits for line in lines if "open files" in line}
        assert open_files == "Max open files 2048 2048 files"


def test_a_helper_that_ends_is_started_again(jail: Jail, outside: Outside) -> None:
    place = f"{outside.public}:{PORT}"
    with jail.held("reach", app="mended", env={"REACH": json.dumps({"listen": 7070})}):
        before = helpers(jail)
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        assert until(lambda: reach(jail, app="mended", connect=[place])["connect"] == {place: ANSWER})
        assert not set(before) & set(helpers(jail))


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_left_of_a_killed_server(kind: str, outside: Outside, tmp_path: Path) -> None:
    with opened_jail(tmp_path, is_root=kind == "root", function=REACH) as jail:
        reach(jail)
        assert helpers(jail)
        os.kill(jail.pid, signal.SIGKILL)
        assert until(lambda: not helpers(jail))


@pytest.mark.parametrize("kind", KINDS)
def test_private_networks_can_be_allowed_but_not_this_machine_within_them(
    kind: str, outside: Outside, control_api: int, tmp_path: Path
) -> None:
    walls: dict[str, Any] = {"network": "internet", "allowed_networks": [outside.private_network]}
    with opened_jail(tmp_path, is_root=kind == "root", function=REACH, **walls) as jail:
        places = [f"{outside.private}:{PORT}", f"{outside.ours[1]}:{control_api}", f"{outside.link}:{PORT}"]
        assert reach(jail, connect=places)["connect"] == dict(zip(places, [ANSWER, REFUSED, REFUSED], strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_an_address_of_this_machine_is_allowed_by_itself_only(
    kind: str, outside: Outside, control_api: int, tmp_path: Path
) -> None:
    allowed: dict[str, Any] = {"network": "internet", "allowed_networks": [f"{outside.ours[1]}/32"]}
    with opened_jail(tmp_path, is_root=kind == "root", function=REACH, **allowed) as jail:
        places = [f"{outside.ours[1]}:{control_api}", f"{outside.ours[0]}:{control_api}", f"{outside.private}:{PORT}"]
        found = reach(jail, connect=places)["connect"]
        assert found == dict(zip(places, ["HTTP/1.1 200 API", REFUSED, REFUSED], strict=True))


def is_reached(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), 60).close()
    except OSError:
        return False
    return True


def test_there_is_no_ipv6(jail: Jail, outside: Outside) -> None:
    """Routes would be announced to functions some time after their start: their helper must not carry any."""
    with jail.held("reach", app="plain", env={"REACH": json.dumps({"listen": 7070})}):
        commands = [Path(f"/proc/{pid}/cmdline").read_text().split("\0") for pid in helpers(jail)]
        assert commands
        assert not [words for words in commands if any("ipv6" in word or word == "-6" for word in words)]
    address = "2001:db8::77"
    added = ["ip", "-6", "address", "add", f"{address}/128", "dev", outside.cable, "nodad"]
    subprocess.run(added, check=True)
    try:
        with socket.create_server((address, 0), family=socket.AF_INET6) as listener:
            place = f"{address}:{listener.getsockname()[1]}"
            assert until(lambda: is_reached(address, listener.getsockname()[1])), "by the machine itself"
            assert reach(jail, connect=[place])["connect"] == {place: "OSError"}, "network is unreachable"
    finally:
        subprocess.run([*added[:3], "delete", *added[4:-1]], check=True)


def test_nobody_outside_reaches_what_a_function_listens_on(jail: Jail, outside: Outside) -> None:
    with jail.held("reach", app="listening", env={"REACH": json.dumps({"listen": 7070})}):
        inside = ["10.0.2.100:7070"]
        reached = reach(jail, app="listening", connect=["127.0.0.1:7070"])["connect"]["127.0.0.1:7070"]
        assert reached in ("connected", "ConnectionResetError"), "it closes what it accepts"
        for host in ("127.0.0.1", *addresses_of_this_machine()):
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((host, 7070), 60)
        assert reach(jail, app="other", connect=inside)["connect"] == {inside[0]: "ConnectionRefusedError"}


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_network_a_function_has_its_own_loopback_only(
    kind: str, outside: Outside, control_api: int, tmp_path: Path
) -> None:
    with opened_jail(tmp_path, is_root=kind == "root", function=REACH, network="none") as jail:
        places = [f"{outside.public}:{PORT}", f"{outside.ours[0]}:{control_api}"]
        told = reach(jail, connect=[*places, f"127.0.0.1:{control_api}"], resolve=["example.com"])
        assert {told["connect"][place] for place in places} == {"OSError"}, "network is unreachable"
        assert told["connect"][f"127.0.0.1:{control_api}"] == "ConnectionRefusedError"
        assert told["resolve"] == {"example.com": "gaierror"}
        assert helpers(jail) == []


@pytest.mark.parametrize("kind", KINDS)
def test_with_the_network_of_the_host_a_function_reaches_its_loopback(
    kind: str, outside: Outside, control_api: int, tmp_path: Path
) -> None:
    with opened_jail(tmp_path, is_root=kind == "root", function=REACH, network="host") as jail:
        place = f"127.0.0.1:{control_api}"
        assert reach(jail, connect=[place])["connect"] == {place: "HTTP/1.1 200 API"}
        assert not jail.capabilities["isolates_network"]


def test_names_are_resolved_by_the_resolver_of_the_machine(outside: Outside, tmp_path: Path) -> None:
    resolver = tmp_path / "resolv.conf"
    resolver.write_text(f"nameserver {outside.private}\noptions timeout:5\n")
    prepared = f"mount --bind {resolver} /etc/resolv.conf"
    with opened_jail(tmp_path, is_root=True, function=REACH, prepared=prepared) as jail:
        assert reach(jail, resolve=["hearth.example"])["resolve"] == {"hearth.example": outside.public}


@pytest.mark.parametrize(("fallback", "isolated"), [("none", True), ("host", False)])
def test_where_no_network_can_be_made_the_operator_is_told(
    outside: Outside, tmp_path: Path, fallback: str, isolated: bool
) -> None:
    hidden = f"mount --bind /dev/null {shutil.which('slirp4netns')}"
    walls = {"network_without_tools": fallback}
    with opened_jail(tmp_path, is_root=True, function=REACH, prepared=hidden, **walls) as jail:
        assert jail.capabilities["isolates_network"] is isolated
        (warning,) = [text for text in jail.capabilities["warnings"] if "NETWORK" in text]
        assert f"FN_FUNCTION_NETWORK={fallback}" in warning
        assert "install slirp4netns and iproute2" in warning
        assert bool(reach(jail)["addresses"]) is not isolated


def test_a_network_that_is_asked_for_and_cannot_be_made_stops_the_start(outside: Outside, tmp_path: Path) -> None:
    hidden = "mount -t tmpfs none /dev/net"
    with opened_jail(tmp_path, is_root=True, function=REACH, prepared=hidden, network="internet") as jail:
        assert jail.capabilities["unavailable"].startswith("FN_FUNCTION_NETWORK=internet: slirp4netns does not work")
