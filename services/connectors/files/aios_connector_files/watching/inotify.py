"""inotify(7) through the C library: a descriptor that an event loop waits on, no thread and no polling.

Only the folders that are named are watched, so a report that is written below one makes no noise.
"""

import ctypes
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_MODIFY, _CLOSE_WRITE, _MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x2, 0x8, 0x40, 0x80, 0x100, 0x200
_Q_OVERFLOW, _IGNORED = 0x4000, 0x8000
_ONLYDIR, _DONT_FOLLOW, _ISDIR = 0x01000000, 0x02000000, 0x40000000
_MASK: Final = _MODIFY | _CLOSE_WRITE | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE
_HEADER: Final = struct.Struct("iIII")  # watch, mask, cookie, length of the name
_READ_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Noticed:
    """A change of `name` in a watched folder; `folder` False for a file. `lost`: some were lost, look at everything."""

    place: tuple[str, ...]
    name: str
    folder: bool
    lost: bool = False


class Inotify:
    """Watches of folders, each under a place of the caller's choosing. Raises OSError where there is no inotify."""

    def __init__(self) -> None:
        library = ctypes.CDLL(None, use_errno=True)
        try:
            self._init, self._add = library.inotify_init1, library.inotify_add_watch
        except AttributeError:
            raise OSError("this system has no inotify") from None
        self._add.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32]
        self.descriptor = self._init(os.O_NONBLOCK | os.O_CLOEXEC)
        if self.descriptor < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        self._places: dict[int, tuple[str, ...]] = {}
        self._watched: set[tuple[str, ...]] = set()

    def watch(self, place: tuple[str, ...], path: Path) -> bool:
        """Watch a folder; False when it is watched already. Raises OSError (ENOSPC: the system's limit of watches)."""
        if place in self._watched:
            return False
        watch = self._add(self.descriptor, os.fsencode(path), _MASK | _ONLYDIR | _DONT_FOLLOW * bool(place))
        if watch < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(path))
        self._watched.discard(self._places.get(watch, ()))  # the folder had another name
        self._places[watch] = place
        self._watched.add(place)
        return True

    def watches(self, place: tuple[str, ...]) -> bool:
        """Whether a folder is watched."""
        return place in self._watched

    def read(self) -> Iterator[Noticed]:
        """What was reported since the last call."""
        try:
            data = os.read(self.descriptor, _READ_BYTES)
        except BlockingIOError:
            return
        at = 0
        while at < len(data):
            watch, mask, _, length = _HEADER.unpack_from(data, at)
            name = data[at + _HEADER.size : at + _HEADER.size + length].rstrip(b"\0")
            at += _HEADER.size + length
            if mask & _Q_OVERFLOW:
                yield Noticed((), "", True, lost=True)
            elif mask & _IGNORED:  # the folder is gone; one of its name may be there again
                place = self._places.pop(watch, None)
                if place is not None:
                    self._watched.discard(place)
                    yield Noticed(place[:-1], "".join(place[-1:]), True)
            elif watch in self._places:
                yield Noticed(self._places[watch], os.fsdecode(name), bool(mask & _ISDIR))

    def close(self) -> None:
        os.close(self.descriptor)
