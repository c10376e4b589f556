"""A pytest plugin: where a client would load all public authorities, it loads one.

Loading them takes 15 ms for each client of httpx. No test asks a server whose certificate they have issued.
"""

from __future__ import annotations

import functools
import os
import ssl
from pathlib import Path
from typing import Any, Final

import certifi

_END: Final = "-----END CERTIFICATE-----\n"
#: The files with all of them that a client of httpx may choose. A test may name another one.
_USUAL: Final = (certifi.where(), os.environ.get("SSL_CERT_FILE", certifi.where()))
_create = ssl.create_default_context


@functools.cache
def _first() -> str:
    """Return the first of them."""
    return Path(certifi.where()).read_text().partition(_END)[0] + _END


def create_default_context(*purpose: Any, cafile: Any = None, **options: Any) -> ssl.SSLContext:
    """Create a context as ``ssl.create_default_context``, with one authority instead of the usual ones."""
    if cafile in _USUAL:
        return _create(*purpose, cadata=_first(), **options)
    return _create(*purpose, cafile=cafile, **options)


def pytest_configure() -> None:
    """Create such contexts from now on."""
    ssl.create_default_context = create_default_context
