"""Tries, as an agent would, what no agent may do. The pool runs it each time that the zygote starts."""

import os
import socket
from pathlib import Path
from typing import Any, Final

_LOOPBACK: Final = ("127.0.0.1", 1)  # nothing listens on port 1: with a network the answer is "refused"
_FAMILIES: Final = ("AF_UNIX", "AF_INET", "AF_INET6", "AF_NETLINK", "AF_PACKET")


def run(request: dict[str, Any], files: Path, out: Path) -> dict[str, Any]:
    """Answer {promise: ""} if it holds, else {promise: what was possible}. `request["private"]` lists paths."""
    return {
        "no-network": _network(),
        "no-credentials": _credentials(request["private"]),
        "one-process": _process(),
    }


def _network() -> str:
    made = [name for name in _FAMILIES if hasattr(socket, name) and _can_make(getattr(socket, name))]
    if "AF_INET" in made:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.settimeout(1.0)
            try:
                probe.connect(_LOOPBACK)
            except ConnectionRefusedError:
                return "an agent could reach the loopback interface"
            except OSError:
                return ""
    return "an agent could make a unix socket" if "AF_UNIX" in made else ""


def _can_make(family: int) -> bool:
    try:
        socket.socket(family, socket.SOCK_DGRAM if family != socket.AF_UNIX else socket.SOCK_STREAM).close()
    except OSError:
        return False
    return True


def _credentials(private: list[str]) -> str:
    for path in private:
        try:
            os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
        except OSError:
            continue
        return f"an agent could read {path}"
    return ""


def _process() -> str:
    try:
        process = os.fork()
    except OSError:
        return ""
    if process == 0:
        os._exit(0)
    return "an agent could start a process"
