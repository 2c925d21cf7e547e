"""Code agents that try what no agent may do, and answer with what came of it: {"refused": reason} or what they got.

They run inside the sandbox, so they import nothing of the tests.
"""

import ctypes
import json
import os
import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Answer = dict[str, Any]
CALL_SOCKET = 3
_kept: list[str] = []


def attempt(action: Callable[[], object]) -> Answer:
    try:
        got = action()
    except OSError as error:
        return {"refused": type(error).__name__}
    except (RuntimeError, ValueError) as error:
        return {"refused": str(error)}
    return {"got": str(got)}


# Network


def connect(request: Answer, files: Path, out: Path) -> Answer:
    def tcp() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as s:
            s.settimeout(2)
            s.connect(("127.0.0.1", request["tcp"]))

    def udp() -> int:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            return s.sendto(b"hello", ("127.0.0.1", request["udp"]))

    def unix(address: str) -> Callable[[], None]:
        def go() -> None:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
                s.connect(address)

        return go

    def pair() -> bytes:
        left, right = socket.socketpair()
        left.send(b"x")
        return right.recv(1)

    return {
        "tcp": attempt(tcp),
        "tcp6": attempt(lambda: socket.socket(socket.AF_INET6, socket.SOCK_STREAM)),
        "udp": attempt(udp),
        "unix": attempt(unix(request["unix"])),
        "datagram pair": attempt(lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)),
        "abstract": attempt(unix("\0" + request["abstract"])),
        "netlink": attempt(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)),
        "packet": attempt(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)),
        "vsock": attempt(lambda: socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)),
        "io_uring": attempt(lambda: _syscall(425, 8, ctypes.create_string_buffer(120))),
        "pair": attempt(pair),
    }


# What it may see


def read(request: Answer, files: Path, out: Path) -> Answer:
    def content(path: str) -> Callable[[], object]:
        return lambda: os.listdir(path) if os.path.isdir(path) else Path(path).read_bytes()[:20]

    return {path: attempt(content(path)) for path in request["paths"]}


def surroundings(request: Answer, files: Path, out: Path) -> Answer:
    descriptors = []
    for number in range(1024):
        try:
            os.fstat(number)
        except OSError:
            continue
        descriptors.append(number)
    return {
        "environment": dict(os.environ),
        "descriptors": descriptors,
        "directory": os.getcwd(),
        "umask": os.umask(0o077),
        "user": os.getuid(),
        "modules": sorted(__import__("sys").modules),
        "process": os.getpid(),
        "parent": os.getppid(),
        "order": list({"a", "b", "c", "d", "e", "f"}),
    }


def write(request: Answer, files: Path, out: Path) -> Answer:
    def put(path: Path) -> Callable[[], object]:
        return lambda: path.write_text("x")

    places = [
        *map(Path, request["directories"]),
        files,
        Path("/"),
        Path("/dev/shm"),
        Path(__file__).parent,
        files.parent,
    ]
    return {
        "elsewhere": {str(place): attempt(put(place / "written-by-agent")) for place in places},
        "own code": attempt(put(Path(__file__))),
        "out": attempt(put(out / "kept.txt")),
        "scratch": attempt(put(Path.cwd() / "dropped.txt")),
        "temporary": attempt(put(Path(__import__("tempfile").gettempdir()) / "dropped too.txt")),
    }


def leave(request: Answer, files: Path, out: Path) -> Answer:
    _kept.append(request["secret"])
    os.environ["SECRET"] = request["secret"]
    for place in (out, Path.cwd()):
        (place / "leftover").write_text(request["secret"])
    return {"shared memory": attempt(lambda: _syscall(29, 0x1234, 4096, 0o1777))}


def find(request: Answer, files: Path, out: Path) -> Answer:
    found = [str(p) for place in (files, out, Path.cwd()) for p in place.rglob("*")]
    return {
        "files": found,
        "kept": _kept,
        "environment": "SECRET" in os.environ,
        "shared memory": attempt(lambda: _syscall(29, 0x1234, 4096, 0)),
        "calls": attempt(lambda: os.listdir(files.parent.parent)),
    }


def read_files(request: Answer, files: Path, out: Path) -> Answer:
    return {str(p.relative_to(files)): p.read_text() for p in sorted(files.rglob("*")) if p.is_file()}


# Limits


def spin(request: Answer, files: Path, out: Path) -> Answer:
    while True:
        pass


def sleep(request: Answer, files: Path, out: Path) -> Answer:
    print("before", flush=True)
    time.sleep(request.get("seconds", 3600))
    return {}


def interval(request: Answer, files: Path, out: Path) -> Answer:
    began = time.monotonic()
    time.sleep(0.02)
    return {"began": began, "ended": time.monotonic()}


