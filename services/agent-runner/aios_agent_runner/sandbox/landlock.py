"""Landlock: the kernel's own wall around files, which needs neither root nor a namespace (Linux 5.13)."""

import os
import struct
from collections.abc import Iterable
from typing import Final

from aios_agent_runner.sandbox import linux

_CREATE_VERSION: Final = 1
_PATH_BENEATH: Final = 1

_WRITE_FILE: Final = 1 << 1
_READ_FILE: Final = 1 << 2
_READ_DIR: Final = 1 << 3
_REMOVE_DIR: Final = 1 << 4
_REMOVE_FILE: Final = 1 << 5
_MAKE_DIR: Final = 1 << 7
_MAKE_REG: Final = 1 << 8
_REFER: Final = 1 << 13
_TRUNCATE: Final = 1 << 14
_IOCTL_DEV: Final = 1 << 15

_BY_VERSION: Final = {
    1: (1 << 13) - 1,
    2: _REFER,
    3: _TRUNCATE,
    5: _IOCTL_DEV,
}  # what each version learned to handle
_NET: Final = 0b11  # bind and connect of TCP, version 4
_SCOPES: Final = 0b11  # abstract unix sockets and signals, version 6

READ: Final = _READ_FILE | _READ_DIR  # of a directory
READ_ONE: Final = _READ_FILE  # of a file
DEVICE: Final = _READ_FILE | _WRITE_FILE
# Links, devices, sockets and pipes are left out: `out` holds files and directories.
WRITE: Final = READ | _WRITE_FILE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _REFER | _TRUNCATE


def version() -> int:
    """The kernel's Landlock version; 0 if it has none or it is switched off."""
    try:
        return linux.syscall(linux.LANDLOCK_CREATE, "landlock_create_ruleset", None, 0, _CREATE_VERSION)
    except OSError:
        return 0


def restrict(landlock: int, rules: Iterable[tuple[int, int]]) -> None:
    """Confine this process for good to `rules`: pairs of a descriptor and the rights at and beneath it.

    `landlock` is `version()`. Needs no_new_privs.
    """
    handled = 0
    for since, rights in _BY_VERSION.items():
        handled |= rights if landlock >= since else 0
    attributes = struct.pack("=Q", handled)
    if landlock >= 4:
        attributes += struct.pack("=Q", _NET)
    if landlock >= 6:
        attributes += struct.pack("=Q", _SCOPES)
    ruleset = linux.syscall(linux.LANDLOCK_CREATE, "landlock_create_ruleset", attributes, len(attributes), 0)
    try:
        for descriptor, rights in rules:
            rule = struct.pack("=Qi", rights & handled, descriptor)
            linux.syscall(linux.LANDLOCK_ADD, "landlock_add_rule", ruleset, _PATH_BENEATH, rule, 0)
        linux.syscall(linux.LANDLOCK_RESTRICT, "landlock_restrict_self", ruleset, 0)
    finally:
        os.close(ruleset)
