"""The ``/etc`` of a sandboxed function: single files without secrets, some of them written for it.

The function's user, its group and its host name have to resolve inside, and say nothing of the machine's.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

from hearth.host.private_files import written_beside

#: The user that a function is in its sandbox, whatever user of the machine that is.
UID: Final = 1000
HOSTNAME: Final = "function"
#: Bound as they are, where the machine has them, since they may change. Certificates, not the keys beside them.
BOUND: Final = (
    "alternatives",
    "fonts",
    "ld.so.cache",
    "pki/ca-trust/extracted",
    "pki/tls/certs",
    "ssl/certs",
)
#: Copied by :func:`write`: each mount takes a start of a function longer than the reading of all of these.
_COPIED: Final = (
    "gai.conf",
    "host.conf",
    "localtime",
    "mime.types",
    "os-release",
    "pki/tls/cert.pem",
    "pki/tls/openssl.cnf",
    "protocols",
    "services",
    "ssl/cert.pem",
    "ssl/openssl.cnf",
    "timezone",
)
_ETC: Final = Path("/etc")
#: The machine's, or one made by :func:`write_resolver`.
RESOLVER: Final = "resolv.conf"
#: Shown to functions of images that bring a root file system, too: they are not the image's to know.
OF_IMAGES: Final = ("hosts", RESOLVER)
_HOSTS: Final = Path("/etc/hosts")
_LOCAL: Final = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
_TEXTS: Final = {
    "group": f"root:x:0:\nfunction:x:{UID}:\nnogroup:x:65534:\n",
    "passwd": (
        "root:x:0:0:root:/root:/bin/sh\n"
        f"function:x:{UID}:{UID}:function:/tmp:/bin/sh\n"
        "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
    ),
    "nsswitch.conf": (
        "passwd: files\ngroup: files\nhosts: files dns\nnetworks: files\n"
        "protocols: files\nservices: files\nethers: files\nrpc: files\n"
    ),
}


def write(folder: Path) -> None:
    """Write what functions get as ``/etc``, with places for what is bound; every user may read it. Blocks shortly.

    Raises:
        OSError: It cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    for name, text in {**_TEXTS, "hosts": _hosts()}.items():
        _put(folder / name, text.encode())
    for name in _COPIED:
        if (_ETC / name).is_file():
            _put(folder / name, (_ETC / name).read_bytes())
    for name in present():
        if (_ETC / name).is_dir():
            _make_folder(folder / name)
        else:
            _put(folder / name, b"")
    if not (folder / RESOLVER).exists():
        _put(folder / RESOLVER, b"")


def present() -> list[str]:
    """Return the names of what is bound that this machine has."""
    return [name for name in BOUND if (_ETC / name).exists()]


def _put(path: Path, content: bytes) -> None:
    """Replace a file whole: nodes that share the folder may write it at the same time."""
    _make_folder(path.parent)
    with written_beside(path, content, mode=0o644, is_durable=False) as made:
        os.replace(made, path)


def _make_folder(path: Path) -> None:
    if not path.is_dir():
        _make_folder(path.parent)
        path.mkdir(exist_ok=True)
        path.chmod(0o755)


def write_resolver(folder: Path, nameserver: str) -> None:
    """Write the ``resolv.conf`` of functions that do not use the machine's network. Blocks shortly.

    Args:
        folder: As for :func:`write`.
        nameserver: That they reach; empty: none, and names fail at once.

    Raises:
        OSError: It cannot be written.
    """
    lines = [f"nameserver {nameserver}"] if nameserver else []
    with contextlib.suppress(OSError):
        known = (_ETC / RESOLVER).read_text(errors="replace").splitlines() if nameserver else []
        lines += [line for line in known if line.split(maxsplit=1)[:1] in (["search"], ["domain"], ["options"])]
    _put(folder / RESOLVER, "".join(f"{line}\n" for line in lines).encode())


def _hosts() -> str:
    """Return the machine's hosts, which an operator may have extended, and the function's own name."""
    try:
        known = _HOSTS.read_text(errors="replace")
    except OSError:
        known = _LOCAL
    return f"{known.rstrip()}\n127.0.1.1\t{HOSTNAME}\n"
