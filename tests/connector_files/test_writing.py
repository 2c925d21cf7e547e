"""files.write_file and files.append_line, beyond what the suite of every connector proves."""

import json
import os
import stat
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from aios.task.v1.task_pb2 import STATUS_CONFLICT, STATUS_FAILED, STATUS_SUCCEEDED
from aios_connector_files.swap import FileSwap
from aios_core.errors import RetryableError
from aios_core.hashing import content_hash
from aios_core.values import Plain, Pointer
from aios_sdk.conformance import pointer_to
from tests.connector_files.acting import Desk

INDEX = "acme/2026-10/report/index.jsonl"


def lines(desk: Desk) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (desk.root / INDEX).read_text().splitlines()]


async def test_undo_puts_back_the_earlier_bytes_rights_and_time(desk: Desk) -> None:
    notes = desk.root / "acme" / "notes.md"
    notes.write_bytes(b"earlier")
    notes.chmod(0o640)
    os.utime(notes, ns=(0, 1_600_000_000_000_000_000))
    done = await desk.write("acme/notes.md", b"later")
    assert stat.S_IMODE(notes.stat().st_mode) == 0o640
    assert (await desk.undo(done)).summary == "put the earlier acme/notes.md back"
    assert notes.read_bytes() == b"earlier"
    assert (stat.S_IMODE(notes.stat().st_mode), notes.stat().st_mtime_ns) == (
        0o640,
        1_600_000_000_000_000_000,
    )


@pytest.mark.feature("D6")
async def test_a_chain_of_writes_is_taken_back_in_reverse_order(desk: Desk) -> None:
    before = desk.tree()
    done = [await desk.write("acme/2026-10/report/report.md", text) for text in (b"one", b"two", b"three")]
    done.append(await desk.do("append_line", {"path": INDEX, "entry": {"n": 1}}))
    for outcome in reversed(done):
        assert (await desk.undo(outcome)).status == STATUS_SUCCEEDED
    assert desk.tree() == before


async def test_a_later_write_of_another_run_is_a_conflict(desk: Desk) -> None:
    first = await desk.write("acme/notes.md", b"first")
    await desk.write("acme/notes.md", b"second")
    outcome = await desk.undo(first)
    assert outcome.status == STATUS_CONFLICT
    assert outcome.error.message == "acme/notes.md was edited since; it was left as it is."
    (change,) = outcome.changes
    assert (change.before, change.after) == (content_hash(b"first"), content_hash(b"second"))


async def test_after_a_conflict_the_person_can_make_room_and_undo_again(desk: Desk) -> None:
    done = await desk.write("acme/notes.md", b"ours")
    (desk.root / "acme" / "notes.md").write_bytes(b"ours, edited")
    assert (await desk.undo(done)).status == STATUS_CONFLICT
    (desk.root / "acme" / "notes.md").write_bytes(b"ours")
    assert (await desk.undo(done, dispatch=2)).status == STATUS_SUCCEEDED
    assert not (desk.root / "acme" / "notes.md").exists()


async def test_a_file_that_the_person_removed_is_taken_back_already(desk: Desk) -> None:
    done = await desk.write("acme/2026-10/report/report.md", b"ours")
    (desk.root / "acme/2026-10/report/report.md").unlink()
    assert (await desk.undo(done)).status == STATUS_SUCCEEDED
    assert desk.tree() == {"acme/2026-10/": b""}


async def test_a_replaced_file_that_is_gone_is_a_conflict(desk: Desk) -> None:
    (desk.root / "acme" / "notes.md").write_bytes(b"earlier")
    done = await desk.write("acme/notes.md", b"ours")
    (desk.root / "acme" / "notes.md").unlink()
    outcome = await desk.undo(done)
    assert outcome.status == STATUS_CONFLICT
    assert outcome.error.message == "acme/notes.md was removed or moved since; it was left as it is."


async def test_a_month_that_was_moved_away_since_is_a_conflict_or_undone(desk: Desk, tmp_path: Path) -> None:
    (desk.root / "acme" / "letters").mkdir()
    (desk.root / "acme" / "letters" / "a.md").write_bytes(b"earlier")
    replaced = await desk.write("acme/letters/a.md", b"ours")
    made = await desk.write("acme/letters/b.md", b"ours")
    (desk.root / "acme" / "letters").rename(tmp_path / "moved")
    assert (await desk.undo(made)).status == STATUS_SUCCEEDED
    assert (await desk.undo(replaced)).status == STATUS_CONFLICT


