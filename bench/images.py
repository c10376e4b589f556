"""Cold starts of one image: a static program, without an Engine and with Docker, in turn.

The network of functions is ``none`` in both, which is what sandboxes and containers alone cost.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from pathlib import Path

from tests.support.docker_images import member
from tests.support.kits import c_program, program_image
from tests.support.layers import archive, put_image
from tests.support.node import RunningNode, running_node
from tests.support.waiting import until

from bench.figures import Figures
from hearth.drivers.local.stored import image_store

_NAME = "program:1"


def images(figures: Figures, *, rounds: int) -> None:
    """Milliseconds of a cold call, of the format http-stream with read-only files."""
    with contextlib.ExitStack() as stack:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        program = data / "contract-c"
        c_program(program)
        local, docker = data / "local", data / "docker"
        for place in (local, docker):
            place.mkdir()
        layer = archive(member(program.name, program.read_bytes(), 0o755))
        store = image_store(local / "bundles")
        store.make()
        put_image(store, [layer], [_NAME], entrypoint=[f"/{program.name}"])
        nodes = {
            "docker": stack.enter_context(_node("docker", docker, program_image(program))),
            "without an Engine": stack.enter_context(_node("process", local, _NAME)),
        }
        for number in range(rounds + 1):
            for name in sorted(nodes, reverse=number % 2 == 1):
                taken_ms = _cold_call(nodes[name])
                if number:  # the first one finds nothing in the machine's caches
                    figures.add("cold image", name, "ms", taken_ms, against="docker")


def _node(driver: str, data: Path, image: str) -> contextlib.AbstractContextManager[RunningNode]:
    return running_node(driver, data, image, FN_FUNCTION_NETWORK="none")


def _cold_call(node: RunningNode) -> float:
    path = node.route("cold", "http-stream", memory=64)
    begun = time.perf_counter()
    answer = node.http.post(path, content=b"x")
    taken_ms = (time.perf_counter() - begun) * 1000
    if answer.status_code != 201:
        raise SystemExit(f"bench: the cold call failed: {answer.text}")
    node.http.delete("/v1/apps/e2e/routes/cold").raise_for_status()
    if not until(lambda: node.http.get("/stats").json()["Running"] == 0):
        raise SystemExit("bench: the call has not ended")
    return taken_ms