def fill_memory(request: Answer, files: Path, out: Path) -> Answer:
    held = []
    while True:
        held.append(bytearray(request["piece"]))


def fill_disk(request: Answer, files: Path, out: Path) -> Answer:
    written = 0
    for number in range(1000):
        with (out / f"{number}").open("wb", buffering=0) as file:
            written += file.write(b"x" * request["piece"])
            _kept.append(str(written))
    return {"written": written}


def fork_bomb(request: Answer, files: Path, out: Path) -> Answer:
    started = 0
    for _ in range(500):
        try:
            process = os.fork()
        except OSError as error:
            return {"started": started, "refused": type(error).__name__}
        if process == 0:
            time.sleep(3600)
            os._exit(0)
        started += 1
    return {"started": started}


def endless_forks(request: Answer, files: Path, out: Path) -> Answer:
    while True:
        try:
            os.fork()
        except OSError:
            continue


def thread(request: Answer, files: Path, out: Path) -> Answer:
    return attempt(lambda: threading.Thread(target=time.sleep, args=(0,)).start())


def two_processes(request: Answer, files: Path, out: Path) -> Answer:
    """Leave a process behind that has done what it can to get away."""
    process = os.fork()
    if process == 0:
        os.setsid()
        time.sleep(3600)
    if request.get("wait"):
        time.sleep(3600)
    return {"process": process}


def answer_of(request: Answer, files: Path, out: Path) -> Answer:
    return {"text": "x" * request["size"]}


def chatter(request: Answer, files: Path, out: Path) -> Answer:
    for _ in range(request["lines"]):
        print("x" * 1023)
    return {"done": True}


def print_little(request: Answer, files: Path, out: Path) -> Answer:
    import sys

    print("to out")
    print("to err", file=sys.stderr)
    return {}


# Endings


def raise_error(request: Answer, files: Path, out: Path) -> Answer:
    return _deeper(request["divisor"])


