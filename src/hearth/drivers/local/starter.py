"""The first program of a container whose image has a root file system of its own.

Such an image may have no shell and no library, so Hearth brings a program of half a kilobyte, which is never seen in
the file system: it is executed through a descriptor. ``starter LIMIT PATH ARGUMENT...``

1. limits the processes of its user to LIMIT, unless that is 0;
2. takes the values of the numbered variables as the environment (:func:`hearth.drivers.local.launch.enter`);
3. makes the pipes 3, 4 and 5 its stdin, stdout and stderr, and closes all other descriptors;
4. executes PATH with the arguments, of which the first is the name that the program sees. If that fails, it ends with
   127 (no such file) or 126.

Its source is ``starter.c``; ``tools/build_starter.py`` prints the programs below.
"""

from __future__ import annotations

import base64
import errno
import fcntl
import os
import platform
from collections.abc import Sequence
from typing import Final

from hearth.drivers.local import launch

#: By the machine, as ``uname`` names it; base85 of an ELF file.
_PROGRAMS: Final = {
    "x86_64": (
        "e??420s#R400000000000suY$0RR91umC^+00000KmY&$00000000000000000000Kma%Z0sue&000000RR911poj50000000000"
        "002M$00000002M$000004*~!H000004*~!H000000003100000QRQ@G1^@s60000000000000000000000000000000000000000"
        "00000000005C8xG00000G3`i+=SYL(@aO;l002`l_DG8dNs0JKi%$?tjZDW7NQrbL@JNYtB=`@$0Z5BfB=Cg5bQVZ!(h7s<Fi8Kw"
        "NSH_g!bpi!B=GCrNQqP=_(+A)bQ4I8bR_V&pa1{>zXkvR05Q@J1x$&~Oo_-yixx<Q(sVyD$v}#^2LeC<K!pEv6iENUKsbB~|8(l>"
        "AAtEibPGuT!ioxn$#wGU4}{5d3rPRMNQ1x#NQqGRNQ1@*>$x$>LAoRX006rK0000;iPlJo2uO+FOo`AB1-}FU006!L0000?iO>%P"
        "zXbpQ0KNhM002yh&<_Q;v;hDBzW@LK|45174+Thtz<4T2i+C7Gjc_2iI{*LxOo_@51u_3fgZTbIxaR->06-6v$1&1KgU5dBAio0u"
        "002R{0{{R3G15$l&`62a4+Tj7$4G<!L3QuzwoHk@NQu@D1?%=mML|+jNM8T"
    ),
    "aarch64": (
        "e??420s#R400000000000syxF0RR91umC^+00000KmY&$00000000000000000000Kma%Z0sue&000000RR911poj50000000000"
        "002M$00000002M$00000Gy(ts00000Gy(ts000000003100000QRQ@G1^@s60000000000000000000000000000000000000000"
        "00000000005C8xG000009RPsR-~#}W0RRA$1OPz!|3d)L0ti6)ga`nU<pTh!Lji!&1Pla=|9=3fKmb5F;R8VVzy$y`;RgWu!2kfX"
        "h!lX*zyN^K;R67X0sw&00RRBh1^@t%;sXS#-~$Az#;^#HLjXYeqXhu92m^r90RVu~0sw&09{>RPU;u#90RRBhfB=BfApn5V0RRBh"
        "pa6i<K>&c#0RRBhh&F)IU;u#9;eSA~0RRBhKn3`>pbS9ys2hONp@0C9;sXS#0RRBh9|!=k;}3w+zz=}ZV*r4f-~$7y$P0kd0RVu~"
        "0sw&00RRBh`~UwJ0KfoILIePj0DM4`ApirL;R68q%m4ouAp`)C329+CKLH18pa1|=LLdN<)Bpb$XaoS!0RVu~$7o?V=l=gSVE{lm"
        "KlA``Bp5(?p#T6>!T$d=V*~(^1B3wh^Z)-BV*~(^_y7MFV*r5C-~$7yC<lPj0RVu~0sw&00RRBhV*~(^e*^*XA^-nW&j0@xNJT+X"
        "R7hU{"
    ),
}
#: memfd_create(2), since Linux 6.3.
_MFD_EXEC: Final = 0x10
#: Nobody changes the program, through whatever descriptor.
_SEALS: Final = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


def open_program() -> int | None:
    """Return a descriptor of the program, the caller's to close; ``None`` on machines that there is none for.

    Raises:
        OSError: The system refused.
    """
    program = _PROGRAMS.get(platform.machine())
    if program is None:
        return None
    made = _executable_file()
    try:
        os.write(made, base64.b85decode(program))
        os.fchmod(made, 0o555)
        fcntl.fcntl(made, fcntl.F_ADD_SEALS, _SEALS)
        return fcntl.fcntl(made, fcntl.F_DUPFD_CLOEXEC, launch.FIRST_FREE)
    finally:
        os.close(made)


def _executable_file() -> int:
    """Return an empty file in memory; where the system asks for it (``vm.memfd_noexec``), made to be executed."""
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create("hearth-starter", flags | _MFD_EXEC)
    except OSError as exc:
        if exc.errno != errno.EINVAL:  # of Linux before 6.3
            raise
    return os.memfd_create("hearth-starter", flags)


def wrap(cmd: Sequence[str], path: str, *, processes: int = 0) -> list[str]:
    """Return the command that runs a program inside of a sandbox.

    Args:
        cmd: Its name and its arguments.
        path: Of the program, as the sandbox shows it.
        processes: Limit of the user's processes within its user namespace; 0 means none.
    """
    return [f"/proc/self/fd/{launch.STARTER}", str(processes), path, *cmd]
