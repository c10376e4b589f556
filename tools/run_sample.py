"""Start a node, deploy the sample function, call it, print the answer, and keep serving until interrupted.

Whatever ends this program ends the node: Ctrl-C reaches both, SIGTERM is passed on.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import httpx

ROOT = Path(__file__).resolve().parent.parent
HEARTH = ROOT / ".venv" / "bin" / "hearth"


def main() -> int:
    """Run the sample; the server's exit status."""
    environment = {"FN_DRIVER": "process", **os.environ}  # the sample is a bundle: it needs no Docker
    subprocess.run([HEARTH, "build", ROOT / "examples" / "hello"], check=True, env=environment)
    server = subprocess.Popen([HEARTH, "start"], env=environment, stdout=subprocess.PIPE, text=True)
    signal.signal(signal.SIGTERM, _end)
    try:
        url = _url(server)
        if url is None:
            return server.wait()
        route = {"path": "/hello", "image": "hello:1", "format": "json"}
        with httpx.Client(base_url=url, timeout=60) as client:
            sent = client.put("/v1/apps/sample/routes/hello", json={"route": route}, headers=_token(environment))
            sent.raise_for_status()
            answer = client.post("/r/sample/hello", json={"name": "Hearth"})
        print(f"\nHTTP {answer.status_code}: {answer.text}\n\nTry it yourself:")
        print(f'  curl -d \'{{"name":"you"}}\' {url}/r/sample/hello\n\nServing; press Ctrl-C to stop.', flush=True)
        return server.wait()
    except KeyboardInterrupt:
        return server.wait()
    finally:
        signal.signal(signal.SIGTERM, lambda *_: server.terminate())  # a second one breaks off what the node waits for
        server.terminate()
        server.wait()


def _token(environment: dict[str, str]) -> dict[str, str]:
    """The token of the node that was started here, for FN_AUTH=required."""
    file = Path(environment.get("FN_DATA_DIR", "data")) / "admin-token"
    token = environment.get("FN_ADMIN_TOKEN") or (file.read_text().strip() if file.exists() else "")
    return {"Authorization": f"Bearer {token}"} if token else {}


def _end(number: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + number)


def _url(server: subprocess.Popen[str]) -> str | None:
    """Pass on what the server prints until it says where it listens."""
    assert server.stdout is not None
    url = None
    for line in server.stdout:
        print(line, end="", flush=True)
        name, _, value = line.strip().partition(" ")
        if name == "url":
            url = value.strip()
        if name == "driver":
            return url
    return None


if __name__ == "__main__":
    sys.exit(main())
