"""The filter of system calls that keeps a sandboxed function from the kernel's keyrings.

They know no namespace of users or processes: a function would hold the keys of the session that the server was
started in, and could leave keys for its neighbours.
"""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import struct
from typing import Final

from hearth.drivers.process import launch

# One instruction of the kernel's packet filter: code, steps if true, steps if false, operand.
_INSTRUCTION: Final = struct.Struct("=HBBI")
_LOAD, _IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
#: Where the description of a call has its number, and the architecture that the number belongs to.
_NUMBER_AT, _ARCHITECTURE_AT = 0, 4
_ALLOW: Final = 0x7FFF0000
_REFUSE: Final = 0x00050000 | errno.EPERM
_X32: Final = 0x40000000
#: For each machine: its architectures, with their numbers of add_key, request_key and keyctl.
_NUMBERS: Final[dict[str, dict[int, tuple[int, ...]]]] = {
    "x86_64": {
        0xC000003E: (248, 249, 250, _X32 | 248, _X32 | 249, _X32 | 250),
        0x40000003: (286, 287, 288),
    },
    "aarch64": {
        0xC00000B7: (217, 218, 219),
        0x40000028: (309, 310, 311),
    },
}


def open_filter() -> int | None:
    """A descriptor of the filter for bubblewrap, the caller's to close; ``None`` on machines not known here."""
    numbers = _NUMBERS.get(platform.machine())
    if numbers is None:
        return None
    made = os.memfd_create("hearth-keyrings")
    try:
        os.write(made, _program(numbers))
        os.lseek(made, 0, os.SEEK_SET)
        return fcntl.fcntl(made, fcntl.F_DUPFD_CLOEXEC, launch.FIRST_FREE)
    finally:
        os.close(made)


def _program(numbers: dict[int, tuple[int, ...]]) -> bytes:
    made = [(_LOAD, 0, 0, _ARCHITECTURE_AT)]
    for architecture, refused in numbers.items():
        block = [(_LOAD, 0, 0, _NUMBER_AT)]
        for number in refused:
            block += [(_IF_EQUAL, 0, 1, number), (_RETURN, 0, 0, _REFUSE)]
        block.append((_RETURN, 0, 0, _ALLOW))
        made += [(_IF_EQUAL, 0, len(block), architecture), *block]
    made.append((_RETURN, 0, 0, _REFUSE))  # an architecture that the machine does not have
    return b"".join(_INSTRUCTION.pack(*instruction) for instruction in made)
