"""A filter of system calls, as a program of the kernel's packet filter (seccomp(2)).

A call is judged by its number, in a binary search through the ranges of allowed numbers. Four calls are judged by
their arguments, too. What is refused fails with EPERM; what a program should do without fails with ENOSYS.
"""

from __future__ import annotations

import dataclasses
import errno
import platform
import struct
from collections.abc import Iterable, Sequence
from typing import Final

from hearth.host.syscalls import ALLOWED, LATEST

#: Code, instructions to skip if true, and if false, operand.
_Instruction = tuple[int, int, int, int]
_PACKED: Final = struct.Struct("=HBBI")
_LOAD, _IF_EQUAL, _IF_GREATER, _IF_AT_LEAST, _IF_ANY_BIT, _RETURN = 0x20, 0x15, 0x25, 0x35, 0x45, 0x06
#: Where the description of a call has its number, the architecture that this belongs to, the low halves of arguments.
_NUMBER_AT, _ARCHITECTURE_AT, _FIRST_ARGUMENT_AT, _SECOND_ARGUMENT_AT, _THIRD_ARGUMENT_AT = 0, 4, 16, 24, 32

_ALLOW: Final[_Instruction] = (_RETURN, 0, 0, 0x7FFF0000)
_FARTHEST_JUMP: Final = 255

#: clone(2): every flag that makes a namespace. Those of user namespaces give rights that the kernel then has to guard.
_NAMESPACES: Final = 0x7E020000
#: socket(2): local, IPv4, IPv6, and messages of the kernel about its network. Others reach devices or the host.
_SOCKETS: Final = (1, 2, 10, 16)
#: personality(2): plain Linux, with 32-bit names of the machine, or just asked for. Others weaken memory's layout.
_PERSONALITIES: Final = (0, 0x0008, 0x20000, 0x20008, 0xFFFFFFFF)
#: setsockopt(2): share a port with others of the same user, which may be the node.
_SOL_SOCKET, _SO_REUSEPORT = 1, 15


@dataclasses.dataclass(frozen=True, slots=True)
class _Machine:
    """One architecture: its number in audit.h, its column in the table, and the calls that are judged further."""

    architecture: int
    column: int
    clone: int
    socket: int
    setsockopt: int
    personality: int
    clone3: int = 435


_MACHINES: Final = {
    "x86_64": _Machine(0xC000003E, 0, clone=56, socket=41, setsockopt=54, personality=135),
    "aarch64": _Machine(0xC00000B7, 1, clone=220, socket=198, setsockopt=208, personality=92),
}


def compose(machine: str = "", without: Iterable[str] = ()) -> bytes | None:
    """Return the filter for a machine, this one by default; ``None`` if it is not known here.

    Calls of another architecture than the machine's own are refused.

    Args:
        machine: As ``uname`` names it.
        without: Names of allowed calls that are to fail with ENOSYS.
    """
    known = _MACHINES.get(machine or platform.machine())
    if known is None:
        return None
    missing = [number for name in without if (number := ALLOWED[name][known.column]) is not None]
    blocks: list[list[_Instruction]] = [
        [(_LOAD, 0, 0, _ARCHITECTURE_AT), (_IF_EQUAL, 1, 0, known.architecture), _fail(errno.EPERM)],
        # Calls of the x32 kind have a bit that makes them larger, too.
        [(_LOAD, 0, 0, _NUMBER_AT), (_IF_GREATER, 0, 1, LATEST), _fail(errno.ENOSYS)],
        # The C library then uses clone, whose flags can be looked at.
        *[_if_called(number, [_fail(errno.ENOSYS)]) for number in (known.clone3, *missing)],
        _if_called(known.clone, [(_IF_ANY_BIT, 0, 1, _NAMESPACES), _fail(errno.EPERM), _ALLOW]),
        _if_called(known.socket, _one_of(_SOCKETS, _fail(errno.EAFNOSUPPORT))),
        _if_called(known.setsockopt, _REFUSE_SHARED_PORTS),
        _if_called(known.personality, _one_of(_PERSONALITIES, _fail(errno.EPERM))),
        _search(_changes(known.column), is_allowed=False),
    ]
    return b"".join([_PACKED.pack(*instruction) for block in blocks for instruction in block])


def _fail(number: int) -> _Instruction:
    return (_RETURN, 0, 0, 0x00050000 | number)


_REFUSE_SHARED_PORTS: Final[Sequence[_Instruction]] = (
    (_LOAD, 0, 0, _SECOND_ARGUMENT_AT),
    (_IF_EQUAL, 1, 0, _SOL_SOCKET),
    _ALLOW,
    (_LOAD, 0, 0, _THIRD_ARGUMENT_AT),
    (_IF_EQUAL, 0, 1, _SO_REUSEPORT),
    _fail(errno.EPERM),
    _ALLOW,
)


def _if_called(number: int, then: Sequence[_Instruction]) -> list[_Instruction]:
    """Judge one call by what ``then`` returns; it may look at the arguments; the first is loaded."""
    load = (_LOAD, 0, 0, _FIRST_ARGUMENT_AT)
    return [(_IF_EQUAL, 0, len(then) + 1, number), load, *then]


def _one_of(values: Sequence[int], otherwise: _Instruction) -> list[_Instruction]:
    tests = [(_IF_EQUAL, len(values) - index, 0, value) for index, value in enumerate(values)]
    return [*tests, otherwise, _ALLOW]


def _changes(column: int) -> list[int]:
    """Return the numbers at which calls begin to be allowed, then to be refused, in turn."""
    numbers = {number for row in ALLOWED.values() if (number := row[column]) is not None}
    return [number for number in range(LATEST + 2) if (number in numbers) != (number - 1 in numbers)]


def _search(changes: Sequence[int], *, is_allowed: bool) -> list[_Instruction]:
    """Judge a number that is at least the one before ``changes``, at which ``is_allowed`` began to hold."""
    if not changes:
        return [_ALLOW if is_allowed else _fail(errno.EPERM)]
    middle = len(changes) // 2
    below = _search(changes[:middle], is_allowed=is_allowed)
    above = _search(changes[middle + 1 :], is_allowed=is_allowed != (middle % 2 == 0))
    assert len(below) <= _FARTHEST_JUMP
    return [(_IF_AT_LEAST, len(below), 0, changes[middle]), *below, *above]
