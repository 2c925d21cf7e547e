"""Why a row, or a whole file, was not counted: one stable code and one sentence for each case.

A code never changes its meaning. A whole file carries line 0.
"""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

REJECTED_ROWS_ARTIFACT: Final = "rejected-rows.json"
MAX_LISTED: Final = 200
"""Rejections, warnings, outliers or projects in a result; the whole list of rejections is an artifact."""
MAX_ARTIFACT_BYTES: Final = 48 * 1024 * 1024
EXCERPT_CHARS: Final = 60
"""How much of a cell a sentence quotes, in characters."""


class ReasonCode(StrEnum):
    """Stable names of the reasons, the whole-file ones first."""

    FILE_MISSING = "FILE_MISSING"
    FILE_TOO_LARGE = "FILE_TOO_LARGE"
    TOO_MANY_LINES = "TOO_MANY_LINES"
    BINARY_FILE = "BINARY_FILE"
    UNREADABLE_TEXT = "UNREADABLE_TEXT"
    BAD_HEADER = "BAD_HEADER"
    NO_HEADER = "NO_HEADER"
    MISSING_COLUMNS = "MISSING_COLUMNS"
    AMBIGUOUS_COLUMNS = "AMBIGUOUS_COLUMNS"
    UNANSWERED_COLUMN = "UNANSWERED_COLUMN"
    UNCLOSED_QUOTE = "UNCLOSED_QUOTE"
    STRAY_QUOTE = "STRAY_QUOTE"
    LINE_TOO_LONG = "LINE_TOO_LONG"
    TOO_FEW_FIELDS = "TOO_FEW_FIELDS"
    TOO_MANY_FIELDS = "TOO_MANY_FIELDS"
    MISSING_VALUE = "MISSING_VALUE"
    BAD_DATE = "BAD_DATE"
    OTHER_MONTH = "OTHER_MONTH"
    BAD_NUMBER = "BAD_NUMBER"
    AMBIGUOUS_NUMBER = "AMBIGUOUS_NUMBER"
    HOURS_OUT_OF_RANGE = "HOURS_OUT_OF_RANGE"
    NEGATIVE_RATE = "NEGATIVE_RATE"
    UNKNOWN_STATUS = "UNKNOWN_STATUS"
    UNKNOWN_CURRENCY = "UNKNOWN_CURRENCY"
    CURRENCY_MISMATCH = "CURRENCY_MISMATCH"
    DUPLICATE_ROW = "DUPLICATE_ROW"
    CONFLICTING_INVOICE = "CONFLICTING_INVOICE"


_C = ReasonCode

