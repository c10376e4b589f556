"""The unit of a node under systemd: valid, hardened, and open where the sandbox of functions needs it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from hearth.settings import Settings

FOLDER = Path(__file__).parents[2] / "deploy" / "systemd"
UNIT = FOLDER / "hearth.service"
LINES = [line.partition("=") for line in UNIT.read_text().splitlines() if "=" in line and not line.startswith("#")]
SERVICE = {name: value for name, _, value in LINES}
#: Each of them takes namespaces, mounts, control groups or a plain /proc from bubblewrap and slirp4netns.
BREAKS_THE_SANDBOX = {
    *("ProtectProc", "ProcSubset", "ProtectKernelTunables", "ProtectKernelLogs", "ProtectControlGroups"),
    *("ProtectHostname", "RestrictNamespaces", "MemoryDenyWriteExecute", "PrivateUsers", "PrivateDevices"),
    *("PrivateNetwork", "InaccessiblePaths", "TemporaryFileSystem", "RootDirectory"),
}
#: systemd's own mark from 0 (closed) to 10 (open), times ten: what a plain unit gets is 96.
EXPOSURE = 40


@pytest.fixture
def analyze() -> str:
    """The checker of systemd; engines.sh installs it."""
    found = shutil.which("systemd-analyze")
    assert found, "systemd-analyze is missing; tools/engines.sh installs it"
    return found


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit, with a program that exists here: a check looks for it."""
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace("ExecStart=/opt/hearth/bin/hearth start", "ExecStart=/bin/true"))
    return copy


def test_systemd_accepts_the_unit(analyze: str, unit: Path) -> None:
    done = subprocess.run([analyze, "verify", unit], capture_output=True, text=True)
    said = [line for line in done.stderr.splitlines() if UNIT.name in line]
    assert (done.returncode, said) == (0, [])


def test_systemd_finds_it_hardened(analyze: str, unit: Path) -> None:
    command: list[str | Path] = [analyze, "security", "--offline=true", "--no-pager", f"--threshold={EXPOSURE}", unit]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-300:]


def test_the_sandbox_of_functions_still_works_in_it() -> None:
    assert {name for name, _, _ in LINES} & BREAKS_THE_SANDBOX == set()
    assert SERVICE["Delegate"] == "yes"
    assert SERVICE["OOMPolicy"] == "continue"
    assert ("DeviceAllow", "/dev/net/tun rw") in {(name, value) for name, _, value in LINES}
    assert {"AF_UNIX", "AF_NETLINK"} <= set(SERVICE["RestrictAddressFamilies"].split())


def test_the_node_is_not_root_and_may_write_its_own_folder_only() -> None:
    assert SERVICE["User"] == "hearth"
    assert "u hearth " in (FOLDER / "sysusers.conf").read_text()
    given = dict(variable.split("=") for variable in SERVICE["Environment"].split())
    assert given["FN_DATA_DIR"] == SERVICE["WorkingDirectory"] == f"/var/lib/{SERVICE['StateDirectory']}"
    assert given.keys() <= {str(field.validation_alias) for field in Settings.model_fields.values()}
    assert (SERVICE["ProtectSystem"], SERVICE["CapabilityBoundingSet"], SERVICE["NoNewPrivileges"]) == (
        "strict",
        "",
        "yes",
    )


def test_systemd_waits_until_the_node_has_drained() -> None:
    drained_s = sum(float(Settings.model_fields[name].default) for name in ("grace_s", "drain_delay_s"))
    assert drained_s < float(SERVICE["TimeoutStopSec"])
    assert SERVICE["KillMode"] == "mixed"
