"""One call, from the fork to its end: confine this process for good, then run one function of agent code.

Up to `_run` everything here is trusted and the descriptors that it sends are believed; from the import of the agent's
module on, this process may do and say anything that the layers let it.
"""

# Plain os calls: this runs between a fork and the work of a call, where pathlib would take most of the time.
# ruff: noqa: PTH102, PTH103, PTH119, PTH120, PTH123

import array
import gc
import json
import os
import resource
import socket
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from aios_agent_runner.sandbox import agent, landlock, linux, root, seccomp, wire

SCRATCH: Final = "scratch"  # beside `out`: the current and temporary directory of an agent
_DESCRIPTORS: Final = 64  # open at one time
_INODES: Final = 4096  # files and directories of a call
_PAGE: Final = 4096
_SPARE_PAGES: Final = 16  # for directories and the last page of each file
_TMPFS_FLAGS: Final = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC
_CALL: Final = 3  # of the call socket; in the zygote the control socket has it, which a child has no use for
_STACK_BYTES: Final = 8 * 1024 * 1024

Input = tuple[int, int, int]  # descriptor, where in it the bytes begin, and how many they are


@dataclass(frozen=True, slots=True)
class Base:
    """What a child finds prepared.

    `zygote`: the zygote's process id. `pid_namespace`: a descriptor of the zygote's namespace, if it has its own.
    `rules`: the Landlock rules that are the same for each call. `first_filter`: the seccomp program of a call with
    one process that is the first of its pid namespace.
    """

    zygote: int
    new_root: bool
    pid_namespace: int | None
    landlock: int
    rules: tuple[tuple[int, int], ...]
    filtered: bool
    first_filter: bytes


def main(work: socket.socket, base: Base) -> NoReturn:
    """Make ready, wait on `work` for the call socket of one call, run that call and end this process."""
    os.setsid()  # so that a signal to "my process group" stays here
    _die_with_zygote(base)
    try:
        if base.new_root:
            _mount_own_directory()
        _rehearse()
        _, descriptors, _, _ = socket.recv_fds(work, 1, 1)
    except OSError:
        os._exit(1)
    if not descriptors:
        os._exit(0)
    os.dup2(descriptors[0], _CALL, inheritable=False)
    call = socket.socket(fileno=_CALL)
    try:
        header, request = _confine(call, base)
    except (OSError, ValueError, KeyError) as error:
        text = f"{type(error).__name__}: {error}"
        agent.answer(call, wire.ERROR, json.dumps({"kind": wire.NOT_SET_UP, "message": text}).encode())
        os._exit(1)
    gc.enable()
    agent.run(call, header, request)
    os._exit(0)


def _die_with_zygote(base: Base) -> None:
    linux.die_with_parent()
    # It may have died before the line above. With a pid namespace that has ended this process too, and the zygote's
    # id is 0 here, since it is outside.
    if base.pid_namespace is None and os.getppid() != base.zygote:
        os._exit(1)


def _rehearse() -> None:
    """Do in small what a call will do, while nobody waits: the pages that it touches are this child's own by then."""
    ours, theirs = socket.socketpair()
    header = json.dumps({"request_in_file": False, "shared": False, "files": []}).encode()
    socket.send_fds(ours, [wire.REQUEST.pack(len(header), 2), header, b"{}"], [os.dup(0)])
    _, _, _, log = _receive(theirs)
    for descriptor in (log, ours.detach(), theirs.detach()):
        os.close(descriptor)
    agent.encode(json.loads("{}"))


def _mount_own_directory() -> None:
    """A tmpfs that this call alone sees; it goes when the last process of the call goes."""
    linux.unshare(linux.CLONE_NEWNS, "unshare")
    linux.mount("tmpfs", root.CALL, "tmpfs", _TMPFS_FLAGS, f"size=64k,nr_inodes={_INODES},mode=700")
    _make_parts(root.CALL)


def _make_parts(directory: str) -> None:
    for name in ("in", "out", SCRATCH):
        os.mkdir(f"{directory}/{name}", 0o700)


