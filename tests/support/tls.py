"""Certificates of a test's own authority."""

from __future__ import annotations

import datetime as dt
import os
import ssl
from pathlib import Path

import trustme

HOST = "127.0.0.1"


class Authority:
    """An authority in a folder: ``ca.pem``, and pairs of a certificate and its key."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.ca = folder / "ca.pem"
        self._made = trustme.CA()
        self._made.cert_pem.write_to_path(self.ca)

    def issue(
        self, name: str = "node", *names: str, valid_from: dt.datetime | None = None, until: dt.datetime | None = None
    ) -> tuple[Path, Path]:
        """Make a certificate, or another one in its place; the files of it and of its key."""
        made = self._made.issue_cert(*(names or (HOST, "localhost")), not_before=valid_from, not_after=until)
        cert, key = self.folder / f"{name}.pem", self.folder / f"{name}-key.pem"
        _replace(key, made.private_key_pem.bytes())
        _replace(cert, b"".join(part.bytes() for part in made.cert_chain_pems))
        return cert, key

    def client(self, cert: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
        """The context of a client that trusts this authority, and shows a certificate if it is given one."""
        context = ssl.create_default_context(cafile=str(self.ca))
        if cert is not None:
            context.load_cert_chain(cert, key)
        return context


def _replace(path: Path, content: bytes) -> None:
    new = path.with_name(f"{path.name}.new")
    new.write_bytes(content)
    os.replace(new, path)
