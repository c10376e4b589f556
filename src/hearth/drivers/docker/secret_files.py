"""Secrets as files of a container, in a volume in memory that is filled before the program starts.

Such a volume is empty whenever nothing has it mounted. So the files cannot be there before the container mounts it, and
after its start they would come too late. A second container, which never starts, gets them by an upload that goes on
until the first one has started: the upload keeps the volume mounted.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import tarfile
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from aiodocker.containers import DockerContainer
from aiodocker.exceptions import DockerError

from hearth.aio.background import Background
from hearth.aio.clock import pause
from hearth.drivers.base import StartFailed
from hearth.drivers.docker.engine import Engine
from hearth.drivers.docker.errors import NOT_FOUND
from hearth.drivers.docker.removal import Remover
from hearth.models.secret import FOLDER

_PAGE_BYTES: Final = 4096
#: For the folder itself.
_SPARE_BYTES: Final = 64 * 1024
_END_OF_ARCHIVE: Final = bytes(1024)
#: Seconds between two looks for the files.
_LOOK_AGAIN_S: Final = 0.01
_USERS: Final = "/etc/passwd"


def mount(secrets: Mapping[str, str]) -> dict[str, Any]:
    """Return the mount of a container that gets these files. The Engine removes the volume with the container."""
    size = sum(-(-len(value.encode()) // _PAGE_BYTES) * _PAGE_BYTES for value in secrets.values()) + _SPARE_BYTES
    options = {"type": "tmpfs", "device": "tmpfs", "o": f"size={size},mode=0755,nosuid,nodev,noexec"}
    driver = {"Name": "local", "Options": options}
    return {
        "Type": "volume",
        "Target": FOLDER,
        "VolumeOptions": {"NoCopy": True, "DriverConfig": driver},
    }


@contextlib.asynccontextmanager
async def delivered(
    engine: Engine, remover: Remover, shown: Mapping[str, Any], secrets: Mapping[str, str]
) -> AsyncIterator[None]:
    """Keep the files in the volume of a container that is to start within the block.

    Args:
        engine: The Engine of the container.
        remover: Removes the second container.
        shown: The container, as the Engine shows it.
        secrets: The contents by name.

    Raises:
        StartFailed: The user of the image does not exist in it.
        DockerError: The Engine refuses.
    """
    if not secrets:
        yield
        return
    container = engine.docker.containers.container(shown["Id"])
    archive = _archive(secrets, await _owner(container, str(shown["Config"].get("User") or "")))
    helper = await engine.docker.containers.create(_helper(shown))
    started = asyncio.Event()
    background = Background()
    try:
        upload = background.start(_upload(helper, _pieces(archive, started)))
        await _arrival(engine, container, upload, secrets)
        yield
        started.set()
        await upload
    finally:
        await background.cancel()
        remover.remove(helper.id)


def _helper(shown: Mapping[str, Any]) -> dict[str, Any]:
    """Return the second container: of the same image, with the same labels, so that leftovers are found."""
    volume = next(found["Name"] for found in shown["Mounts"] if found["Destination"] == FOLDER)
    place = {"Type": "volume", "Source": volume, "Target": FOLDER, "VolumeOptions": {"NoCopy": True}}
    return {
        "Image": shown["Image"],
        "Labels": shown["Config"]["Labels"],
        "HostConfig": {"Mounts": [place], "NetworkMode": "none", "CapDrop": ["ALL"]},
    }


async def _owner(container: DockerContainer, user: str) -> int:
    """Return the number of the user that an image names."""
    name = user.partition(":")[0]
    if not name or name.isdecimal():
        return int(name or 0)
    with contextlib.suppress(DockerError, KeyError):
        users = _content(await container.get_archive(_USERS), "passwd").decode("utf-8", "replace")
        for line in users.splitlines():
            fields = line.split(":")
            if fields[0] == name and len(fields) > 2 and fields[2].isdecimal():
                return int(fields[2])
    raise StartFailed(f"the image's user {name} is not in its {_USERS}", image_fault=True)


def _archive(secrets: Mapping[str, str], owner: int) -> bytes:
    """Return an archive of the files, without its end."""
    buffer = io.BytesIO()
    archive = tarfile.open(fileobj=buffer, mode="w")
    for name, value in secrets.items():
        content = value.encode()
        header = tarfile.TarInfo(name)
        header.size, header.mode, header.uid, header.gid = len(content), 0o400, owner, owner
        archive.addfile(header, io.BytesIO(content))
    return buffer.getvalue()


async def _upload(helper: DockerContainer, pieces: AsyncIterator[bytes]) -> None:
    await helper.put_archive(FOLDER, pieces)  # type: ignore[no-untyped-call]  # the library's own is untyped


async def _pieces(archive: bytes, ended: asyncio.Event) -> AsyncIterator[bytes]:
    yield archive
    await ended.wait()
    yield _END_OF_ARCHIVE


async def _arrival(
    engine: Engine, container: DockerContainer, upload: asyncio.Task[Any], secrets: Mapping[str, str]
) -> None:
    """Wait until the last file is complete. The Engine tells nobody, so this asks again and again."""
    last = list(secrets)[-1]
    while not upload.done():
        try:
            found = await container.get_archive(f"{FOLDER}/{last}")
        except DockerError as exc:
            if exc.status != NOT_FOUND:
                raise
        else:
            with contextlib.suppress(KeyError):
                if _content(found, last) == secrets[last].encode():
                    return
        await pause(engine.clock, _LOOK_AGAIN_S)
    await upload
    raise StartFailed("the secrets could not be delivered")


def _content(archive: tarfile.TarFile, name: str) -> bytes:
    """Return the content of a file in an archive. Raises ``KeyError`` if it is not there."""
    file = archive.extractfile(name)
    return b"" if file is None else file.read()
