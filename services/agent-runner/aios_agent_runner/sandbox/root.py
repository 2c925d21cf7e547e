"""The file system that agents see: a new root of read-only binds, in a mount namespace of its own."""

# Plain os calls: this runs between a fork and the work of a call, where pathlib would take most of the time.
# ruff: noqa: PTH102, PTH110, PTH112, PTH114, PTH115, PTH120, PTH211

import os
from collections.abc import Sequence
from typing import Final

from aios_agent_runner.sandbox import linux

CALL: Final = "/call"  # where each call mounts its own tmpfs
DEVICES: Final = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
# The new root is put together here, out of sight of everyone else: a directory that every Linux has, and from which
# nothing but the devices is needed, which are open by then.
_SITE: Final = "/dev"
_CLOSED: Final = 0o100


def open_sources(roots: Sequence[str]) -> dict[str, int]:
    """Path descriptors of what the new root will hold, opened while this process still may walk to it."""
    return {
        path: os.open(path, os.O_PATH | os.O_CLOEXEC) for path in (*roots, *DEVICES) if os.path.exists(path)
    }


def enter_new_root(sources: dict[str, int]) -> None:
    """Build the root and move into it; the old one is gone afterwards. Raises OSError, then nothing has moved."""
    links = {p: os.readlink(p) for p in ("/lib", "/lib64", "/bin", "/usr/lib64") if os.path.islink(p)}
    linux.mount("none", "/", None, linux.MS_REC | linux.MS_PRIVATE)
    linux.mount("tmpfs", _SITE, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, f"size=1m,mode={_CLOSED:o}")
    try:
        for path, descriptor in sources.items():
            _bind(descriptor, path, device=path in DEVICES)
        for link, target in links.items():
            if not os.path.lexists(_SITE + link):
                _make_directories(os.path.dirname(link))
                os.symlink(target, _SITE + link)
        _make_directories(CALL)
        linux.set_mount_attributes(_SITE, linux.MOUNT_ATTR_RDONLY, recursive=False)
        linux.pivot_root(_SITE)
    except OSError:
        os.chdir("/")
        raise


def _make_directories(path: str) -> None:
    """Make `path` and what leads to it in the new root: to be walked through, not to be listed."""
    made = _SITE
    for part in path.strip("/").split("/"):
        made += "/" + part
        if not os.path.isdir(made):
            os.mkdir(made, _CLOSED)


def _bind(descriptor: int, path: str, *, device: bool) -> None:
    target = _SITE + path
    if os.path.isdir(f"/proc/self/fd/{descriptor}"):
        _make_directories(path)
    else:
        _make_directories(os.path.dirname(path))
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o400))
    linux.mount(f"/proc/self/fd/{descriptor}", target, None, linux.MS_BIND | linux.MS_REC)
    attributes = linux.MOUNT_ATTR_RDONLY | linux.MOUNT_ATTR_NOSUID
    if not device:
        attributes |= linux.MOUNT_ATTR_NODEV
    linux.set_mount_attributes(target, attributes, recursive=True)