async def test_a_person_who_put_the_earlier_bytes_back_leaves_nothing_to_do(desk: Desk) -> None:
    (desk.root / "acme" / "notes.md").write_bytes(b"earlier")
    done = await desk.write("acme/notes.md", b"ours")
    (desk.root / "acme" / "notes.md").write_bytes(b"earlier")
    assert (await desk.undo(done)).status == STATUS_SUCCEEDED


async def test_writing_what_stands_there_changes_nothing(desk: Desk) -> None:
    notes = desk.root / "acme" / "notes.md"
    notes.write_bytes(b"same")
    inode = notes.stat().st_ino
    done = await desk.write("acme/notes.md", b"same")
    assert (done.status, list(done.changes)) == (STATUS_SUCCEEDED, [])
    assert (await desk.undo(done)).status == STATUS_SUCCEEDED
    assert (notes.read_bytes(), notes.stat().st_ino) == (b"same", inode)


@pytest.mark.parametrize(
    ("stands", "expect", "fine"),
    [
        (b"old", "any", True),
        (None, "any", True),
        (b"old", "absent", False),
        (None, "absent", True),
        (b"old", content_hash(b"old"), True),
        (b"other", content_hash(b"old"), False),
        (None, content_hash(b"old"), False),
    ],
)
async def test_a_write_names_the_version_that_it_replaces(
    desk: Desk, stands: bytes | None, expect: str, fine: bool
) -> None:
    notes = desk.root / "acme" / "notes.md"
    if stands is not None:
        notes.write_bytes(stands)
    outcome = await desk.write("acme/notes.md", b"new", expect=expect)
    if fine:
        assert outcome.status == STATUS_SUCCEEDED
    else:
        assert (outcome.status, outcome.error.code) == (STATUS_FAILED, "CONFLICT")
        assert (notes.read_bytes() if notes.exists() else None) == stands


