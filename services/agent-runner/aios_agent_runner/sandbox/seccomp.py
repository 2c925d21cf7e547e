"""Which system calls an agent may not make, as classic BPF programs. Pure: names and numbers in, bytes out.

A list of what is denied, closed upwards: numbers that are newer than this list answer ENOSYS, as on an older kernel.
Denied calls answer EPERM rather than kill, so that an agent's author sees which line was refused.

Two programs, because the kernel works through each at installation and that is paid for every call: `zygote_filter`
is long and installed once; `child_filter` is short and adds what the zygote itself still needed.
"""

import struct
from collections.abc import Iterable
from typing import Final

_ARCHITECTURE: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # AUDIT_ARCH_*
_X32_BIT: Final = 0x40000000
_NEWEST: Final = 456  # futex_requeue, Linux 6.7

_ALLOW: Final = 0x7FFF0000
_KILL: Final = 0x80000000
_ERRNO: Final = 0x00050000
_EPERM: Final = 1
_ENOSYS: Final = 38

_NAMESPACE_FLAGS: Final = 0x7E020080  # every CLONE_NEW* that clone(2) takes
_IOCTLS: Final = (0x5412, 0x541C, 0x8901, 0x8902)  # TIOCSTI, TIOCLINUX; FIOSETOWN, SIOCSPGRP
_FCNTLS: Final = (8, 10, 15)  # F_SETOWN, F_SETSIG, F_SETOWN_EX: with O_ASYNC they send any signal to anyone
_AF_UNIX: Final = 1
_NOT_STREAM: Final = (
    0x6  # the bits of SOCK_DGRAM and SOCK_SEQPACKET: such a pair may still send to an address
)
_PR_SET_PDEATHSIG: Final = 1

# name: (x86_64, aarch64); None where the machine never had the call.
_ALWAYS: Final[dict[str, tuple[int | None, int | None]]] = {
    # network and message channels to the outside or to other calls
    "socket": (41, 198), "connect": (42, 203), "bind": (49, 200), "listen": (50, 201),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195),
    "msgget": (68, 186), "msgsnd": (69, 189), "msgrcv": (70, 188), "msgctl": (71, 187),
    "semget": (64, 190), "semop": (65, 193), "semctl": (66, 191), "semtimedop": (220, 192),
    "mq_open": (240, 180), "mq_unlink": (241, 181),
    # other processes
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "process_madvise": (440, 440), "process_mrelease": (448, 448), "kcmp": (312, 272), "pidfd_getfd": (438, 438),
    "migrate_pages": (256, 238), "move_pages": (279, 239),
    "setpriority": (141, 140), "sched_setscheduler": (144, 119), "sched_setparam": (142, 118),
    "sched_setattr": (314, 274), "sched_setaffinity": (203, 122), "ioprio_set": (251, 30),
    # the file system as a whole
    "chroot": (161, 51), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430),
    "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442),
    "pivot_root": (155, 41), "open_by_handle_at": (304, 265), "name_to_handle_at": (303, 264),
    "swapon": (167, 224), "swapoff": (168, 225), "acct": (163, 89), "quotactl": (179, 60),
    "quotactl_fd": (443, 443), "fanotify_init": (300, 262), "fanotify_mark": (301, 263),
    # the machine
    "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "reboot": (169, 142), "syslog": (103, 116),
    "settimeofday": (164, 170), "clock_settime": (227, 112), "adjtimex": (159, 171), "clock_adjtime": (305, 266),
    "sethostname": (170, 161), "setdomainname": (171, 162), "vhangup": (153, 58),
    "iopl": (172, None), "ioperm": (173, None), "modify_ldt": (154, None), "personality": (135, 92),
    "uselib": (134, None), "ustat": (136, None), "sysfs": (139, None), "lookup_dcookie": (212, 18),
    # interfaces of the kernel that have been ways out of it, or hold memory that no limit counts
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "memfd_secret": (447, 447),
    "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218),
    "vmsplice": (278, 75), "mbind": (237, 235), "set_mempolicy": (238, 237), "set_mempolicy_home_node": (450, 450),
}  # fmt: skip
_CHILD: Final[dict[str, tuple[int | None, int | None]]] = {
    "mount": (165, 40), "umount2": (166, 39), "unshare": (272, 97), "setns": (308, 268),
    "execve": (59, 221), "execveat": (322, 281),
    "memfd_create": (319, 279),  # its pages count towards no limit of the process
}  # fmt: skip
_ALONE: Final[dict[str, tuple[int | None, int | None]]] = {
    "fork": (57, None), "vfork": (58, None), "clone": (56, 220),
    "tkill": (200, 130), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
    "pidfd_send_signal": (424, 424),
}  # fmt: skip
# Landlock leaves these to the file's owner, who may be the very user that the agent runs as.
_SHARED_FILES: Final[dict[str, tuple[int | None, int | None]]] = {
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452),
    "chown": (92, None), "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54),
    "utime": (132, None), "utimes": (235, None), "futimesat": (261, None), "utimensat": (280, 88),
    "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7),
    "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16),
    "truncate": (76, 45), "inotify_add_watch": (254, 27),
}  # fmt: skip
_CLONE: Final = (56, 220)
_CLONE3: Final = 435
_PRCTL: Final = (157, 167)
_IOCTL: Final = (16, 29)
_FCNTL: Final = (72, 25)
_SOCKETPAIR: Final = (53, 199)
_PRLIMIT: Final = (302, 261)
_KILLS: Final = ((62, 129), (234, 131))  # kill, tgkill

