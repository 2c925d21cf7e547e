"""The files connector passes the suite that every connector inherits."""

from collections.abc import Sequence
from pathlib import Path

from aios_connector_files.blobs import Blobs
from aios_connector_files.connector import files_connector
from aios_connector_files.root import Root
from aios_core.values import Plain
from aios_sdk.conformance import ConnectorConformance, Example, FolderArtifacts, pointer_to
from aios_sdk.connector import Connector

REPORT = b"# October\n\n12.5 hours\n"
INDEX = "acme/2026-10/report/index.jsonl"


def tree(root: Path) -> str:
    """Every file below a folder with its content, and every folder, by name."""
    lines = []
    for path in sorted(root.rglob("*")):
        content = "" if path.is_dir() else path.read_bytes().hex()
        lines.append(f"{path.relative_to(root)} {'folder' if path.is_dir() else content}")
    return "\n".join(lines)


class TestFilesConnector(ConnectorConformance):
    name = "files"
    crash_points = ("files.staged", "files.decided")

    def examples(self) -> Sequence[Example]:
        content = pointer_to(REPORT, "text/markdown", "report.md")
        wrong: tuple[Plain, ...] = (
            {"path": "../out.md", "content": content},
            {"path": "acme/x.md"},
            {"path": 7, "content": content},
        )
        return [
            Example(
                "new", "write_file", {"path": "acme/2026-10/report/report.md", "content": content}, wrong
            ),
            Example("replaced", "write_file", {"path": "acme/notes.md", "content": content}, wrong),
            Example(
                "first line", "append_line", {"path": INDEX, "entry": {"total": "12.5"}}, ({"path": INDEX},)
            ),
            Example("next line", "append_line", {"path": "acme/log.jsonl", "entry": {"total": "12.5"}}),
        ]

    async def prepare(self, directory: Path, artifacts: FolderArtifacts) -> None:
        month = directory / "root" / "acme" / "2026-10"
        month.mkdir(parents=True)
        (month / "timesheet.csv").write_text("date,project,hours\n")
        (month.parent / "notes.md").write_text("earlier notes\n")
        (month.parent / "log.jsonl").write_text('{"total":"3"}\n')
        await artifacts.put(REPORT)

    def connector(self, directory: Path) -> Connector:
        return files_connector(Root(directory / "root"), Blobs(directory / "own"))

    def observe(self, directory: Path) -> str:
        return tree(directory / "root")

    def disturb(self, directory: Path, example: Example) -> None:
        assert isinstance(example.input, dict)
        file = directory / "root" / str(example.input["path"])
        file.write_bytes(file.read_bytes().replace(b"12.5", b"13.5"))

    def disturb_undone(self, directory: Path, example: Example) -> None:
        assert isinstance(example.input, dict)
        file = directory / "root" / str(example.input["path"])
        if example.name == "next line":
            file.unlink()
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("mine\n")
