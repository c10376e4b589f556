"""Compile src/hearth/drivers/local/starter.c for each machine, and print what starter.py holds of it.

Needs gcc for both: the packages gcc-x86-64-linux-gnu and gcc-aarch64-linux-gnu.
"""

from __future__ import annotations

import base64
import struct
import subprocess
import tempfile
from pathlib import Path

SOURCE = Path(__file__).parent.parent / "src/hearth/drivers/local/starter.c"
OPTIONS = (
    "-Os -nostdlib -static -ffreestanding -fno-stack-protector -fno-asynchronous-unwind-tables -fno-unwind-tables "
    "-fno-pic -no-pie -Wall -Wextra -Werror -s "
    "-Wl,--build-id=none,-z,norelro,-z,noseparate-code,-z,noexecstack,-z,max-page-size=65536"
).split()
#: Of an ELF header: where the section headers are, and how many; of a program header: its offset and size in the file.
SECTIONS_AT, SECTION_COUNT_AT, HEADER_SIZE = 0x28, 0x3C, 0x40
WIDTH = 100


def compiled(machine: str) -> bytes:
    """The program, without the tables that only linkers and debuggers read."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder, "starter")
        subprocess.run([f"{machine}-linux-gnu-gcc", *OPTIONS, "-o", made, SOURCE], check=True)
        program = bytearray(made.read_bytes())
    offset, _, _, size = struct.unpack_from("<QQQQ", program, HEADER_SIZE + 8)
    del program[offset + size :]
    struct.pack_into("<Q", program, SECTIONS_AT, 0)
    struct.pack_into("<HH", program, SECTION_COUNT_AT, 0, 0)
    return bytes(program)


if __name__ == "__main__":
    for machine in ("x86_64", "aarch64"):
        print(f'    "{machine}": (')
        text = base64.b85encode(compiled(machine)).decode()
        for start in range(0, len(text), WIDTH):
            print(f'        "{text[start : start + WIDTH]}"')
        print("    ),")
