"""The fn CLI of 2018 and the newest one against a node: their requests, replayed."""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests.support import fn_cli
from tests.support.fn_cli_newest import NEWEST
from tests.support.node import build_multi, running_node

PAGE = Path(__file__).parents[2] / "docs" / "fn-cli.md"


@pytest.mark.parametrize("token", ["", "token-of-the-admin-1234"], ids=["without a token", "with FN_TOKEN"])
def test_every_request_is_answered_as_the_cli_reads_it(tmp_path: Path, token: str) -> None:
    """With FN_TOKEN a CLI adds one field to each request, and the node asks everybody for it."""
    image = build_multi(tmp_path, tmp_path / "source")
    names = {"image": image, "call": ""}
    access = {"FN_AUTH": "required", "FN_ADMIN_TOKEN": token} if token else {}
    shown = {"Authorization": f"Bearer {token}"} if token else {}
    with running_node("process", tmp_path, image, **access) as node:
        connection = http.client.HTTPConnection(urlsplit(node.url).netloc, timeout=60)
        for sent in (*fn_cli.SENT, *NEWEST):
            body = None if sent.body is None else json.dumps(fn_cli.filled(sent.body, names))
            path = fn_cli.filled(sent.path, names)
            is_call = path.startswith(("/r/", "/invoke/"))
            # The newest CLI shows no token to functions.
            fields = {} if path.startswith("/invoke/") else shown
            connection.request(
                sent.method,
                path,
                body,
                {"User-Agent": "Go-http-client/1.1", "Accept-Encoding": "gzip", **fields, **dict(sent.headers)},
            )
            answer = connection.getresponse()
            text = answer.read()
            assert answer.status == sent.status, (sent.command, text)
            if is_call:
                names["call"] = answer.headers["Fn_call_id"] or answer.headers["Fn-Call-Id"]
                assert len(names["call"]) == 26
            elif sent.status != 204:
                assert answer.headers["Content-Type"].startswith("application/json")
            for key, value in sent.reads:
                assert fn_cli.read(json.loads(text), key) == fn_cli.filled(value, names), (sent.command, key, text)
            if sent.keeps:
                names[sent.keeps] = json.loads(text)["id"]
        connection.close()


def test_the_page_says_what_was_tried() -> None:
    assert PAGE.read_text() == fn_cli.page()