_LOAD, _EQUAL, _GREATER, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x25, 0x35, 0x45, 0x06
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data; an argument's low half comes first


def zygote_filter(machine: str) -> bytes:
    """What neither the zygote nor any child needs."""
    index = _index(machine)
    body = [_deny(numbers[index]) for numbers in _ALWAYS.values()]
    body += [_deny_argument(_IOCTL[index], 1, _EQUAL, request) for request in _IOCTLS]
    body += [_deny_argument(_FCNTL[index], 1, _EQUAL, command) for command in _FCNTLS]
    body.append(_deny_argument(_SOCKETPAIR[index], 0, _EQUAL, _AF_UNIX, unless=True))
    body.append(_deny_argument(_SOCKETPAIR[index], 1, _ANY_BIT, _NOT_STREAM))
    return _program(machine, body)


def child_filter(machine: str, process: int, *, alone: bool, own_root: bool) -> bytes:
    """What the code of an agent may not do besides. `process` is the child's own id, as it sees it.

    `alone`: it starts no process or thread and signals none but itself. Else it may clone, though not into namespaces.
    `own_root`: the files that it can name are read-only or its own.
    """
    index = _index(machine)
    body = [_deny(numbers[index]) for numbers in _CHILD.values()]
    body.append(_deny_argument(_PRCTL[index], 0, _EQUAL, _PR_SET_PDEATHSIG))
    body.append(_deny_argument(_PRLIMIT[index], 0, _EQUAL, 0, unless=True))
    # The flags of clone3 lie in memory, out of a filter's sight; the C library then falls back to clone.
    body.append(_deny(_CLONE3, _ENOSYS))
    if not own_root:
        body += [_deny(numbers[index]) for numbers in _SHARED_FILES.values()]
    if alone:
        body += [_deny(numbers[index]) for numbers in _ALONE.values()]
        body += [_deny_argument(numbers[index], 0, _EQUAL, process, unless=True) for numbers in _KILLS]
    else:
        body.append(_deny_argument(_CLONE[index], 0, _ANY_BIT, _NAMESPACE_FLAGS))
    return _program(machine, body)


def _index(machine: str) -> int:
    return list(_ARCHITECTURE).index(machine)


def _op(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def _deny(number: int | None, error: int = _EPERM) -> bytes:
    if number is None:
        return b""
    return _op(_EQUAL, number, 0, 1) + _op(_RETURN, _ERRNO | error)


def _deny_argument(number: int, argument: int, test: int, value: int, *, unless: bool = False) -> bytes:
    """Deny call `number` if the low half of an argument passes the test (`unless`: if it fails it)."""
    true, false = (1, 0) if unless else (0, 1)
    return (
        _op(_EQUAL, number, 0, 4)
        + _op(_LOAD, _ARGUMENTS + 8 * argument)
        + _op(test, value, true, false)
        + _op(_RETURN, _ERRNO | _EPERM)
        + _op(_LOAD, _NUMBER)
    )


def _program(machine: str, body: Iterable[bytes]) -> bytes:
    start = [
        _op(_LOAD, _ARCH),
        _op(_EQUAL, _ARCHITECTURE[machine], 1, 0),
        _op(_RETURN, _KILL),  # a call of another architecture has other numbers
        _op(_LOAD, _NUMBER),
    ]
    if machine == "x86_64":
        start += [_op(_AT_LEAST, _X32_BIT, 0, 1), _op(_RETURN, _KILL)]
    start += [_op(_GREATER, _NEWEST, 0, 1), _op(_RETURN, _ERRNO | _ENOSYS)]
    return b"".join(start) + b"".join(body) + _op(_RETURN, _ALLOW)
