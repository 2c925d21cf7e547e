"""Enters the sandbox as far as the kernel lets this user: namespaces, a new root, another user id.

Every attempt ends in a `Layer`, in force or not and why; nothing here raises for a missing privilege.
"""

# Plain os calls: this runs between a fork and the work of a call, where pathlib would take most of the time.
# ruff: noqa: PTH112, PTH116, PTH120

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from aios_agent_runner.sandbox import linux, root

_KINDS: Final = (
    ("mount", linux.CLONE_NEWNS),
    ("net", linux.CLONE_NEWNET),
    ("ipc", linux.CLONE_NEWIPC),
    ("uts", linux.CLONE_NEWUTS),
    ("pid", linux.CLONE_NEWPID),
)
_MAPPED_TO_OTHER, _MAPPED_TO_SELF, _NOT_MAPPED = 0, 1, 2  # how the process that writes the id maps ends


@dataclass(slots=True)
class World:
    """Where the zygote stands. `layers`: name → (in force, why). `pid_namespace`: a descriptor of the zygote's own."""

    layers: dict[str, tuple[bool, str]] = field(default_factory=dict)
    new_root: bool = False
    pid_namespace: int | None = None

    def report(self, name: str, in_force: bool, why: str) -> None:
        self.layers[name] = (in_force, why)


def enter(uid: int, roots: Sequence[str], leave: Callable[[], None]) -> World:
    """Enter what can be entered. `uid`: the user and group to become when this process is root.

    With a pid namespace this process forks: the child, first of the namespace, returns; the parent calls `leave`
    (which closes what only the child needs), waits for the child and never returns.
    """
    world = World()
    was_root = os.geteuid() == 0
    other_id = _enter_user_namespace(
        world, uid if was_root else os.getuid(), uid if was_root else os.getgid()
    )
    if other_id is None:
        for name, _ in _KINDS:
            world.report(f"{name}-namespace", False, "needs a user namespace")
        _become(world, uid, was_root, "setuid", roots)
    else:
        entered = _enter_others(world)
        sources = root.open_sources(roots) if "mount" in entered else {}
        if was_root and other_id:
            _become(world, uid, was_root, "user namespace", ())
        else:
            world.report("other-user", False, _own_user(was_root))
        if "pid" in entered:
            _become_first_process(leave)
            world.pid_namespace = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        _prefer_for_oom_kill()
        if "mount" in entered:
            _enter_root(world, sources)
    return world


def _enter_user_namespace(world: World, uid: int, gid: int) -> bool | None:
    """True: mapped to `uid`; False: mapped to the own user only; None: there is no namespace."""
    if not linux.SUPPORTED:
        world.report("user-namespace", False, f"not known on {linux.MACHINE}")
        return None
    ready, go = os.pipe()
    writer = os.fork()
    if writer == 0:
        os.close(go)
        os._exit(_write_maps(ready, os.getppid(), uid, gid))
    os.close(ready)
    try:
        linux.unshare(linux.CLONE_NEWUSER, "unshare")
        os.write(go, b"1")
    except OSError as error:
        world.report("user-namespace", False, f"the kernel refused it ({error.strerror})")
        return None
    finally:
        os.close(go)
        outcome = os.waitstatus_to_exitcode(os.waitpid(writer, 0)[1])
    if outcome == _NOT_MAPPED:
        world.report("user-namespace", False, "the kernel refused the id maps")
        return None
    world.report("user-namespace", True, "entered")
    return outcome == _MAPPED_TO_OTHER


def _write_maps(ready: int, process: int, uid: int, gid: int) -> int:
    """In a process that stayed outside: map one user and one group, once the namespace is there."""
    if not os.read(ready, 1):
        return _NOT_MAPPED
    privileged = os.geteuid() == 0
    attempts = [(uid, gid, _MAPPED_TO_OTHER)]
    if privileged:
        attempts.append((os.geteuid(), os.getegid(), _MAPPED_TO_SELF))
    for user, group, outcome in attempts:
        try:
            if user == os.geteuid():
                _write(f"/proc/{process}/setgroups", "deny")
            _write(f"/proc/{process}/gid_map", f"{group} {group} 1")
            _write(f"/proc/{process}/uid_map", f"{user} {user} 1")
        except OSError:
            continue
        return outcome
    return _NOT_MAPPED


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _enter_others(world: World) -> set[str]:
    entered = set()
    for name, flag in _KINDS:
        try:
            linux.unshare(flag, "unshare")
        except OSError as error:
            world.report(f"{name}-namespace", False, f"the kernel refused it ({error.strerror})")
        else:
            entered.add(name)
            world.report(f"{name}-namespace", True, "entered")
    return entered


def _own_user(was_root: bool) -> str:
    return (
        "the kernel refused another id"
        if was_root
        else "agents run as the user that runs AIOS, who is not root"
    )


def _become(world: World, uid: int, was_root: bool, how: str, must_read: Sequence[str]) -> None:
    """Change to user and group `uid` for good, if this is root and that user can reach the Python installation."""
    if not was_root:
        world.report("other-user", False, _own_user(was_root))
        return
    closed = next((path for path in must_read if not _open_to_all(path)), None)
    if closed is not None:
        world.report("other-user", False, f"user {uid} may not read {closed}")
        return
    try:
        linux.keep_capabilities()
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        linux.stay_dumpable()
    except OSError as error:
        world.report("other-user", False, f"the kernel refused it ({error.strerror})")
    else:
        world.report("other-user", True, f"agents run as user {uid} ({how})")


def _open_to_all(path: str) -> bool:
    needed = 0o5 if os.path.isdir(path) else 0o4
    if os.stat(path).st_mode & needed != needed:
        return False
    while path != "/":
        path = os.path.dirname(path)
        if not os.stat(path).st_mode & 0o1:
            return False
    return True


def _become_first_process(leave: Callable[[], None]) -> None:
    child = os.fork()
    if child == 0:
        return
    leave()
    linux.die_with_parent()
    os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 0xFF)


def _prefer_for_oom_kill() -> None:
    """When the machine runs out of memory, an agent is the least loss; it can be tried again."""
    with contextlib.suppress(
        OSError
    ):  # raising one's own score needs no privilege; a machine without /proc has no such score
        _write("/proc/self/oom_score_adj", "800")


def _enter_root(world: World, sources: dict[str, int]) -> None:
    try:
        root.enter_new_root(sources)
    except OSError as error:
        world.report("mount-namespace", False, f"no new root could be made ({error.strerror})")
    else:
        world.new_root = True
        world.report("mount-namespace", True, "a new root with the Python installation alone, read-only")
    finally:
        for descriptor in sources.values():
            os.close(descriptor)
