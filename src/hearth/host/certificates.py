"""TLS contexts made of files, and what a certificate says of itself."""

from __future__ import annotations

import dataclasses
import datetime as dt
import ssl
from pathlib import Path
from typing import Final

#: The protocol within TLS (ALPN).
_HTTP: Final = ["http/1.1"]


@dataclasses.dataclass(frozen=True, slots=True)
class Validity:
    """The time for which a certificate is valid."""

    not_before: dt.datetime
    not_after: dt.datetime

    def covers(self, now: dt.datetime) -> bool:
        """Return whether it is valid at this time."""
        return self.not_before <= now <= self.not_after


def server_context(cert: Path, key: Path, client_ca: Path | None = None) -> ssl.SSLContext:
    """Return the context of a server: TLS 1.2 and later, no compression, no renegotiation.

    Args:
        cert: Its certificate, followed by those of intermediate authorities, in PEM.
        key: Its private key in PEM, not encrypted.
        client_ca: Authorities, in PEM. Clients must show a certificate of one of them.

    Raises:
        OSError: A file cannot be read, or is not valid, or the key is another certificate's (``ssl.SSLError``).
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(_HTTP)
    _load_own(context, cert, key)
    if client_ca is not None:
        context.load_verify_locations(cafile=client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(ca: Path | None = None, cert: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
    """Return the context of a client that verifies the server and its name.

    Args:
        ca: Authorities to trust, in PEM, instead of those of the system.
        cert: A certificate to show, in PEM.
        key: Its private key in PEM, not encrypted.

    Raises:
        OSError: A file cannot be read, or is not valid.
    """
    context = ssl.create_default_context(cafile=None if ca is None else str(ca))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if cert is not None:
        _load_own(context, cert, key)
    return context


def validity(cert: Path) -> Validity:
    """Return the validity of the first certificate in a file.

    Raises:
        OSError: The file cannot be read.
        ValueError: It holds no certificate.
    """
    from cryptography import x509  # takes time and memory, for nodes with a certificate only

    first = x509.load_pem_x509_certificates(cert.read_bytes())[0]
    return Validity(first.not_valid_before_utc, first.not_valid_after_utc)


def _load_own(context: ssl.SSLContext, cert: Path, key: Path | None) -> None:
    context.load_cert_chain(cert, key, password=_no_password)


def _no_password() -> str:
    """Keep OpenSSL from asking at the terminal."""
    raise ssl.SSLError("the private key is encrypted")
