"""Images that were pulled with the login of an app, and the right of other apps to run them.

Every app that names an image on the machine could run it. So the node notes which images it got with the login
of an app, and asks the registry before another app runs one of them: with the login of that app, or, if it has none at
that registry, with what every app may use. An image counts by its content, under whatever name.

Images that were built or loaded here, that anybody may pull, or that the login of the node opens, are not noted. They
run without a question, also while the registry is away.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from hearth.drivers.base import FindLogin, ImageError, ImageNotFound, ImageRefused
from hearth.drivers.docker.engine import Engine
from hearth.drivers.docker.pull_errors import pull_error
from hearth.drivers.docker.retries import ENGINE_ERRORS
from hearth.drivers.logins import Logins
from hearth.host import private_files
from hearth.images.registry.references import Reference, parse
from hearth.models.registry_login import RegistryLogin
from hearth.telemetry.logs import get_logger

#: Seconds for which a proof holds, and for which it holds if the registry cannot be asked again.
PROOF_S: Final = 600.0
PROOF_WITHOUT_REGISTRY_S: Final = 6 * 3600.0
#: Seconds for an answer of a registry, through the Engine.
_ANSWER_S: Final = 10.0
_MAX_PROOFS: Final = 10_000
_REFUSALS: Final = (401, 403, 404)

#: An image, a registry, and the login that opens the image there.
_Proof = tuple[str, str, RegistryLogin | None]

_log = get_logger(__name__)


class PrivateImages:
    """The private images of one Engine, as far as this node pulled them.

    Args:
        engine: Has the images.
        logins: The logins of apps and of the node.
        folder: Where private images are noted, one file for each; ``None`` notes them for the life of the process.
    """

    def __init__(self, engine: Engine, logins: Logins, folder: Path | None) -> None:
        self._engine = engine
        self._logins = logins
        self._folder = folder
        self._noted: dict[str, str] = {}
        self._proofs: dict[_Proof, float] = {}

    def __repr__(self) -> str:
        return f"<PrivateImages noted={len(self._noted)}>"

    async def is_any(self) -> bool:
        """Return whether private images are noted, by this node or by others that use its folder."""
        if self._folder is not None:
            self._noted |= await asyncio.to_thread(_read, self._folder, self._noted)
        return bool(self._noted)

    async def note(self, reference: Reference, login: RegistryLogin) -> None:
        """Note an image that was just pulled with the login of an app, unless it is open to every app.

        Raises:
            OSError: It cannot be noted.
        """
        found = await self._engine.docker.images.inspect(str(reference))
        image_id, source = str(found["Id"]), _source(reference, found.get("RepoDigests") or [])
        self._prove((image_id, reference.registry, login))
        if image_id in self._noted or await self._is_open(parse(source)):
            return
        if self._folder is not None:
            await asyncio.to_thread(_write, self._folder, image_id, source)
        self._noted[image_id] = source

    async def check(self, image: str, reference: Reference, image_id: str, find_login: FindLogin | None) -> None:
        """Check that an app may run an image, by the name that it gives it or by that under which it was pulled.

        Raises:
            ImageRefused: The registry refuses the image to it.
            ImageError: The registry cannot be asked, and the right was not proven lately.
        """
        if (noted := self._noted.get(image_id)) is None:
            return
        source, refused = parse(noted), None
        for name in (reference, source) if await self._is_name_of(reference, image_id) else (source,):
            try:
                return await self._check(image, name, image_id, find_login)
            except ImageRefused as exc:
                refused = exc
        if refused is not None:
            raise refused

    async def _check(self, image: str, name: Reference, image_id: str, find_login: FindLogin | None) -> None:
        login = None if find_login is None else await self._logins.of_app(image, name.registry, find_login)
        proof = (image_id, name.registry, login)
        age_s = self._engine.clock.monotonic() - self._proofs.get(proof, float("-inf"))
        if age_s < PROOF_S:
            return
        status, text = await self._ask(name, login)
        if status == 200:
            self._prove(proof)
            return
        error = pull_error(image, name, status, text)
        if status in _REFUSALS or isinstance(error, ImageRefused | ImageNotFound):
            self._proofs.pop(proof, None)
            raise error if isinstance(error, ImageRefused) else ImageRefused(image, status, text)
        if age_s >= PROOF_WITHOUT_REGISTRY_S:
            raise ImageError(image, f"cannot check the app's right to it at {name.registry}: {text}", 502)
        _log.warning("right to an image not checked again", image=image, registry=name.registry, error=text)

    async def _is_name_of(self, reference: Reference, image_id: str) -> bool:
        """Return whether the Engine knows an image by this name; a digest alone may be that of any image here."""
        with contextlib.suppress(*ENGINE_ERRORS):
            return bool((await self._engine.docker.images.inspect(str(reference)))["Id"] == image_id)
        return False

    async def _is_open(self, source: Reference) -> bool:
        """Return whether apps without a login may pull it."""
        status, _ = await self._ask(source, None)
        return status == 200

    async def _ask(self, source: Reference, login: RegistryLogin | None) -> tuple[int, str]:
        """Ask the registry for the image; return its status and what it says, 503 if there is no answer."""
        auth = await self._logins.auth(source.registry, login)
        try:
            async with asyncio.timeout(_ANSWER_S):
                return await self._engine.ask_registry(
                    str(source), source.registry, None if auth is None else auth.as_engine_takes_it()
                )
        except ENGINE_ERRORS as exc:
            return 503, str(exc) or f"no answer within {_ANSWER_S:g} s"

    def _prove(self, proof: _Proof) -> None:
        self._proofs.pop(proof, None)
        self._proofs[proof] = self._engine.clock.monotonic()
        if len(self._proofs) > _MAX_PROOFS:
            del self._proofs[next(iter(self._proofs))]


def _source(reference: Reference, digests: list[str]) -> str:
    """Return the name under which an image was pulled, with its digest: a tag may change."""
    repository = f"{reference.registry}/{reference.path}"
    for text in digests:
        with contextlib.suppress(ValueError):
            one = parse(text)
            if f"{one.registry}/{one.path}" == repository:
                return str(one)
    return str(reference)


def _read(folder: Path, known: Mapping[str, str]) -> dict[str, str]:
    """Return what is noted in a folder and not known yet."""
    with contextlib.suppress(FileNotFoundError):
        new = {name.replace("-", ":", 1): folder / name for name in os.listdir(folder) if not name.startswith(".")}
        return {image_id: file.read_text() for image_id, file in new.items() if image_id not in known}
    return {}


def _write(folder: Path, image_id: str, source: str) -> None:
    private_files.make_folder(folder)
    private_files.create(folder / image_id.replace(":", "-", 1), source)
