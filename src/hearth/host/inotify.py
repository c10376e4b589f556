"""Notice new names in folders: Linux's inotify, which the standard library does not offer."""

from __future__ import annotations

import asyncio
import ctypes
import functools
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final

_CREATED: Final = 0x100
_MOVED_TO: Final = 0x80
_ONLY_FOLDERS: Final = 0x1000000
_EVENT: Final = struct.Struct("iIII")
#: In place of a watch: the kernel has dropped events.
_OVERFLOW: Final = -1
_READ_BYTES: Final = 64 * 1024


class FolderWatch:
    """Calls back when a name appears in a folder. One descriptor serves all folders.

    The kernel limits the watches of a user. Where it grants none, :meth:`add` returns ``None``, and the caller has to
    look for itself.
    """

    def __init__(self) -> None:
        self._fd = -1
        self._callbacks: dict[int, Callable[[], None]] = {}

    def __repr__(self) -> str:
        return f"<FolderWatch folders={len(self._callbacks)}>"

    def add(self, folder: Path, callback: Callable[[], None]) -> int | None:
        """Watch a folder; return what :meth:`remove` takes, or ``None`` if the kernel refuses."""
        try:
            if self._fd < 0:
                self._fd = _call("inotify_init1", os.O_NONBLOCK | os.O_CLOEXEC)
                asyncio.get_running_loop().add_reader(self._fd, self._read)
            watch = _call("inotify_add_watch", self._fd, os.fsencode(folder), _CREATED | _MOVED_TO | _ONLY_FOLDERS)
        except OSError:
            return None
        self._callbacks[watch] = callback
        return watch

    def remove(self, watch: int) -> None:
        """Stop watching a folder. It may be gone."""
        self._callbacks.pop(watch, None)
        if self._fd >= 0:
            _library().inotify_rm_watch(self._fd, watch)

    def close(self) -> None:
        """Stop watching all folders. Idempotent."""
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
        self._fd = -1
        self._callbacks.clear()

    def _read(self) -> None:
        try:
            events = os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            return
        position = 0
        while position < len(events):
            watch, _, _, length = _EVENT.unpack_from(events, position)
            position += _EVENT.size + length
            if watch == _OVERFLOW:
                for each in list(self._callbacks.values()):
                    each()
            elif (callback := self._callbacks.get(watch)) is not None:
                callback()


@functools.cache
def _library() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: bytes | int) -> int:
    result: int = getattr(_library(), name)(*arguments)
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result
