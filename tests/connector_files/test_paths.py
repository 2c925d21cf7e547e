"""No path leaves the root, however it is written."""

import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aios_connector_files.actions.target import Target
from aios_connector_files.paths import (
    check_client,
    check_month,
    check_path,
    check_writable,
    is_client,
    is_transient,
)
from aios_connector_files.root import Root
from aios_core.errors import TerminalError

PARTS = st.one_of(
    st.sampled_from(["..", ".", "", "a", "acme", "2026-10", "report", "\0", "..\\..", "…", " ", "C:"]),
    st.text(max_size=8),
)


@given(path=st.lists(PARTS, max_size=10).map("/".join))
def test_a_path_is_refused_or_stays_below_the_root(path: str) -> None:
    parts: tuple[str, ...] = ()
    with contextlib.suppress(TerminalError):
        parts = check_path(path)
    if not parts:
        return
    root = Path("/the/root")
    assert os.path.normpath(root.joinpath(*parts)) == str(root.joinpath(*parts))
    assert root in root.joinpath(*parts).parents


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("../etc/passwd", "PATH_OUTSIDE_ROOT"),
        ("acme/../../x", "PATH_OUTSIDE_ROOT"),
        ("/etc/passwd", "PATH_OUTSIDE_ROOT"),
        ("C:/x", "PATH_OUTSIDE_ROOT"),
        ("acme//x", "INVALID_ARGUMENT"),
        ("acme/./x", "INVALID_ARGUMENT"),
        ("acme/", "INVALID_ARGUMENT"),
        ("", "INVALID_ARGUMENT"),
        ("acme/a\nb", "INVALID_ARGUMENT"),
        ("acme/a\0b", "INVALID_ARGUMENT"),
        ("acme/\u202ecod.exe", "INVALID_ARGUMENT"),
        ("acme/.aios-x.new", "INVALID_ARGUMENT"),
        ("acme/" + "x" * 300, "INVALID_ARGUMENT"),
        ("a/" * 9 + "x", "INVALID_ARGUMENT"),
    ],
)
def test_a_path_that_can_not_be_is_refused_with_the_reason(path: str, code: str) -> None:
    with pytest.raises(TerminalError) as caught:
        check_path(path)
    assert caught.value.code == code
    assert caught.value.details["field"] == "path"


@pytest.mark.parametrize("path", ["acme/2026-10/timesheet.csv", "acme/2026-10/report", "acme/2026-10/x/y.md"])
def test_among_a_clients_own_files_nothing_is_written(path: str) -> None:
    with pytest.raises(TerminalError, match="the client's own files"):
        check_writable(check_path(path))


@pytest.mark.parametrize(
    "path", ["acme/2026-10/report/report.md", "acme/notes.md", "index.jsonl", "letters/q4/2026-10.md"]
)
def test_elsewhere_writing_is_allowed(path: str) -> None:
    check_writable(check_path(path))


@pytest.mark.parametrize("name", ["../x", "", "a/b", ".hidden", "~$lock", "x" * 400, "Latin\udce9"])
def test_a_client_is_a_plain_folder_name(name: str) -> None:
    assert not is_client(name)
    with pytest.raises(TerminalError):
        check_client(name)


def test_clients_may_have_the_names_that_people_have() -> None:
    assert all(is_client(name) for name in ("acme", "Müller & Söhne GmbH", "日本商事", "O'Neill (US)"))


@pytest.mark.parametrize("month", ["2026-13", "2026-1", "26-10", "2026-10 ", "2026/10", "٢٠٢٦-10"])
def test_a_month_is_year_and_month(month: str) -> None:
    with pytest.raises(TerminalError):
        check_month(month)


@pytest.mark.parametrize(
    "name", [".~lock.x.csv#", "~$x.xlsx", "x.csv~", "x.tmp", "x.part", "x.crdownload", "Thumbs.db"]
)
def test_what_other_programs_leave_lying_is_transient(name: str) -> None:
    assert is_transient(name)
    assert not is_transient("time sheet.csv")


@pytest.mark.parametrize("where", ["client", "month", "file"])
def test_a_link_below_the_root_is_not_followed(tmp_path: Path, where: str) -> None:
    outside, root = tmp_path / "outside", tmp_path / "root"
    (outside / "2026-10" / "report").mkdir(parents=True)
    (outside / "2026-10" / "report" / "x.md").write_text("not ours")
    root.mkdir()
    if where == "client":
        (root / "acme").symlink_to(outside)
    elif where == "month":
        (root / "acme").mkdir()
        (root / "acme" / "2026-10").symlink_to(outside / "2026-10")
    else:
        (root / "acme" / "2026-10" / "report").mkdir(parents=True)
        (root / "acme" / "2026-10" / "report" / "x.md").symlink_to(outside / "2026-10" / "report" / "x.md")
    with pytest.raises(TerminalError, match="link"):
        Target(Root(root), ("acme", "2026-10", "report", "x.md")).see()


def test_the_root_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real" / "acme").mkdir(parents=True)
    (tmp_path / "root").symlink_to(tmp_path / "real")
    assert Target(Root(tmp_path / "root"), ("acme", "x.md")).see().before == ""
