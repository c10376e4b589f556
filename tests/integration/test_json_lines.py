"""A node whose ``json`` functions read a line for each call, as kits from March to October 2018 do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.support.extended import extended_node

from hearth import settings
from hearth.testing.script import Pipe, Script


async def reads_lines(stdin: Pipe, stdout: Pipe, stderr: Pipe) -> int:
    received = b""
    while data := await stdin.read():
        received += data
        while b"\n" in received:
            line, _, received = received.partition(b"\n")
            await stdout.write(json.dumps({"body": json.loads(line)["body"]}).encode() + b"\n")
    return 0


async def test_a_function_reads_a_line_for_each_call_and_keeps_its_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FN_JSON_LINES", "true")
    async with extended_node(tmp_path, json_lines=settings.load().json_lines) as on:
        on.driver.images["lines"] = Script(main=reads_lines)
        path = await on.route(image="lines")
        for body in ("a\nb", "c", ""):
            answer = await on.http.post(path, content=body)
            assert (answer.status_code, answer.text) == (200, body)
        assert on.driver.counts.started == 1
