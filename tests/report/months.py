"""Builds a month's folder in a test and computes it."""

import hashlib
import json
from pathlib import Path
from typing import Any

from aios_agent_runner.agents.monthly_report import compute, render

TIMES = "date,project,task,hours,rate,currency"
INVOICES = "number,date,due_date,amount,currency,status,paid_date"
MONTH = "2026-10"
Lines = list[str]


class Folder:
    """One client's month: files by name, facts and history, and what computing it gives."""

    def __init__(self, root: Path, month: str = MONTH) -> None:
        self.files, self.out, self.month = root / "files", root / "out", month
        for directory in (self.files, self.out):
            directory.mkdir(parents=True, exist_ok=True)
        self.facts: list[dict[str, Any]] = []
        self.history: list[dict[str, Any]] = []

    def put(self, name: str, content: str | bytes, encoding: str = "utf-8") -> "Folder":
        data = content if isinstance(content, bytes) else content.encode(encoding)
        (self.files / name).write_bytes(data)
        return self

    def times(self, *rows: str, header: str = TIMES, name: str = "timesheet.csv") -> "Folder":
        return self.put(name, "\n".join([header, *rows]) + "\n")

    def invoices(self, *rows: str, header: str = INVOICES, name: str = "invoices.csv") -> "Folder":
        return self.put(name, "\n".join([header, *rows]) + "\n")

    def compute(self) -> dict[str, Any]:
        listed = [
            {
                "name": path.name,
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                "size": path.stat().st_size,
            }
            for path in self.files.iterdir()
            if not path.name.startswith("history-")
        ]
        request = {
            "client": "acme",
            "month": self.month,
            "files": listed,
            "facts": self.facts,
            "history": self.history,
        }
        result = compute.run(json.loads(json.dumps(request)), self.files, self.out)
        crossed: dict[str, Any] = json.loads(json.dumps(result))  # as it comes to the next step
        return crossed

    def outputs(self) -> dict[str, Any]:
        outputs: dict[str, Any] = self.compute()["outputs"]
        return outputs

    def render(self, result: dict[str, Any] | None = None, **more: Any) -> dict[str, str]:
        """The documents by name."""
        defaults = {"client_name": "Acme", "narrative": "All went well.", "run_id": "run-1", "evidence": []}
        made = render.run({**(result or self.compute()), **defaults, **more}, self.files, self.out)
        return {name: (self.out / name).read_text(encoding="utf-8") for name in made["artifacts"]}


def places(outputs: dict[str, Any]) -> list[tuple[str, int, str]]:
    """File, line and code of each rejected row."""
    return [(row["file"], row["line"], row["code"]) for row in outputs["rejected_rows"]]


def reasons(outputs: dict[str, Any]) -> dict[int, str]:
    """Line to code, where there is one file."""
    return {row["line"]: row["code"] for row in outputs["rejected_rows"]}
