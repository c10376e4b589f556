"""The certificate of a node: read at the start, and again when its files change, without a restart."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

from hearth.aio.background import BackgroundService
from hearth.aio.clock import Clock
from hearth.host.certificates import Validity, client_context, server_context, validity
from hearth.models.errors import StartUpError
from hearth.settings import Settings
from hearth.telemetry.logs import get_logger
from hearth.telemetry.series import Series

#: Seconds between two looks at the files. Programs that renew certificates do so weeks before the old one expires.
_LOOK_S: Final = 10.0
#: A node warns this long before its certificate expires.
_WARN_BEFORE: Final = dt.timedelta(days=14)

_Stamps = tuple[tuple[int, int, int] | None, ...]

_log = get_logger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class TlsFiles:
    """The files of a node's certificate.

    Attributes:
        client_ca: The authorities of clients' certificates; ``None`` if no client needs one.
        for_admin_only: Only clients of the admin listener need one.
    """

    cert: Path
    key: Path
    client_ca: Path | None = None
    for_admin_only: bool = False

    def load(self) -> LoadedTls:
        """Read the files. Blocks.

        Raises:
            ValueError: They cannot be used; the text names the file.
        """
        try:
            found = validity(self.cert)
        except OSError as exc:
            raise ValueError(f"{self.cert}: {exc.strerror}") from exc
        except ValueError as exc:
            raise ValueError(f"{self.cert}: no certificate in PEM") from exc
        try:
            plain = server_context(self.cert, self.key)
        except OSError as exc:
            raise ValueError(f"{self.key}: not the private key of {self.cert}: {_reason(exc)}") from exc
        if self.client_ca is None:
            return LoadedTls(plain, plain, found)
        try:
            return LoadedTls(plain, server_context(self.cert, self.key, self.client_ca), found)
        except OSError as exc:
            raise ValueError(f"{self.client_ca}: no certificates of authorities in PEM: {_reason(exc)}") from exc

    def stamps(self) -> _Stamps:
        """Return what differs once a file was changed or replaced. Blocks."""
        return tuple(_stamp(path) for path in (self.cert, self.key, self.client_ca) if path is not None)


@dataclasses.dataclass(frozen=True, slots=True)
class LoadedTls:
    """The contexts that were made of the files.

    Attributes:
        plain: For clients that need no certificate.
        mutual: For clients that need one, if any do.
    """

    plain: ssl.SSLContext
    mutual: ssl.SSLContext
    validity: Validity


class NodeTls(BackgroundService):
    """The TLS contexts of a node's listeners. While this async context manager is entered, changed files are read.

    A new certificate that cannot be used does not replace the old one, nor does one that is not valid now replace one
    that is: the node logs an error, shows it in ``/readyz``, and goes on with the old certificate.

    Args:
        loaded: What was read from the files.
        stamps: Of the files, from before they were read.
        expiry: Shows when the certificate expires, in seconds since the epoch.
    """

    def __init__(self, files: TlsFiles, loaded: LoadedTls, stamps: _Stamps, clock: Clock, expiry: Series) -> None:
        super().__init__(lambda exc: _log.error("certificates are no longer renewed", exc_info=exc))
        self._files = files
        self._loaded = loaded
        self._stamps = stamps
        self._clock = clock
        self._expiry = expiry
        self._failure = ""
        self._due = asyncio.Event()
        expiry.value = loaded.validity.not_after.timestamp()

    async def __aenter__(self) -> Self:
        for warning in self.warnings():
            _log.warning(warning)
        return await super().__aenter__()

    def contexts(self, *, is_admin: bool) -> Callable[[], ssl.SSLContext]:
        """Return what returns the context of a new connection.

        Args:
            is_admin: To the admin listener.
        """
        if self._files.for_admin_only and not is_admin:
            return lambda: self._loaded.plain
        return lambda: self._loaded.mutual

    def reload(self) -> None:
        """Read the files soon, whether they have changed or not."""
        self._stamps = ()
        self._due.set()

    def warnings(self) -> list[str]:
        """Return what an operator should know about the certificate."""
        return [text for text in (expiry_warning(self._loaded.validity, self._clock.now()), self._failure) if text]

    async def _run(self) -> None:
        while True:
            timer = self._clock.call_at(self._clock.monotonic() + _LOOK_S, self._due.set)
            try:
                await self._due.wait()
            finally:
                timer.cancel()
            self._due.clear()
            await self.look()

    async def look(self) -> None:
        """Read the files if they have changed."""
        stamps = await asyncio.to_thread(self._files.stamps)
        if stamps == self._stamps:
            return
        self._stamps = stamps
        try:
            self._use(await asyncio.to_thread(self._files.load))
        except ValueError as exc:
            self._failure = f"the new TLS certificate is not used: {exc}"
            _log.error("new TLS certificate is not used, the old one stays", reason=str(exc))

    def _use(self, loaded: LoadedTls) -> None:
        """Take new contexts, for connections from now on.

        Raises:
            ValueError: Their certificate is not valid now, but the present one is.
        """
        now = self._clock.now()
        if not loaded.validity.covers(now) and self._loaded.validity.covers(now):
            raise ValueError(f"{self._files.cert}: {expiry_warning(loaded.validity, now)}")
        self._loaded = loaded
        self._failure = ""
        self._expiry.value = loaded.validity.not_after.timestamp()
        _log.info("TLS certificate loaded", expires=loaded.validity.not_after.isoformat())


def tls_files(settings: Settings) -> TlsFiles | None:
    """Return the files of a node's certificate; ``None`` for a node without TLS.

    Raises:
        StartUpError: The settings contradict each other.
    """
    cert, key, client_ca = settings.tls_cert, settings.tls_key, settings.tls_client_ca
    if (cert is None) != (key is None):
        missing = "FN_TLS_KEY" if key is None else "FN_TLS_CERT"
        raise StartUpError(f"{missing}: missing; a node with TLS needs FN_TLS_CERT and FN_TLS_KEY")
    if client_ca is not None and cert is None:
        raise StartUpError(f"FN_TLS_CLIENT_CA={client_ca}: clients show certificates with TLS only; set FN_TLS_CERT")
    for_admin_only = settings.tls_client_auth == "admin"
    if client_ca is not None and for_admin_only and not isinstance(settings.admin_place, tuple):
        raise StartUpError("FN_TLS_CLIENT_AUTH=admin: there is no admin listener with TLS; set FN_ADMIN_BIND")
    return None if cert is None or key is None else TlsFiles(cert, key, client_ca, for_admin_only=for_admin_only)


def client_tls(settings: Settings) -> ssl.SSLContext:
    """Return the context of this node's connections to other nodes. Blocks.

    Raises:
        StartUpError: A file cannot be used.
    """
    try:
        return client_context(settings.tls_ca, settings.tls_client_cert, settings.tls_client_key)
    except OSError as exc:
        names = "FN_TLS_CA, FN_TLS_CLIENT_CERT, FN_TLS_CLIENT_KEY"
        raise StartUpError(f"{names}: {_reason(exc)}; name files in PEM") from exc


def load_tls(files: TlsFiles, clock: Clock, expiry: Series) -> NodeTls:
    """Read the files of a node's certificate. Blocks.

    Raises:
        StartUpError: They cannot be used.
    """
    stamps = files.stamps()
    try:
        loaded = files.load()
    except ValueError as exc:
        raise StartUpError(f"FN_TLS_CERT, FN_TLS_KEY: {exc}; name files of this node's certificate") from exc
    return NodeTls(files, loaded, stamps, clock, expiry)


def expiry_warning(found: Validity, now: dt.datetime) -> str:
    """Return what is wrong with the time for which a certificate is valid, or soon will be; empty if nothing is."""
    if now < found.not_before:
        return f"the TLS certificate is valid only from {found.not_before:%Y-%m-%d %H:%M} UTC"
    if now > found.not_after:
        return f"the TLS certificate expired at {found.not_after:%Y-%m-%d %H:%M} UTC"
    if now > found.not_after - _WARN_BEFORE:
        return f"the TLS certificate expires at {found.not_after:%Y-%m-%d %H:%M} UTC"
    return ""


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


def _reason(exc: OSError) -> str:
    return exc.strerror or str(exc)
