"""Copy what a node keeps into one file, and restore it into an empty data folder.

In a backup are the database, the queue of async calls and the log store, where they are files; images; the driver; and
the keys of the data folder. The id of the node is not: two nodes with one id would remove each other's functions.

A copy is what a node would find that was killed at that moment. A call is accepted by a message in the queue, then a
record; it ends by its final record, then the message goes. So the queue is copied while nobody can write to the
database: each call of the copy without a final record has its message.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from hearth import __version__
from hearth.aio.clock import SystemClock
from hearth.authorize import admin_token
from hearth.drivers.local.stored import image_store
from hearth.host import private_files
from hearth.models.errors import StartUpError
from hearth.nodes import driver_choice
from hearth.nodes.archive import About, ArchiveWriter, new_archive, unpack
from hearth.queues import file_copy as queue_copy
from hearth.settings import Settings
from hearth.sql import file_copy as database_copy
from hearth.sql.address import parse
from hearth.stores.secrets import keyring

_DATABASE: Final = "database.sqlite"
_QUEUE: Final = "queue.sqlite"
_LOGS: Final = "logs.sqlite"
_KEYS: Final = (keyring.FILE, admin_token.FILE)
_PART: Final = r"[A-Za-z0-9_][A-Za-z0-9._-]*"
_NAME: Final = re.compile(rf"images/(?:index\.json|oci-layout|blobs/sha256/[0-9a-f]{{64}}|repositories(?:/{_PART})+)")
_BOLT: Final = "bolt://"
_SERVERS: Final = {"postgresql": "pg_dump", "mysql": "mysqldump --single-transaction, or mariadb-dump"}


@dataclasses.dataclass(frozen=True, slots=True)
class Backup:
    """The result of a copy or a restore.

    Attributes:
        about: Of the file.
        files: Number of files.
        bytes: Of all files together.
        notes: What is not in it, and what to do about that.
    """

    about: About
    files: int
    bytes: int
    notes: tuple[str, ...]


def back_up(settings: Settings, path: Path, *, with_keys: bool = True) -> Backup:
    """Copy what a node keeps into a new file; the node may run. Blocks.

    Args:
        settings: Those of the node.
        path: The file; must not exist. There is room beside it for one more copy of database, queue and log store.
        with_keys: Copy the key of the secrets and the token of administrators as well.

    Raises:
        StartUpError: There is no node's data where the settings say.
        StoreUnavailable: A database cannot be copied.
        OSError: A file cannot be read or written.
    """
    files = _Files.of(settings)
    if not settings.data.is_dir():
        raise StartUpError(f"FN_DATA_DIR={settings.data}: no such folder; run this with the settings of the node")
    for name, file in files.stores.items():
        if not file.is_file():
            raise StartUpError(f"{file}: no such file ({name}); run this with the settings of the node")
    now = SystemClock().now().isoformat(timespec="seconds")
    about = About(version=__version__, created_at=now, has_keys=with_keys and (settings.data / keyring.FILE).is_file())
    with (
        new_archive(path, about) as archive,
        tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as made,
    ):
        copies = Path(made)
        _copy_stores(files, copies)
        for name in sorted(files.stores):
            archive.add_file(name, copies / name)
        for name in (driver_choice.FILE, *(_KEYS if with_keys else ())):
            with contextlib.suppress(FileNotFoundError):
                archive.add_file(name, settings.data / name)
        _add_images(archive, settings)
    notes = [*files.notes]
    if not about.has_keys:
        notes.append(f"the key of secrets is not in it: {_place_of_keys(settings)}; without it no secret can be read")
    return Backup(about, archive.files, archive.bytes, tuple(notes))


def restore(settings: Settings, path: Path) -> Backup:
    """Restore a backup into an empty data folder, as a whole or not at all. Blocks.

    The caller holds the lock of the folder.

    Raises:
        StartUpError: The folder, or a file that the settings name elsewhere, is in use.
        ArchiveDamaged: The file is no backup, or not all of one.
        OSError: A file cannot be read or written.
    """
    data, files = settings.data, _Files.of(settings)
    if used := sorted(one.name for one in data.iterdir() if not one.name.endswith(".lock")):
        raise StartUpError(
            f"FN_DATA_DIR={data}: is not empty ({used[0]}); set it to a new folder, or move this one away"
        )
    for file in (*files.stores.values(), image_store(settings.bundles).root):
        if file.exists() or file.with_name(f"{file.name}-wal").exists():
            raise StartUpError(f"{file}: exists; move it away, or change the variable that names it")
    made = Path(tempfile.mkdtemp(dir=data, prefix=".restore-"))
    try:
        about = unpack(path, made, _is_expected)
        found = [one for one in made.rglob("*") if one.is_file()]
        size = sum(one.stat().st_size for one in found)
        for name in (_DATABASE, _QUEUE, _LOGS):
            if (made / name).exists() and name not in files.stores:
                raise StartUpError(f"{path}: has a file {name}, but {files.variables[name]} names no file; unset it")
        _move(made, settings, files)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    notes = [*files.notes]
    if not about.has_keys:
        notes.append(f"the key of secrets was not in it: put it back as {settings.data / keyring.FILE}, mode 0600")
    return Backup(about, len(found), size, tuple(notes))


@dataclasses.dataclass(frozen=True, slots=True)
class _Files:
    """The stores of a node.

    Attributes:
        stores: The files, by their name in a backup.
        notes: What to do about stores that are no files.
        variables: The setting of each.
    """

    stores: dict[str, Path]
    notes: list[str]
    variables: dict[str, str]

    @classmethod
    def of(cls, settings: Settings) -> _Files:
        stores: dict[str, Path] = {}
        notes: list[str] = []
        database = parse(settings.database)
        if database.path is not None:
            stores[_DATABASE] = database.path
        else:
            notes.append(f"the database is not in it: {database.shown}; use {_SERVERS[database.dialect]}")
        if settings.queue.startswith(_BOLT):
            stores[_QUEUE] = Path(settings.queue.removeprefix(_BOLT))
        else:
            scheme = settings.queue.partition("://")[0]
            notes.append(f"the queue is not in it: FN_MQ_URL={scheme}://...; of Redis, copy its append-only file")
        if settings.logstore_url:
            scheme = settings.logstore_url.partition("://")[0]
            if scheme.startswith("sqlite"):
                path = parse(settings.logstore_url, "FN_LOGSTORE_URL").path
                assert path is not None
                stores[_LOGS] = path
            else:
                notes.append(f"logs of calls are not in it: FN_LOGSTORE_URL={scheme}://...")
        return cls(stores, notes, {_DATABASE: "FN_DB_URL", _QUEUE: "FN_MQ_URL", _LOGS: "FN_LOGSTORE_URL"})


def _copy_stores(files: _Files, to: Path) -> None:
    """Copy database and queue as they are at one moment, then the logs."""

    def copy_queue() -> None:
        if _QUEUE in files.stores:
            queue_copy.copy_file(files.stores[_QUEUE], to / _QUEUE)

    if _DATABASE in files.stores:
        database_copy.copy_file(files.stores[_DATABASE], to / _DATABASE, copy_queue)
    else:
        copy_queue()
    if _LOGS in files.stores:
        database_copy.copy_file(files.stores[_LOGS], to / _LOGS)


def _add_images(archive: ArchiveWriter, settings: Settings) -> None:
    """Add the image store: first its index, so that all it names is still there when the blobs are read."""
    root = image_store(settings.bundles).root
    for name in ("oci-layout", "index.json"):
        with contextlib.suppress(FileNotFoundError):
            archive.add_bytes(f"images/{name}", (root / name).read_bytes())
    for path in _files_below(root / "repositories", root / "blobs" / "sha256"):
        if _is_expected(name := f"images/{path.relative_to(root)}"):
            with contextlib.suppress(FileNotFoundError):  # collected meanwhile: nothing needs it
                archive.add_file(name, path)


def _files_below(*folders: Path) -> Iterator[Path]:
    for top in folders:
        for folder, _, names in os.walk(top):
            yield from (Path(folder, name) for name in sorted(names))


def _is_expected(name: str) -> bool:
    return name in (_DATABASE, _QUEUE, _LOGS, driver_choice.FILE, *_KEYS) or _NAME.fullmatch(name) is not None


def _move(made: Path, settings: Settings, files: _Files) -> None:
    """Move what was unpacked to its place; the database last: without it, a node starts as a new one."""
    places = {name: settings.data / name for name in (driver_choice.FILE, *_KEYS)}
    places["images"] = image_store(settings.bundles).root
    places |= {name: files.stores[name] for name in (_LOGS, _QUEUE, _DATABASE) if name in files.stores}
    for name, place in places.items():
        if (made / name).exists():
            private_files.make_folder(place.parent)
            shutil.move(made / name, place)
            private_files.sync_folder(place.parent)


def _place_of_keys(settings: Settings) -> str:
    if settings.secret_key.get_secret_value() or settings.secret_key_file is not None:
        return "it is in FN_SECRET_KEY or FN_SECRET_KEY_FILE, keep it apart"
    path = settings.data / keyring.FILE
    return f"keep {path} apart" if path.is_file() else f"there is none yet ({path})"