async def test_an_edit_between_capture_and_write_is_a_conflict_and_stays(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = desk.root / "acme" / "notes.md"
    notes.write_bytes(b"earlier")
    stage = FileSwap.stage

    def edited_meanwhile(*arguments: object, **named: object) -> None:
        stage(*arguments, **named)  # type: ignore[arg-type]
        notes.write_bytes(b"a person's edit")

    monkeypatch.setattr(FileSwap, "stage", edited_meanwhile)
    outcome = await desk.write("acme/notes.md", b"ours")
    assert (outcome.status, outcome.error.code) == (STATUS_FAILED, "CONFLICT")
    assert desk.tree() == {"acme/2026-10/": b"", "acme/notes.md": b"a person's edit"}


async def test_a_file_of_many_pieces_arrives_whole(desk: Desk) -> None:
    content = os.urandom(3 * 1024 * 1024 + 17)
    assert (await desk.write("acme/big.bin", content)).status == STATUS_SUCCEEDED
    assert (desk.root / "acme" / "big.bin").read_bytes() == content


async def test_an_artifact_that_is_not_there_is_told_before_anything_is_touched(desk: Desk) -> None:
    outcome = await desk.do(
        "write_file", {"path": "acme/2026-10/report/x.md", "content": pointer_to(b"nowhere")}
    )
    assert (outcome.status, outcome.error.code) == (STATUS_FAILED, "NOT_FOUND")
    assert desk.tree() == {"acme/2026-10/": b""}


@pytest.mark.feature("D6", "B1")
async def test_folders_of_an_attempt_that_broke_off_belong_to_the_one_that_came_through(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It dies with its folder made; the repeat can't get the content; the next attempt writes it."""
    before = desk.tree()
    input = {"path": "acme/2026-10/report/report.md", "content": await desk.artifacts.put(b"text")}
    with monkeypatch.context() as patched:
        patched.setattr(FileSwap, "commit", _dies)
        with pytest.raises(_Died):
            await desk.do("write_file", input, key="run_1/write/0/0")
    assert desk.tree() != before
    with monkeypatch.context() as patched:
        patched.setattr(desk.artifacts, "stream", _away)
        failed = await desk.do("write_file", input, key="run_1/write/0/0", dispatch=2)
    assert (failed.status, failed.error.code) == (STATUS_FAILED, "UNAVAILABLE")
    assert desk.tree() == before
    done = await desk.do("write_file", input, key="run_1/write/0/0", dispatch=3)
    assert done.status == STATUS_SUCCEEDED
    assert (await desk.undo(done)).status == STATUS_SUCCEEDED
    assert desk.tree() == before


@pytest.mark.feature("D6")
@pytest.mark.parametrize("action", ["write_file", "append_line"])
async def test_a_folder_that_another_change_takes_along_while_it_is_empty_is_made_again(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    before, stage, went = desk.tree(), FileSwap.stage, []

    def gone_meanwhile(*arguments: object, **named: object) -> None:
        if len(went) < 2:
            went.append((desk.root / INDEX).parent.rmdir())
        stage(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(FileSwap, "stage", gone_meanwhile)
    what = {"entry": {"n": 1}} if action == "append_line" else {"content": await desk.artifacts.put(b"text")}
    done = await desk.do(action, {"path": INDEX, **what})
    assert (done.status, len(went)) == (STATUS_SUCCEEDED, 2)
    after = desk.tree()
    assert (await desk.undo(done)).status == STATUS_SUCCEEDED
    assert desk.tree() == before
    went.clear()
    assert ((await desk.redo(done)).status, len(went)) == (STATUS_SUCCEEDED, 2)
    assert desk.tree() == after


class _Died(BaseException):
    """In the place of SIGKILL."""


def _dies(_swap: FileSwap) -> None:
    raise _Died


async def _away(_pointer: Pointer) -> AsyncIterator[bytes]:
    raise RetryableError("UNAVAILABLE", "Nobody answers.")
    yield b""


async def test_an_undo_removes_its_own_line_though_others_came_after(desk: Desk) -> None:
    first = await desk.do("append_line", {"path": INDEX, "entry": {"n": 1}})
    await desk.do("append_line", {"path": INDEX, "entry": {"n": 2}})
    assert (await desk.undo(first)).status == STATUS_SUCCEEDED
    assert [line["n"] for line in lines(desk)] == [2]


async def test_a_line_that_was_edited_is_a_conflict(desk: Desk) -> None:
    done = await desk.do("append_line", {"path": INDEX, "entry": {"n": 1}})
    await desk.do("append_line", {"path": INDEX, "entry": {"n": 2}})
    index = desk.root / INDEX
    index.write_text(index.read_text().replace('"n":1', '"n":10'))
    edited = index.read_bytes()
    assert (await desk.undo(done)).status == STATUS_CONFLICT
    assert index.read_bytes() == edited


async def test_a_line_that_is_gone_is_taken_back_already(desk: Desk) -> None:
    done = await desk.do("append_line", {"path": INDEX, "entry": {"n": 1}})
    (desk.root / INDEX).write_text("")
    assert (await desk.undo(done)).summary == f"the line is not in {INDEX} any more"


async def test_a_last_line_without_an_end_is_not_glued_to_the_next(desk: Desk) -> None:
    (desk.root / "acme" / "log.jsonl").write_bytes(b'{"by":"hand"}')
    done = await desk.do("append_line", {"path": "acme/log.jsonl", "entry": {"n": 1}})
    kept = (desk.root / "acme" / "log.jsonl").read_bytes().splitlines()
    assert kept[0] == b'{"by":"hand"}'
    assert json.loads(kept[1])["n"] == 1
    await desk.undo(done)
    assert (desk.root / "acme" / "log.jsonl").read_bytes() == b'{"by":"hand"}\n'


async def test_an_entry_can_not_pose_as_another_effect(desk: Desk) -> None:
    outcome = await desk.do("append_line", {"path": INDEX, "entry": {"effect": "run_9/x/0/0"}})
    assert (outcome.status, outcome.error.code) == (STATUS_FAILED, "INVALID_ARGUMENT")


async def test_an_entry_of_many_kinds_is_one_line_of_json(desk: Desk) -> None:
    entry: Plain = {"total": Decimal("12.50"), "note": "two\nlines", "list": [1, {"a": None}]}
    assert (await desk.do("append_line", {"path": INDEX, "entry": entry})).status == STATUS_SUCCEEDED
    (line,) = lines(desk)
    assert (line["total"], line["note"]) == ("12.5", "two\nlines")
