"""What `aios serve` says: one ready line, one line when it stops, one sentence when it can't start."""

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from aios_cli.launcher.address import Address
from aios_cli.launcher.modules import ALL
from aios_core.errors import REASONS, AiosError

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_START: Final[Mapping[str, int]] = {
    "INVALID_ARGUMENT": EXIT_USAGE,
    "PORT_TAKEN": 10,
    "ALREADY_SERVING": 11,
    "DATA_DIR": 12,
    "READ_ONLY": 13,
    "DISK_FULL": 14,
    "BUS_FAILED": 15,
    "NEWER_STORE": 16,
    "CORRUPT_STORE": 17,
}


def exit_code(problem: AiosError) -> int:
    """The exit code of a start that failed; scripts may rely on it."""
    return EXIT_START.get(problem.code, EXIT_FAILED)


def process_age_ms() -> int:
    """Milliseconds since this process was started by the system, the interpreter's own start included."""
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        started = int(fields[19]) / os.sysconf("SC_CLK_TCK")  # seconds after boot
        return round((time.clock_gettime(time.CLOCK_BOOTTIME) - started) * 1000)
    except (OSError, AttributeError, ValueError, IndexError):
        return round(time.process_time() * 1000)


class Report:
    """Lines for a person, or JSON objects (one a line) for a program, on standard output; errors on standard error."""

    def __init__(self, as_json: bool) -> None:
        self._json = as_json
        self._started = False

    def ready(
        self, place: Address, services: Sequence[str], files: Path | None, moved: Sequence[str], took_ms: int
    ) -> None:
        """The services can be used now. `moved` are the doors whose default port was taken."""
        self._started = True
        if self._json:
            facts = asdict(place) | {
                "files_root": str(files or ""),
                "services": list(services),
                "took_ms": took_ms,
            }
            self._object({"event": "ready", **facts})
            return
        what = "AIOS" if place.target == ALL else f"AIOS ({', '.join(services)})"
        lines = [f"{what} is ready (took {took_ms} ms). Stop it with Ctrl-C."]
        if place.grpc:
            lines += [f"  clients  {place.grpc} (gRPC)", f"  events   http://{place.http}"]
        if files:
            lines.append(f"  files    {files}")
        lines.append(f"  data     {place.data_dir}")
        if moved:
            lines.append(
                f"  The usual port for {' and '.join(moved)} is in use, so the next free one was taken."
            )
        print("\n".join(lines), flush=True)

    def note(self, text: str) -> None:
        """Something a person should know and a program need not."""
        if not self._json:
            print(text, flush=True)

    def stopped(self, late: list[str]) -> None:
        """All is down."""
        if self._json:
            self._object({"event": "stopped", "late": late})
        else:
            tail = f" ({', '.join(late)} did not finish in time; nothing accepted is lost)" if late else ""
            print(f"AIOS has stopped{tail}.", flush=True)

    def failed(self, problem: AiosError) -> int:
        """It can't start, or can't go on. Returns the exit code."""
        if self._json:
            reason = REASONS.get(problem.code)
            error = {
                "code": problem.code,
                "message": problem.message,
                "remedy": problem.details.get("remedy") or (reason.remedy if reason else ""),
                "details": {name: text for name, text in problem.details.items() if name != "remedy"},
            }
            self._object({"error": error})
        else:
            what = "AIOS has stopped" if self._started else "AIOS can't start"
            print(f"{what}: {problem.message} [{problem.code}]", file=sys.stderr, flush=True)
        return exit_code(problem)

    def _object(self, fields: Mapping[str, object]) -> None:
        print(json.dumps(fields), flush=True)