SENTENCES: Final[dict[ReasonCode, str]] = {
    _C.FILE_MISSING: "The file could not be read ({why}); nothing of it was counted.",
    _C.FILE_TOO_LARGE: "The file has {size} bytes; at most {limit} are read. Split it into several files.",
    _C.TOO_MANY_LINES: "The file has {count} lines; {room} more are read for this month.",
    _C.BINARY_FILE: "This is not a text table ({what}). Export it as CSV.",
    _C.UNREADABLE_TEXT: "The text is damaged: it starts as {encoding} but does not stay so. Export it again.",
    _C.BAD_HEADER: "The header line can't be read ({what}), so the columns are not known.",
    _C.NO_HEADER: "The first line holds values, not names of columns. Put a header line above it.",
    _C.MISSING_COLUMNS: "No column for {missing}. The columns are: {headers}.",
    _C.AMBIGUOUS_COLUMNS: "More than one column is called {headers}: which is {column}? Rename one.",
    _C.UNANSWERED_COLUMN: "Which column is {missing}? See the open question; nothing was counted.",
    _C.UNCLOSED_QUOTE: "A quotation mark opens and is not closed.",
    _C.STRAY_QUOTE: "Text follows a closing quotation mark before the next {delimiter}.",
    _C.LINE_TOO_LONG: "The line has {length} characters; at most {limit} are read.",
    _C.TOO_FEW_FIELDS: "The line has {count} fields, the header {width}.",
    _C.TOO_MANY_FIELDS: "The line has {count} fields, the header {width}. Quote a cell that has a {delimiter}.",
    _C.MISSING_VALUE: "No {column} is given.",
    _C.BAD_DATE: "The date {value} is not a day of the calendar as YYYY-MM-DD or D.M.YYYY.",
    _C.OTHER_MONTH: "The date {value} is not in {month}.",
    _C.BAD_NUMBER: "The {column} {value} can't be read as a number.",
    _C.AMBIGUOUS_NUMBER: "The {column} {value} can mean {as_decimal} or {as_grouped}; the column has both ways.",
    _C.HOURS_OUT_OF_RANGE: "{value} hours: a row needs more than 0 and at most 24.",
    _C.NEGATIVE_RATE: "The rate {value} is negative.",
    _C.UNKNOWN_STATUS: "The status {value} is not paid, open or void.",
    _C.UNKNOWN_CURRENCY: "The currency {value} is not known.",
    _C.CURRENCY_MISMATCH: "The {column} {value} is marked as another currency than the row's, {currency}.",
    _C.DUPLICATE_ROW: "The same as {file} line {line}, which is counted.",
    _C.CONFLICTING_INVOICE: "Invoice {number} comes with different contents ({places}); none of them is counted.",
}


@dataclass(frozen=True, slots=True)
class Rejection:
    """A row that is not counted; `line` is its physical line in `file`, 0 for the whole file."""

    file: str
    line: int
    code: ReasonCode
    reason: str

    def to_dict(self) -> dict[str, str | int]:
        return {"file": self.file, "line": self.line, "code": str(self.code), "reason": self.reason}


def reject(file: str, line: int, code: ReasonCode, /, **fields: object) -> Rejection:
    """The rejection with its sentence; `fields` fill the sentence's places."""
    return Rejection(file, line, code, SENTENCES[code].format(**fields))


def list_rejections(rejections: Iterable[Rejection], out: Path) -> dict[str, Any]:
    """The rejected rows by file and line: the first MAX_LISTED, how many there are, and how many for each reason.

    Past MAX_LISTED all are written to an artifact in `out`, one JSON object a line of a JSON list, up to
    MAX_ARTIFACT_BYTES.
    """
    ordered = sorted(rejections, key=lambda one: (one.file, one.line, one.code))
    by_code = Counter(str(one.code) for one in ordered)
    result: dict[str, Any] = {
        "rejected_rows": [one.to_dict() for one in ordered[:MAX_LISTED]],
        "rejected_rows_total": len(ordered),
        "rejected_by_code": dict(sorted(by_code.items(), key=lambda item: (-item[1], item[0]))),
    }
    if len(ordered) > MAX_LISTED:
        _write_rejections(ordered, out / REJECTED_ROWS_ARTIFACT)
        result["rejected_rows_artifact"] = REJECTED_ROWS_ARTIFACT
    return result


def _write_rejections(rejections: list[Rejection], path: Path) -> None:
    with path.open("wb") as file:
        size = file.write(b"[\n")
        for index, one in enumerate(rejections):
            text = json.dumps(one.to_dict(), ensure_ascii=False)
            line = (b",\n" if index else b"") + text.encode("utf-8", "surrogatepass")
            if size + len(line) > MAX_ARTIFACT_BYTES:
                break
            size += file.write(line)
        file.write(b"\n]\n")


def excerpt(text: str) -> str:
    """A cell as a sentence may show it: in quotation marks, printable, at most EXCERPT_CHARS long."""
    shown = "".join(char if char.isprintable() else " " for char in text[: EXCERPT_CHARS + 1]).strip()
    if len(text) > EXCERPT_CHARS:
        shown = shown[:EXCERPT_CHARS] + "…"
    return f"“{shown}”"
