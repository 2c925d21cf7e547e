"""The zygote: enters the sandbox once, imports what every agent needs, then forks a child for each call.

Started by `link.Link` as `python -c` with its control socket as standard input. Single-threaded; it holds no data of
any call. It ends when the runner closes the control socket or dies, and everything it started ends with it.
"""

# Plain os calls: this runs between a fork and the work of a call, where pathlib would take most of the time.
# ruff: noqa: PTH110, PTH112

import gc
import json
import os
import select
import signal
import socket
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aios_agent_runner.sandbox import child, landlock, linux, namespaces, preload, root, seccomp, wire


def main() -> None:
    """Run until the runner lets go."""
    control = socket.socket(fileno=os.dup(0))
    config = json.loads(control.recv(wire.MAX_PACKET)[1:])
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    os.close(null)
    sys.stdout = open(1, "w", encoding="utf-8", errors="backslashreplace", buffering=1)  # noqa: SIM115 - of all children
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.umask(0o077)
    try:
        base = _prepare(config, control)
    except Exception as error:  # whatever it is, the runner must hear of it: standard error leads nowhere
        control.send(wire.FAILED + f"{type(error).__name__}: {error}".encode()[:2000])
        return
    _Zygote(control, base, config["warm"]).serve()


def _prepare(config: dict[str, Any], control: socket.socket) -> child.Base:
    roots: list[str] = config["roots"]
    linux.empty_bounding_set()
    world = namespaces.enter(config["uid"], roots, control.close)
    linux.die_with_parent()
    os.chdir("/")
    sys.path[:] = [p for p in sys.path if p not in config["path"]] + config["path"]
    base = _restrict(world, roots)
    preload.load(config["preload"], new_root=world.new_root, temporary=config["temporary"])
    hello = {"layers": world.layers, "new_root": world.new_root, "user": os.geteuid()}
    gc.collect()
    gc.disable()
    gc.freeze()  # the collector would touch, and so copy, every page that children share
    control.send(wire.HELLO + json.dumps(hello).encode())
    return base


def _restrict(world: namespaces.World, roots: Sequence[str]) -> child.Base:
    linux.empty_bounding_set()
    namespaced = world.pid_namespace is not None or world.new_root
    if namespaced:
        linux.keep_only(
            linux.CAP_SYS_ADMIN
        )  # in its user namespace alone: a namespace and a tmpfs for each call
    else:
        linux.keep_only()
    linux.no_new_privileges()
    world.report("no-new-privileges", True, "set")
    filtered = _filter(world)
    version = landlock.version()
    world.report(
        "landlock", version > 0, f"version {version}" if version else "the kernel has none, or it is off"
    )
    # A root of one's own holds nothing that is not to be read, so one rule serves for all of it.
    readable = ["/"] if world.new_root else [*roots]
    rules = [(p, _rights(p)) for p in (*readable, *root.DEVICES) if os.path.exists(p)]
    base = child.Base(
        zygote=os.getpid(),
        new_root=world.new_root,
        pid_namespace=world.pid_namespace,
        landlock=version,
        rules=tuple((os.open(p, os.O_PATH | os.O_CLOEXEC), rights) for p, rights in rules) if version else (),
        filtered=filtered,
        first_filter=_first_filter(world) if filtered else b"",
    )
    world.report("capabilities-dropped", True, "agents hold none")
    world.report(
        "resource-limits", True, "CPU, address space, file size, descriptors, processes, no core files"
    )
    world.report(
        "file-quota",
        world.new_root,
        "a tmpfs for each call" if world.new_root else "bounds single files only",
    )
    return base


def _filter(world: namespaces.World) -> bool:
    try:
        linux.install_filter(seccomp.zygote_filter(linux.MACHINE))
    except (OSError, ValueError) as error:
        world.report("seccomp", False, f"no filter could be installed ({error})")
        return False
    world.report("seccomp", True, "no sockets, no exec, no dangerous kernel interface")
    return True


