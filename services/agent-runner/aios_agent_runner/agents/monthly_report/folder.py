"""The month's folder: which files count as what by their names, and reading all of one kind."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from aios_agent_runner.agents.monthly_report.decoding import NotText, decode
from aios_agent_runner.agents.monthly_report.facts import Learned
from aios_agent_runner.agents.monthly_report.findings import Findings
from aios_agent_runner.agents.monthly_report.header_names import Kind
from aios_agent_runner.agents.monthly_report.notes import (
    MAX_NOTES_BYTES,
    MAX_SECTION_CHARS,
    Block,
    client_section,
)
from aios_agent_runner.agents.monthly_report.reasons import ReasonCode
from aios_agent_runner.agents.monthly_report.rows import InvoiceRow, TimeRow, read_invoices, read_times
from aios_agent_runner.agents.monthly_report.sources import MAX_FILE_BYTES, open_source

MAX_LINES: Final = 400_000
"""Physical lines of all tables of a month; they take about 1 KB of memory each."""


class Folder:
    """The listed files of a month, by name in the order of their names."""

    def __init__(self, files: Path, listed: Iterable[Mapping[str, Any]]) -> None:
        """`files` is the directory that holds their bytes."""
        self._files = files
        named = {str(entry.get("name")): entry for entry in listed}
        self._named = {name: named[name] for name in sorted(named)}

    def __iter__(self) -> Iterator[str]:
        return iter(self._named)

    def sha256(self, name: str) -> str | None:
        return self._named[name].get("sha256")

    def why_unread(self, name: str) -> str:
        """What whoever listed the file says about why it brought no bytes."""
        return str(self._named[name].get("why") or "it was listed but is not there")[:100]

    def bytes(self, name: str, limit: int) -> bytes | None:
        """The file's bytes, at most one more than the limit; None if it can't be read.

        They lie at the `path` of its entry's `file`, else under its name, and never outside of the directory.
        """
        pointer = self._named[name].get("file")
        place = pointer.get("path") if isinstance(pointer, Mapping) else None
        try:
            with (self._files / Path(str(place or name)).name).open("rb") as file:
                return file.read(limit + 1)
        except OSError:
            return None


def kind_of(name: str) -> Kind | None:
    """Which table a file of the folder is by its name: `timesheet*.csv`, `invoice*.csv`, in any case."""
    name = name.casefold()
    if name.endswith(".csv") and _in_the_folder(name):
        return next((kind for kind in Kind if name.startswith(kind)), None)
    return None


def is_notes(name: str) -> bool:
    """Whether a file holds notes by its name: `notes*.md`, `notes*.txt`, in any case."""
    name = name.casefold()
    return name.startswith("notes") and name.endswith((".md", ".txt")) and _in_the_folder(name)


def _in_the_folder(name: str) -> bool:
    """Whether it is a file of the folder itself, not of one inside or outside of it."""
    return not {"/", "\0"}.intersection(name)


@dataclass(slots=True)
class Tables:
    """The rows that are right by themselves, and how each file was read."""

    times: list[TimeRow] = field(default_factory=list)
    invoices: list[InvoiceRow] = field(default_factory=list)
    read: list[dict[str, Any]] = field(default_factory=list)


def read_tables(folder: Folder, month: str, learned: Learned, findings: Findings) -> Tables:
    """Read every table of the folder; what is not counted is in `findings`."""
    tables, room = Tables(), MAX_LINES
    for name in folder:
        kind = kind_of(name)
        if kind is None:
            if not is_notes(name):
                findings.note(name, "The file is not a table or notes by its name, so it was not read.")
            continue
        data = folder.bytes(name, MAX_FILE_BYTES)
        if data is None:
            findings.reject(name, 0, ReasonCode.FILE_MISSING, why=folder.why_unread(name))
            continue
        source = open_source(name, kind, data, room, learned, findings)
        if source is None:
            continue
        room -= source.lines
        tables.read.append({**source.describe(), "sha256": folder.sha256(name)})
        if kind is Kind.TIMESHEET:
            tables.times += read_times(source, month, learned, findings)
        else:
            tables.invoices += read_invoices(source, month, learned, findings)
    return tables


def read_notes(folder: Folder, findings: Findings) -> tuple[list[dict[str, str]], list[dict[str, Any]]]:
    """The blocks for the client, and for the owner what was taken of each notes file, without its text."""
    blocks: list[Block] = []
    owner: list[dict[str, Any]] = []
    for name in filter(is_notes, folder):
        data = folder.bytes(name, MAX_NOTES_BYTES)
        text = decode(data) if data is not None and len(data) <= MAX_NOTES_BYTES else None
        if text is None or isinstance(text, NotText):
            words = "The notes can't be read as text, so nothing of them is in the report."
            findings.warn(name, 0, "UNREADABLE_NOTES", words)
            continue
        section, rest = client_section(text.content)
        blocks += section
        owner.append({"file": name, "blocks_for_client": len(section), "kept_back": rest})
    kept, room = [], MAX_SECTION_CHARS
    for block in blocks:
        room -= len(block.text)
        if room < 0:
            cut = f"The notes for the client have over {MAX_SECTION_CHARS} characters; the rest was left out."
            findings.warn("", 0, "NOTES_TOO_LONG", cut)
            break
        kept.append(asdict(block))
    return kept, owner
