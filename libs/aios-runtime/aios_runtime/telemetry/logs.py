"""Structured logs: one JSON object a line, with service, run and trace, and never a secret.

Modules log with the standard library: `logging.getLogger(__name__).warning("sentence", extra={"run_id": run})`. What
is in `extra` becomes fields of the line.
"""

import json
import logging
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Final

from aios_runtime import tracecontext
from aios_runtime.telemetry import identity

MAX_FILE_BYTES: Final = 10 * 1024 * 1024
KEPT_FILES: Final = 3
MAX_LINE_CHARS: Final = 16 * 1024
MAX_DEPTH: Final = 4
REDACTED: Final = "[redacted]"

_SECRET_NAME: Final = re.compile(
    r"token|passw|secret|authorization|api[-_]?key|credential|cookie|nonce", re.IGNORECASE
)
_SECRET_TEXT: Final = (
    re.compile(r"(?i)\b(?P<keep>(?:bearer|basic)\s+)[A-Za-z0-9._~+/=-]{6,}"),
    re.compile(
        r"(?i)(?P<keep>\b[\w-]*(?:token|password|passwd|secret|authorization|api[-_]?key|cookie)[\w-]*"
        r"[\"']?\s*[:=]\s*[\"']?)(?!(?:bearer|basic)\s)[^\s\"',;&]+"
    ),
    re.compile(r"(?P<keep>\b[a-z][a-z0-9+.-]*://[^\s/:@]*:)[^\s/@]+(?=@)"),
    re.compile(r"\b(?P<keep>aios[._][A-Za-z0-9-]+[._])[A-Za-z0-9_-]{32,}"),  # a token of ours
    re.compile(r"\b(?P<keep>sk-)[A-Za-z0-9_-]{16,}"),
)
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def redact(text: str) -> str:
    """The text with everything that looks like a credential replaced."""
    for pattern in _SECRET_TEXT:
        text = pattern.sub(lambda match: match.group("keep") + REDACTED, text)
    return text


def redact_value(name: str, value: object, depth: int = 0) -> object:
    """A field's value in JSON types, redacted by its name and its content."""
    if isinstance(value, bool | int | float) or value is None:
        return value  # numbers are counts, such as those of a model's tokens
    if _SECRET_NAME.search(name):
        return REDACTED
    if depth < MAX_DEPTH and isinstance(value, Mapping):
        return {str(key): redact_value(str(key), item, depth + 1) for key, item in value.items()}
    if depth < MAX_DEPTH and isinstance(value, list | tuple):
        return [redact_value("", item, depth + 1) for item in value]
    return redact(str(value))


class JsonLines(logging.Formatter):
    """A record as one line of JSON: time, level, service, message, logger, run_id and trace_id if known, fields."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, at most `MAX_LINE_CHARS` long in its message and error."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "service": identity.service.get(),
            "message": redact(record.getMessage())[:MAX_LINE_CHARS],
            "logger": record.name,
        }
        trace = tracecontext.current.get()
        if trace:
            line["trace_id"] = trace[3:35]
        for name, value in vars(record).items():
            if name not in _STANDARD:
                line[name] = redact_value(name, value)
        if record.exc_info:
            line["error"] = redact(self.formatException(record.exc_info))[-MAX_LINE_CHARS:]
        return json.dumps(line, ensure_ascii=False)


def to_stderr(level: int = logging.INFO) -> None:
    """Log to standard error, as containers do."""
    _install(logging.StreamHandler(sys.stderr), level)


def to_file(path: Path, level: int = logging.INFO) -> None:
    """Log to a file for its owner alone, at most `KEPT_FILES` + 1 files of `MAX_FILE_BYTES`. Raises OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.touch(mode=0o600)
    _install(
        RotatingFileHandler(path, maxBytes=MAX_FILE_BYTES, backupCount=KEPT_FILES, encoding="utf-8"), level
    )


def _install(handler: logging.Handler, level: int) -> None:
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(level)
    logging.raiseExceptions = False  # a full disk must not turn a log line into an error of the work