def _deeper(divisor: int) -> Answer:
    return {"quotient": 1 // divisor}


def raise_from_library(request: Answer, files: Path, out: Path) -> Answer:
    return dict(json.loads("{broken"))


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise ValueError("no")


def raise_unspeakable(request: Answer, files: Path, out: Path) -> Answer:
    raise Unspeakable


def leave_by_exit(request: Answer, files: Path, out: Path) -> Answer:
    raise SystemExit(3)


def leave_at_once(request: Answer, files: Path, out: Path) -> Answer:
    print("last words", flush=True)
    os._exit(7)


def crash(request: Answer, files: Path, out: Path) -> Answer:
    return {"read": ctypes.string_at(8)}


def recurse(request: Answer, files: Path, out: Path) -> Answer:
    return recurse(request, files, out)


def answer_badly(request: Answer, files: Path, out: Path) -> Any:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    return {
        "list": [1, 2],
        "none": None,
        "set": {"a": {1}},
        "nan": {"a": float("nan")},
        "bytes": {"a": b"x"},
        "key": {(1, 2): 3},
        "deep": {"a": deep},
        "surrogate": {"a": "\ud800"},
    }[request["kind"]]


def forge(request: Answer, files: Path, out: Path) -> Answer:
    frames = {
        "not json": b"R" + struct.pack("@I", 4)[:4] + b"nope",
        "array": struct.pack("<cI", b"R", 2) + b"[]",
        "nan": struct.pack("<cI", b"R", 9) + b'{"a":NaN}',
        "huge": struct.pack("<cI", b"R", 2**32 - 1) + b"x" * 1000,
        "unknown": struct.pack("<cI", b"?", 2) + b"{}",
        "half": struct.pack("<cI", b"R", 100) + b"{",
        "error": struct.pack("<cI", b"X", 4) + b"nope",
        "deep": struct.pack("<cI", b"R", 200_000) + b"[" * 200_000,
    }
    os.write(CALL_SOCKET, frames[request["kind"]])
    os._exit(0)


def forge_and_flood(request: Answer, files: Path, out: Path) -> Answer:
    with socket.socket(fileno=os.dup(CALL_SOCKET)) as call:
        socket.send_fds(call, [struct.pack("<cI", b"R", 2) + b"{}"], [os.open("/dev/null", os.O_RDONLY)] * 50)
        while True:
            call.send(b"x" * 65536)


# The kernel


def signal_others(request: Answer, files: Path, out: Path) -> Answer:
    targets = {"parent": os.getppid(), "runner": request["runner"], "everyone": -1, "group": 0, "first": 1}
    return {
        name: attempt(lambda p=process: os.kill(p, 9))
        for name, process in targets.items()
        if process != os.getpid()
    }


def change_files(request: Answer, files: Path, out: Path) -> Answer:
    path = request["path"]
    return {
        "mode": attempt(lambda: os.chmod(path, 0o777)),
        "owner": attempt(lambda: os.chown(path, os.getuid(), os.getgid())),
        "times": attempt(lambda: os.utime(path, (0, 0))),
        "attributes": attempt(lambda: os.setxattr(path, "user.a", b"x")),
        "size": attempt(lambda: os.truncate(path, 0)),
        "name": attempt(lambda: os.rename(path, out / "mine")),
        "link": attempt(lambda: os.link(path, out / "mine")),
        "end": attempt(lambda: os.unlink(path)),
    }


def own_files(request: Answer, files: Path, out: Path) -> Answer:
    """What ordinary agents do with files of their own."""
    import shutil

    (out / "a").write_text("a")
    (out / "d").mkdir()
    os.replace(out / "a", out / "d" / "b")
    shutil.copyfile(out / "d" / "b", out / "c")
    (out / "d" / "b").unlink()
    (out / "d").rmdir()
    with (out / "c").open("r+") as file:
        file.truncate(0)
    return {"left": sorted(os.listdir(out))}


def signal_by_descriptor(request: Answer, files: Path, out: Path) -> Answer:
    import fcntl

    left, _right = socket.socketpair()
    return {
        "owner": attempt(lambda: fcntl.fcntl(left, fcntl.F_SETOWN, request["runner"])),
        "signal": attempt(lambda: fcntl.fcntl(left, 10, 9)),
        "ioctl": attempt(lambda: fcntl.ioctl(left, 0x8901, struct.pack("i", request["runner"]))),
    }


def escape(request: Answer, files: Path, out: Path) -> Answer:
    libc = ctypes.CDLL(None, use_errno=True)

    def checked(result: int) -> int:
        if result < 0:
            raise OSError(ctypes.get_errno(), "refused")
        return result

    return {
        "mount": attempt(lambda: checked(libc.mount(b"tmpfs", str(out).encode(), b"tmpfs", 0, None))),
        "umount": attempt(lambda: checked(libc.umount2(str(files.parent).encode(), 2))),
        "chroot": attempt(lambda: os.chroot(out)),
        "user namespace": attempt(lambda: checked(libc.unshare(0x10000000))),
        "ptrace": attempt(lambda: checked(libc.ptrace(16, 1, 0, 0))),
        "keyctl": attempt(lambda: _syscall(250, 0, -3, 1)),
        "bpf": attempt(lambda: _syscall(321, 0, 0, 0)),
        "userfaultfd": attempt(lambda: _syscall(323, 0)),
        "memory file": attempt(lambda: os.memfd_create("x")),
        "exec": attempt(lambda: os.execv("/usr/bin/true", ["true"])),
        "spawn": attempt(lambda: os.posix_spawn("/usr/bin/true", ["true"], {})),
        "parent death signal": attempt(lambda: checked(libc.prctl(1, 0, 0, 0, 0))),
        "limits of others": attempt(lambda: __import__("resource").prlimit(request["runner"], 7, (1, 1))),
        "own limits": attempt(lambda: __import__("resource").setrlimit(9, (2**40, 2**40))),
        "become root": attempt(lambda: os.setuid(0)) if os.getuid() else {"refused": "is root"},
        "device": attempt(lambda: os.mknod(out / "disk", 0o60600, os.makedev(8, 0))),
        "new call": attempt(lambda: _syscall(500)),
        "shared memory": attempt(lambda: _syscall(29, 0, 4096, 0o1600)),
    }


# Artifacts


def make(request: Answer, files: Path, out: Path) -> Answer:
    kind = request["kind"]
    target = out / "thing"
    if kind == "files":
        (out / "charts").mkdir()
        (out / "charts" / "a.svg").write_text("<svg/>")
        (out / "report.md").write_text("# Report")
        (out / "empty").touch()
    elif kind == "link":
        target.symlink_to(request["to"])
    elif kind == "pipe":
        os.mkfifo(target)
    elif kind == "hard link":
        (out / "first").touch()
        os.link(out / "first", target)
    elif kind == "socket":
        os.mknod(target, 0o140600)
    elif kind == "bad name":
        (out / "a\nb").touch()
    elif kind == "not utf-8":
        open(os.fsencode(out) + b"/\xff", "w").close()
    elif kind == "deep":
        for _ in range(20):
            out /= "d"
            out.mkdir()
    elif kind == "many":
        for number in range(1500):
            (out / str(number)).touch()
    elif kind == "sparse":
        with target.open("wb") as file:
            file.truncate(request["size"])
    elif kind == "closed":
        target.mkdir()
        (target / "inside").mkdir(0)
    return {}


def _syscall(number: int, *arguments: Any) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return int(result)
