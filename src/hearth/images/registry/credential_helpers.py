"""The programs in which docker keeps credentials: ``docker-credential-NAME get``, registry in, JSON out."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from typing import Final

from hearth.models.registry_login import HUB
from hearth.telemetry.logs import get_logger

#: A helper that asks a person for a password would otherwise hold the image for ever.
LIMIT_S: Final = 10.0
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
#: The key under which docker stores credentials of the public registry.
_HUB_KEY: Final = "https://index.docker.io/v1/"

_log = get_logger(__name__)


async def ask(helper: str, registry: str) -> tuple[str, str] | None:
    """Username and secret that a helper has for a registry; ``None`` if it has none or does not work.

    What a helper prints is never logged: it is, or may quote, the secret.
    """
    if not _NAME.fullmatch(helper):
        _log.warning("credential helper has no valid name", helper=helper)
        return None
    try:
        code, output = await _run(f"docker-credential-{helper}", _HUB_KEY if registry == HUB else registry)
        if code != 0:
            _log.info("credential helper has nothing", helper=helper, registry=registry, code=code)
            return None
        answer = json.loads(output)
        return str(answer["Username"]), str(answer["Secret"])
    except TimeoutError:
        _log.warning("credential helper took too long", helper=helper, registry=registry)
    except OSError as exc:
        _log.warning("credential helper does not run", helper=helper, registry=registry, error=exc.strerror)
    except (ValueError, KeyError, TypeError):
        _log.warning("credential helper gave no answer that can be read", helper=helper, registry=registry)
    return None


async def _run(program: str, question: str) -> tuple[int, bytes]:
    process = await asyncio.create_subprocess_exec(
        program, "get", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(LIMIT_S):
            if process.stdin is not None:
                with contextlib.suppress(OSError, RuntimeError):  # uvloop's error where it has ended without reading
                    process.stdin.write(question.encode())
                    process.stdin.close()
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, output
