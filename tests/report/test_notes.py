"""Only the section “For the client” leaves the notes."""

import pytest

from aios_agent_runner.agents.monthly_report.notes import client_section
from tests.report.months import Folder

SECRET = "they pay late"


def taken(text: str) -> list[tuple[str, str]]:
    return [(block.kind, block.text) for block in client_section(text)[0]]


def test_a_heading_opens_the_section_and_the_next_of_its_level_ends_it() -> None:
    section = "All *went* well.\nReally.\n\n### Next\n- one\n  more\n- two"
    text = f"# Notes\n{SECRET}\n## For the client\n\n{section}\n\n## Me\n{SECRET}"
    assert taken(text) == [
        ("paragraph", "All *went* well. Really."),
        ("heading", "Next"),
        ("item", "one more"),
        ("item", "two"),
    ]


@pytest.mark.parametrize(
    "heading",
    [
        "# For the client",
        "## FOR THE CLIENT:",
        "###### for  the client ##",
        "For the client\n===",
        "For the client\n---",
        "**For the client**",
        "For the client:",
        "# **For the client**",
    ],
)
@pytest.mark.parametrize("after", ["# Me\n\n", "Me\n==\n\n", "\n# Me\n"])
def test_every_way_of_writing_the_heading_is_understood(heading: str, after: str) -> None:
    assert taken(f"{SECRET}\n\n{heading}\n\nHello.\n{after}{SECRET}") == [("paragraph", "Hello.")]


@pytest.mark.parametrize(
    "text",
    [
        SECRET,
        f"# Not for the client\n{SECRET}",
        f"## For the client's file\n{SECRET}",
        f"```\n# For the client\n```\n{SECRET}",
        f"as I said\nFor the client\n{SECRET}",
        f"<!-- # For the client -->\n{SECRET}",
        f"## For the client\n\n<!-- {SECRET} -->\n\n<!-- {SECRET}",
        f"For the client:\n\n\n\nInternal:\n=========\n{SECRET}",
        f"## For the client\n# Me\n{SECRET}",
    ],
)
def test_nothing_else_is_taken(text: str) -> None:
    assert SECRET not in repr(taken(text))


@pytest.mark.parametrize("end", ["\n\n", "\nInternal:\n", "\n# Me\n", "\nMe only:\n"])
def test_plain_text_ends_the_section_early_rather_than_late(end: str) -> None:
    assert taken(f"For the client:\nHello.{end}{SECRET}") == [("paragraph", "Hello.")]


def test_notes_of_several_files_come_in_the_order_of_their_names(folder: Folder) -> None:
    folder.put("notes-b.txt", "For the client\nTwo.\n").put(
        "Notes-a.MD", f"# For the client\nOne.\n# Me\n{SECRET}"
    )
    result = folder.put("notes.md", SECRET).compute()
    assert [block["text"] for block in result["client_notes"]] == ["One.", "Two."]
    assert result["owner_notes"] == [
        {"file": "Notes-a.MD", "blocks_for_client": 1, "kept_back": True},
        {"file": "notes-b.txt", "blocks_for_client": 1, "kept_back": False},
        {"file": "notes.md", "blocks_for_client": 0, "kept_back": True},
    ]
    assert SECRET not in repr(result)


def test_notes_in_other_encodings_are_read(folder: Folder) -> None:
    folder.put("notes.md", "# For the client\nGrüße.\n".encode("utf-16"))
    assert folder.compute()["client_notes"][0]["text"] == "Grüße."


def test_notes_that_are_no_text_are_a_warning(folder: Folder) -> None:
    result = folder.put("notes.md", b"\x00\x01\x02").compute()
    assert [warning["code"] for warning in result["warnings"]] == ["UNREADABLE_NOTES"]


def test_a_very_long_section_is_cut_with_a_warning(folder: Folder) -> None:
    result = folder.put("notes.md", "# For the client\n" + ("x" * 15_000 + "\n\n") * 2).compute()
    assert len(result["client_notes"]) == 1
    assert [warning["code"] for warning in result["warnings"]] == ["NOTES_TOO_LONG"]
