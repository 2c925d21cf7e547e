"""Runs tests as on another machine: as another user, or with a kernel that refuses some of its calls.

python elsewhere.py '{"user": 65534, "deny": ["unshare"], "packages": ["…/site-packages"], "pytest": ["…"]}'
"""

import json
import os
import site
import struct
import sys

NUMBERS = {
    "x86_64": {"unshare": 272, "landlock_create_ruleset": 444, "seccomp": 317, "mount": 165},
    "aarch64": {"unshare": 97, "landlock_create_ruleset": 444, "seccomp": 277, "mount": 40},
}
PRCTL = {"x86_64": 157, "aarch64": 167}
PR_SET_SECCOMP = 22


def refuse(names: list[str]) -> None:
    """Make the kernel answer EPERM to these calls from now on ("seccomp" stands for the prctl as well)."""
    from aios_agent_runner.sandbox import linux

    machine = linux.MACHINE
    program = struct.pack("=HBBI", 0x20, 0, 0, 0)
    for name in names:
        program += struct.pack("=HBBI", 0x15, 0, 1, NUMBERS[machine][name])
        program += struct.pack("=HBBI", 0x06, 0, 0, 0x00050001)
    if "seccomp" in names:
        program += struct.pack("=HBBI", 0x15, 0, 3, PRCTL[machine])
        program += struct.pack("=HBBI", 0x20, 0, 0, 16)
        program += struct.pack("=HBBI", 0x15, 0, 1, PR_SET_SECCOMP)
        program += struct.pack("=HBBI", 0x06, 0, 0, 0x00050001)
    program += struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000)
    linux.no_new_privileges()
    linux.install_filter(program)


def main() -> int:
    config = json.loads(sys.argv[1])
    if config["user"] != os.geteuid():
        os.setgroups([])
        os.setresgid(*[config["user"]] * 3)
        os.setresuid(*[config["user"]] * 3)
    for directory in config["packages"]:
        site.addsitedir(directory)
    if config["deny"]:
        refuse(config["deny"])
    import pytest

    return int(pytest.main(config["pytest"]))


if __name__ == "__main__":
    sys.exit(main())
