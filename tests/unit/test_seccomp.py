"""The filter of system calls, run by an interpreter of its instructions."""

from __future__ import annotations

import errno
import struct

import pytest

from hearth.host import seccomp
from hearth.host.syscalls import ALLOWED, LATEST

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
CLONE = {"x86_64": 56, "aarch64": 220}
SOCKET = {"x86_64": 41, "aarch64": 198}
PERSONALITY = {"x86_64": 135, "aarch64": 92}
SETSOCKOPT = {"x86_64": 54, "aarch64": 208}
ALLOW = 0x7FFF0000
NEW_USER = 0x10000000


def refused(number: int) -> int:
    return 0x00050000 | number


def judge(program: bytes, number: int, *arguments: int, architecture: int) -> int:
    """What the kernel would do about a call."""
    data = struct.pack("=IIQ6Q", number, architecture, 0, *arguments, *[0] * (6 - len(arguments)))
    instructions = list(struct.iter_unpack("=HBBI", program))
    at = value = 0
    while True:
        code, if_true, if_false, operand = instructions[at]
        at += 1
        if code == 0x06:
            return int(operand)
        if code == 0x20:
            value = int.from_bytes(data[operand : operand + 4], "little")
            continue
        holds = {0x15: value == operand, 0x25: value > operand, 0x35: value >= operand, 0x45: value & operand != 0}[
            code
        ]
        at += if_true if holds else if_false


@pytest.fixture(params=ARCHITECTURES)
def machine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_exactly_the_listed_calls_are_allowed(machine: str) -> None:
    program = seccomp.compose(machine)
    assert program is not None
    listed = {row[list(ARCHITECTURES).index(machine)] for row in ALLOWED.values()}
    special = {CLONE[machine], SOCKET[machine], PERSONALITY[machine], 435}
    for number in set(range(LATEST + 1)) - special:
        found = judge(program, number, architecture=ARCHITECTURES[machine])
        assert found == (ALLOW if number in listed else refused(errno.EPERM)), number


def test_later_calls_and_clone3_are_unknown_so_that_programs_fall_back(machine: str) -> None:
    program = seccomp.compose(machine)
    assert program is not None
    for number in (435, LATEST + 1, 0x40000000 | 39, 0xFFFFFFFF):
        assert judge(program, number, architecture=ARCHITECTURES[machine]) == refused(errno.ENOSYS)


def test_calls_of_another_architecture_are_refused(machine: str) -> None:
    program = seccomp.compose(machine)
    assert program is not None
    for architecture in {0x40000003, 0x40000028, *ARCHITECTURES.values()} - {ARCHITECTURES[machine]}:
        assert judge(program, 0, architecture=architecture) == refused(errno.EPERM)


def test_the_first_argument_decides_where_it_matters(machine: str) -> None:
    program = seccomp.compose(machine)
    assert program is not None

    def judged(number: int, argument: int) -> int:
        return judge(program, number, argument, architecture=ARCHITECTURES[machine])

    assert judged(CLONE[machine], 0x3D0F00) == ALLOW, "a thread"
    assert judged(CLONE[machine], NEW_USER | 17) == refused(errno.EPERM)
    for family, allowed in {1: True, 2: True, 10: True, 16: True, 17: False, 38: False, 40: False}.items():
        assert judged(SOCKET[machine], family) == (ALLOW if allowed else refused(errno.EAFNOSUPPORT))
    assert judged(PERSONALITY[machine], 0xFFFFFFFF) == ALLOW
    assert judged(PERSONALITY[machine], 0x40000) == refused(errno.EPERM)


def test_no_function_shares_a_port_with_the_node(machine: str) -> None:
    """A socket with SO_REUSEPORT may listen on a port of the same user that listens so as well."""
    program = seccomp.compose(machine)
    assert program is not None
    for level, option in ((1, 15), (1, 2), (6, 15), (0, 15), (1, 9)):
        judged = judge(program, SETSOCKOPT[machine], 7, level, option, architecture=ARCHITECTURES[machine])
        assert judged == (refused(errno.EPERM) if (level, option) == (1, 15) else ALLOW), (level, option)


def test_calls_can_be_left_out(machine: str) -> None:
    program = seccomp.compose(machine, without=["memfd_create"])
    assert program is not None
    number = ALLOWED["memfd_create"][list(ARCHITECTURES).index(machine)]
    assert number is not None
    assert judge(program, number, architecture=ARCHITECTURES[machine]) == refused(errno.ENOSYS)


def test_a_machine_that_is_not_known_has_no_filter() -> None:
    assert seccomp.compose("vax") is None