def _confine(call: socket.socket, base: Base) -> tuple[dict[str, Any], bytes]:
    header, request, inputs, log = _receive(call)
    os.dup2(log, 1)
    os.dup2(log, 2)
    limits = header["limits"]
    if base.new_root:
        directory = header["directory"] = root.CALL
        size = (header["input_bytes"] + limits["file_bytes"]) // _PAGE + len(inputs) + _SPARE_PAGES
        linux.mount("tmpfs", directory, "tmpfs", _TMPFS_FLAGS | linux.MS_REMOUNT, f"size={size * _PAGE}")
    else:
        directory = header["directory"]
        _make_parts(directory)
        agent.set_environment(f"{directory}/{SCRATCH}")
    for name, (descriptor, start, size) in inputs.items():
        _copy(descriptor, start, size, f"{directory}/in/{name}")
    out = os.open(f"{directory}/out", os.O_RDONLY | os.O_DIRECTORY)
    socket.send_fds(call, [wire.FRAME.pack(wire.OUT, 0)], [out])
    _restrict(directory, base, limits)
    os.chdir(f"{directory}/{SCRATCH}")
    return header, request


def _receive(call: socket.socket) -> tuple[dict[str, Any], bytes, dict[str, Input], int]:
    """The header, the request, the input files by name, and where the agent's prints go."""
    room = wire.REQUEST.size + wire.MAX_HEADER + wire.INLINE_REQUEST
    data, ancillary, _, _ = call.recvmsg(room, socket.CMSG_SPACE(4 * wire.MAX_DESCRIPTORS))
    descriptors = array.array("i")
    for _, _, payload in ancillary:
        descriptors.frombytes(payload)
    header_size, request_size = wire.REQUEST.unpack_from(data)
    end = wire.REQUEST.size + header_size + request_size
    while len(data) < end:
        more = call.recv(end - len(data))
        if not more:
            raise OSError("the runner went away")
        data += more
    header = json.loads(data[wire.REQUEST.size : wire.REQUEST.size + header_size])
    request = data[wire.REQUEST.size + header_size : end]
    log, *files = descriptors
    if header["request_in_file"]:
        with open(files.pop(0), "rb") as file:
            file.seek(0)
            request = file.read()
    inputs = _shared(files.pop(0)) if header["shared"] else {}
    for name, descriptor in zip(header["files"], files, strict=True):
        inputs[name] = (descriptor, 0, os.fstat(descriptor).st_size)
    return header, request, inputs, log


def _shared(descriptor: int) -> dict[str, Input]:
    (length,) = wire.TABLE.unpack(os.pread(descriptor, wire.TABLE.size, 0))
    start = wire.TABLE.size + length
    inputs = {}
    for name, size in json.loads(os.pread(descriptor, length, wire.TABLE.size)):
        inputs[name] = (descriptor, start, size)
        start += size
    return inputs


def _copy(source: int, start: int, size: int, target: str) -> None:
    os.makedirs(os.path.dirname(target), exist_ok=True)
    done = 0
    copy = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
    while done < size:
        sent = os.sendfile(copy, source, start + done, size - done)
        if not sent:
            raise OSError(f"{os.path.basename(target)} became shorter while it was read")
        done += sent
    os.close(copy)


def _restrict(directory: str, base: Base, limits: dict[str, Any]) -> None:
    alone = limits["processes"] == 1
    if not alone:
        linux.unshare(
            linux.CLONE_NEWUSER, "unshare"
        )  # its processes are counted apart from those of other calls
    linux.keep_only()
    _die_with_zygote(base)
    if base.landlock:
        kept = (("in", landlock.READ), ("out", landlock.WRITE), (SCRATCH, landlock.WRITE))
        mine = [(os.open(f"{directory}/{name}", os.O_PATH), rights) for name, rights in kept]
        landlock.restrict(base.landlock, (*base.rules, *mine))
    linux.close_from(_CALL + 1)
    _limit(limits)
    if base.filtered:
        own = os.getpid()
        if alone and own == 1:
            linux.install_filter(base.first_filter)
        else:
            code = seccomp.child_filter(linux.MACHINE, own, alone=alone, own_root=base.new_root)
            linux.install_filter(code)


def _limit(limits: dict[str, Any]) -> None:
    wanted = {
        # Soft and hard are equal: the first process of a pid namespace ignores SIGXCPU, not SIGKILL.
        resource.RLIMIT_CPU: limits["cpu_seconds"],
        resource.RLIMIT_AS: limits["memory_bytes"],
        resource.RLIMIT_FSIZE: limits["file_bytes"],
        resource.RLIMIT_NOFILE: _DESCRIPTORS,
        resource.RLIMIT_NPROC: limits["processes"],
        resource.RLIMIT_STACK: _STACK_BYTES,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
        resource.RLIMIT_CORE: 0,
    }
    for kind, value in wanted.items():
        hard = resource.getrlimit(kind)[1]
        if hard != resource.RLIM_INFINITY:
            value = min(value, hard)
        resource.setrlimit(kind, (value, value))
