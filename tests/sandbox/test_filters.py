"""The seccomp programs, run by an interpreter of their instructions, for both machines that they are written for."""

import struct

import pytest

from aios_agent_runner.sandbox import seccomp

ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
EPERM, ENOSYS = ERRNO | 1, ERRNO | 38

pytestmark = pytest.mark.feature("E3")


def decide(
    program: bytes, machine: str, number: int, *arguments: int, architecture: int | None = None
) -> int:
    """What the kernel would answer to a system call."""
    data = struct.pack("=IIQ", number, architecture or ARCHITECTURE[machine], 0)
    data += struct.pack("=6Q", *(a & (2**64 - 1) for a in (*arguments, 0, 0, 0, 0, 0, 0)[:6]))
    at = accumulator = 0
    while True:
        code, if_true, if_false, value = struct.unpack_from("=HBBI", program, at * 8)
        at += 1
        match code:
            case 0x20:
                (accumulator,) = struct.unpack_from("=I", data, value)
            case 0x15:
                at += if_true if accumulator == value else if_false
            case 0x25:
                at += if_true if accumulator > value else if_false
            case 0x35:
                at += if_true if accumulator >= value else if_false
            case 0x45:
                at += if_true if accumulator & value else if_false
            case 0x06:
                return int(value)
            case _:
                raise AssertionError(f"unknown instruction {code:#x}")


_NAMES = [
    "read",
    "write",
    "openat",
    "mmap",
    "socket",
    "clone",
    "clone3",
    "execve",
    "kill",
    "tgkill",
    "prctl",
    "prlimit64",
    "mount",
    "ioctl",
    "fchmod",
    "io_uring_setup",
    "ptrace",
    "bpf",
    "unshare",
    "fcntl",
    "socketpair",
]
_X86_64 = (0, 1, 257, 9, 41, 56, 435, 59, 62, 234, 157, 302, 165, 16, 91, 425, 101, 321, 272, 72, 53)
_AARCH64 = (63, 64, 56, 222, 198, 220, 435, 221, 129, 131, 167, 261, 40, 29, 52, 425, 117, 280, 97, 25, 199)
NUMBERS = {
    "x86_64": dict(zip(_NAMES, _X86_64, strict=True)),
    "aarch64": dict(zip(_NAMES, _AARCH64, strict=True)),
}


@pytest.mark.parametrize("machine", NUMBERS)
def test_the_filter_of_all_processes_denies_what_none_needs(machine: str) -> None:
    program, n = seccomp.zygote_filter(machine), NUMBERS[machine]
    for name in ("socket", "io_uring_setup", "ptrace", "bpf"):
        assert decide(program, machine, n[name]) == EPERM, name
    for name in ("read", "write", "openat", "mmap", "clone", "mount", "unshare", "execve"):
        assert decide(program, machine, n[name]) == ALLOW, name
    assert decide(program, machine, n["ioctl"], 0, 0x5412) == EPERM
    assert decide(program, machine, n["ioctl"], 0, 0x5401) == ALLOW
    assert decide(program, machine, n["fcntl"], 5, 8) == EPERM
    assert decide(program, machine, n["fcntl"], 5, 1) == ALLOW
    assert decide(program, machine, n["socketpair"], 1, 1 | 0x80000) == ALLOW
    for domain, kind in ((1, 2), (1, 5), (1, 2 | 0x800), (30, 1)):
        assert decide(program, machine, n["socketpair"], domain, kind) == EPERM


@pytest.mark.parametrize("machine", NUMBERS)
def test_a_child_alone_starts_nothing_and_signals_itself(machine: str) -> None:
    program, n = seccomp.child_filter(machine, 77, alone=True, own_root=True), NUMBERS[machine]
    for name in ("mount", "unshare", "execve", "clone"):
        assert decide(program, machine, n[name]) == EPERM, name
    assert decide(program, machine, n["clone3"]) == ENOSYS
    assert decide(program, machine, n["kill"], 77, 9) == ALLOW
    assert decide(program, machine, n["tgkill"], 77, 77, 6) == ALLOW
    for target in (1, 0, -1, 78):
        assert decide(program, machine, n["kill"], target, 9) == EPERM
    assert decide(program, machine, n["prctl"], 1, 0) == EPERM
    assert decide(program, machine, n["prctl"], 15, 0) == ALLOW
    assert decide(program, machine, n["prlimit64"], 0, 7) == ALLOW
    assert decide(program, machine, n["prlimit64"], 4711, 7) == EPERM
    assert decide(program, machine, n["fchmod"]) == ALLOW


@pytest.mark.parametrize("machine", NUMBERS)
def test_a_child_with_more_processes_starts_them_in_no_new_namespace(machine: str) -> None:
    program, n = seccomp.child_filter(machine, 1, alone=False, own_root=False), NUMBERS[machine]
    assert decide(program, machine, n["clone"], 17) == ALLOW
    assert decide(program, machine, n["clone"], 0x3D0F00) == ALLOW  # what a thread is made with
    for flag in (0x20000, 0x10000000, 0x20000000, 0x40000000, 0x08000000, 0x04000000, 0x02000000, 0x80):
        assert decide(program, machine, n["clone"], flag | 17) == EPERM
    assert decide(program, machine, n["fchmod"]) == EPERM


@pytest.mark.parametrize("machine", NUMBERS)
def test_unknown_calls_and_other_machines_have_no_way_in(machine: str) -> None:
    for program in (
        seccomp.zygote_filter(machine),
        seccomp.child_filter(machine, 1, alone=True, own_root=True),
        seccomp.child_filter(machine, 1, alone=False, own_root=False),
    ):
        assert decide(program, machine, 457) == ENOSYS
        assert decide(program, machine, 5000) == ENOSYS
        assert decide(program, machine, 0, architecture=0x40000003) == KILL
        assert len(program) // 8 <= 4096
        if machine == "x86_64":
            assert decide(program, machine, 0x40000000 | 41) == KILL
