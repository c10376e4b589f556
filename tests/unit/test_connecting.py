"""The options of a command's connections."""

from __future__ import annotations

import ssl
from typing import Any

import httpx
import pytest

from hearth.cli.connecting import connection_options


@pytest.mark.parametrize(
    ("url", "loads"),
    [("http://127.0.0.1:1", 0), ("http://fn.example", 0), ("unix:/fn.sock", 0), ("https://fn.example", 1)],
)
def test_only_a_server_with_tls_needs_the_usual_authorities(
    url: str, loads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, load = list[Any](), ssl.create_default_context
    monkeypatch.setattr(ssl, "create_default_context", lambda **options: loaded.append(options) or load(**options))
    httpx.Client(**connection_options(url)).close()
    assert len(loaded) == loads


def test_the_context_of_a_server_without_tls_trusts_nobody() -> None:
    context = connection_options("http://fn.example")["verify"]
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.cert_store_stats()["x509_ca"] == 0
