"""Imports in the zygote what agents need often, so that a call finds it there."""

import importlib
import importlib.util
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from aios_agent_runner.sandbox import agent, child, linux, root

# Plain os calls: tempfile and shutil would stay in the memory of every child, and reseed `random` at each fork.
# ruff: noqa: PTH102, PTH106, PTH108


def load(modules: Sequence[str], *, new_root: bool, temporary: str) -> None:
    """Import `modules` with an environment and a home as in a call. Raises what an import raises."""
    with _home_in_root() if new_root else _home_in(temporary) as home:
        agent.set_environment(home)
        for module in modules:
            importlib.import_module(module)
    agent.set_environment(f"{root.CALL}/{child.SCRATCH}")
    importlib.util.find_spec("no_such_module")  # reads each directory of the path once, for all children


@contextmanager
def _home_in_root() -> Iterator[str]:
    """The place where each call has its own home; some libraries remember where they were first imported."""
    home = f"{root.CALL}/{child.SCRATCH}"
    linux.mount("tmpfs", root.CALL, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "size=32m,mode=700")
    try:
        os.mkdir(home, 0o700)
        yield home
    finally:
        linux.unmount(root.CALL)


@contextmanager
def _home_in(temporary: str) -> Iterator[str]:
    home = f"{temporary}/aios-preload-{os.urandom(8).hex()}"
    try:
        os.mkdir(home, 0o700)
    except OSError:
        yield home  # most libraries can do without; one that can't says so
        return
    try:
        yield home
    finally:
        for parent, directories, files in os.walk(home, topdown=False):
            for name in files:
                os.unlink(f"{parent}/{name}")
            for name in directories:
                os.rmdir(f"{parent}/{name}")
        os.rmdir(home)