def _first_filter(world: namespaces.World) -> bytes:
    return seccomp.child_filter(linux.MACHINE, 1, alone=True, own_root=world.new_root)


def _rights(path: str) -> int:
    if path in root.DEVICES:
        return landlock.DEVICE
    return landlock.READ if os.path.isdir(path) else landlock.READ_ONE


class _Zygote:
    """The loop: one poll over the control socket and a pidfd for each child, whether it works or waits for work."""

    def __init__(self, control: socket.socket, base: child.Base, warm: int) -> None:
        self._control = control
        self._base = base
        self._warm = warm
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)
        self._children: dict[
            int, _Child
        ] = {}  # by pidfd; the runner bounds how many work, `warm` how many wait
        self._working: dict[int, _Child] = {}  # by call
        self._waiting: deque[_Child] = deque()

    def serve(self) -> None:
        while True:
            lacking = len(self._waiting) < self._warm
            ready = self._poll.poll(0 if lacking else None)
            for descriptor, _ in ready:
                if descriptor != self._control.fileno():
                    self._reap(self._children.pop(descriptor))
                elif not self._obey():
                    return
            if lacking and not ready and not self._refill():
                self._warm = len(self._waiting)  # the machine refuses more processes: don't insist

    def _obey(self) -> bool:
        packet, descriptors, _, _ = socket.recv_fds(self._control, wire.MAX_PACKET, 1)
        if not packet:
            return False
        verb, call = wire.COMMAND.unpack(packet)
        if verb == wire.SPAWN:
            self._assign(call, descriptors[0])
            os.close(descriptors[0])
        elif call in self._working:
            os.kill(self._working[call].process, signal.SIGKILL)
        return True

    def _assign(self, call: int, descriptor: int) -> None:
        while self._waiting or self._refill():
            worker = self._waiting.popleft()
            try:
                socket.send_fds(worker.work, [wire.SPAWN], [descriptor])
            except OSError:  # it was killed while it waited; its pidfd will say so
                continue
            finally:
                worker.work.close()
            worker.call = call
            self._working[call] = worker
            return
        self._control.send(wire.EXITED.pack(wire.EXIT, call, wire.NOT_FORKED, 0.0, 0.0, 0))

    def _refill(self) -> bool:
        ours, theirs = socket.socketpair()
        try:
            process = self._fork(theirs)
            worker = _Child(process, os.pidfd_open(process), ours)
        except OSError:
            ours.close()
            return False
        finally:
            theirs.close()
        self._children[worker.watch] = worker
        self._waiting.append(worker)
        self._poll.register(worker.watch, select.POLLIN)
        return True

    def _fork(self, work: socket.socket) -> int:
        namespace = self._base.pid_namespace
        if namespace is not None:
            linux.unshare(linux.CLONE_NEWPID, "unshare")  # the next child is the first process of a new one
        process = -1
        try:
            process = os.fork()
        finally:
            if namespace is not None and process != 0:
                linux.set_namespace(namespace, linux.CLONE_NEWPID)
        if process == 0:
            child.main(work, self._base)
        return process

    def _reap(self, worker: "_Child") -> None:
        self._poll.unregister(worker.watch)
        os.close(worker.watch)
        _, status, usage = os.wait4(worker.process, 0)
        if worker.call is None:
            if worker in self._waiting:  # else its death showed when it should have got a call
                self._waiting.remove(worker)
                worker.work.close()
            return
        del self._working[worker.call]
        self._control.send(
            wire.EXITED.pack(wire.EXIT, worker.call, status, usage.ru_utime, usage.ru_stime, usage.ru_maxrss)
        )


@dataclass(slots=True, eq=False)
class _Child:
    """A forked child. `work`: where it waits for the call socket of its only call. `watch`: its pidfd."""

    process: int
    watch: int
    work: socket.socket
    call: int | None = None
