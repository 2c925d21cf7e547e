"""The Linux calls that Python 3.11 has no function for. Each raises OSError with the name of what failed."""

import ctypes
import os
import struct
import sys
from typing import Final

CLONE_NEWNS: Final = 0x00020000
CLONE_NEWUTS: Final = 0x04000000
CLONE_NEWIPC: Final = 0x08000000
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWPID: Final = 0x20000000
CLONE_NEWNET: Final = 0x40000000

MS_RDONLY: Final = 0x1
MS_NOSUID: Final = 0x2
MS_NODEV: Final = 0x4
MS_NOEXEC: Final = 0x8
MS_REMOUNT: Final = 0x20
MS_BIND: Final = 0x1000
MS_REC: Final = 0x4000
MS_PRIVATE: Final = 0x40000
MNT_DETACH: Final = 0x2

MOUNT_ATTR_RDONLY: Final = 0x1
MOUNT_ATTR_NOSUID: Final = 0x2
MOUNT_ATTR_NODEV: Final = 0x4
_AT_FDCWD: Final = -100
_AT_RECURSIVE: Final = 0x8000

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_KEEPCAPS: Final = 8
_PR_CAPBSET_DROP: Final = 24
_PR_SET_SECCOMP: Final = 22
_PR_SET_NO_NEW_PRIVS: Final = 38
_SECCOMP_MODE_FILTER: Final = 2

CAP_SYS_ADMIN: Final = 21
_LAST_CAP: Final = 63  # the kernel refuses numbers that it doesn't have; there are 41 today
_CAPABILITY_VERSION: Final = 0x20080522

_PIVOT_ROOT: Final = {"x86_64": 155, "aarch64": 41}
_MOUNT_SETATTR: Final = 442
_CLOSE_RANGE: Final = 436
_MAX_DESCRIPTOR: Final = 0x7FFFFFFF
LANDLOCK_CREATE: Final = 444
LANDLOCK_ADD: Final = 445
LANDLOCK_RESTRICT: Final = 446

MACHINE: Final = os.uname().machine
SUPPORTED: Final = sys.platform == "linux" and MACHINE in _PIVOT_ROOT

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def syscall(number: int, what: str, *arguments: object) -> int:
    """Make one system call by its number; `arguments` are ints, bytes, None or ctypes values."""
    wide = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return _checked(int(_libc.syscall(ctypes.c_long(number), *wide)), what)


def _prctl(what: str, option: int, *arguments: int) -> None:
    padded = [ctypes.c_ulong(a) for a in (*arguments, 0, 0, 0, 0)[:4]]
    _checked(_libc.prctl(option, *padded), what)


def unshare(flags: int, what: str) -> None:
    """Put this process (for CLONE_NEWPID: its next child) into new namespaces."""
    _checked(_libc.unshare(flags), what)


def set_namespace(descriptor: int, kind: int) -> None:
    """Enter the namespace that `descriptor` is open on."""
    _checked(_libc.setns(descriptor, kind), "setns")


def mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    """mount(2)."""
    type_ = kind.encode() if kind else None
    data = options.encode() if options else None
    _checked(
        _libc.mount(os.fsencode(source), os.fsencode(target), type_, ctypes.c_ulong(flags), data),
        f"mount {target}",
    )


def unmount(target: str) -> None:
    """Take away the mount at `target`, at once or when its last user goes."""
    _checked(_libc.umount2(os.fsencode(target), MNT_DETACH), f"umount {target}")


def set_mount_attributes(target: str, attributes: int, *, recursive: bool) -> None:
    """Add MOUNT_ATTR_* to the mount at `target`, and to those beneath it. Needs Linux 5.12."""
    request = struct.pack("=QQQQ", attributes, 0, 0, 0)
    flags = _AT_RECURSIVE if recursive else 0
    syscall(_MOUNT_SETATTR, "mount_setattr", _AT_FDCWD, os.fsencode(target), flags, request, len(request))


def pivot_root(new_root: str) -> None:
    """Make `new_root`, a mount point, the root of this mount namespace and let go of the old one."""
    os.chdir(new_root)
    syscall(_PIVOT_ROOT[MACHINE], "pivot_root", b".", b".")
    unmount(".")
    os.chdir("/")


def die_with_parent() -> None:
    """Let the kernel kill this process when its parent ends. Call it after the last change of credentials."""
    _prctl("PR_SET_PDEATHSIG", _PR_SET_PDEATHSIG, 9)


def keep_capabilities() -> None:
    """Keep capabilities over the next change of user id."""
    _prctl("PR_SET_KEEPCAPS", _PR_SET_KEEPCAPS, 1)


def stay_dumpable() -> None:
    """Keep /proc/self ours after a change of user id, as writing the id maps needs."""
    _prctl("PR_SET_DUMPABLE", _PR_SET_DUMPABLE, 1)


def no_new_privileges() -> None:
    """From now on no exec gains privilege; irreversible, inherited."""
    _prctl("PR_SET_NO_NEW_PRIVS", _PR_SET_NO_NEW_PRIVS, 1)


def empty_bounding_set() -> None:
    """Make every capability ungainable. Without CAP_SETPCAP there is nothing in it that no_new_privs doesn't stop."""
    for capability in range(_LAST_CAP + 1):
        if _libc.prctl(_PR_CAPBSET_DROP, ctypes.c_ulong(capability), 0, 0, 0) < 0:
            return


def keep_only(*capabilities: int) -> None:
    """Drop every capability of this process but these, for good."""
    low = sum(1 << c for c in capabilities if c < 32)
    high = sum(1 << (c - 32) for c in capabilities if c >= 32)
    header = struct.pack("=Ii", _CAPABILITY_VERSION, 0)
    _checked(_libc.capset(header, struct.pack("=IIIIII", low, low, 0, high, high, 0)), "capset")


def held_capabilities() -> int:
    """The permitted and effective capabilities of this process as one bit mask."""
    header = ctypes.create_string_buffer(struct.pack("=Ii", _CAPABILITY_VERSION, 0))
    data = ctypes.create_string_buffer(24)
    _checked(_libc.capget(header, data), "capget")
    effective, permitted, _, effective_high, permitted_high, _ = struct.unpack("=IIIIII", data.raw)
    return int(effective | permitted | (effective_high | permitted_high) << 32)


def install_filter(program: bytes) -> None:
    """Add a seccomp filter: classic BPF as `seccomp.assemble` makes it. Needs no_new_privs."""
    code = ctypes.create_string_buffer(program, len(program))
    header = ctypes.create_string_buffer(struct.pack("@HP", len(program) // 8, ctypes.addressof(code)))
    _prctl("PR_SET_SECCOMP", _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(header))


def close_from(first: int) -> None:
    """Close every descriptor from `first` up, in one call where the kernel can (Linux 5.9)."""
    try:
        syscall(_CLOSE_RANGE, "close_range", first, _MAX_DESCRIPTOR, 0)
    except OSError:
        os.closerange(first, os.sysconf("SC_OPEN_MAX"))
