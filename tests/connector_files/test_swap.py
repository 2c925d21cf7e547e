"""A file changes from one version to another in one step, whatever dies and whoever writes in between."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aios_connector_files import renames
from aios_connector_files.swap import Changed, FileSwap, Swap, version_of
from aios_core.errors import RetryableError, TerminalError
from aios_core.hashing import content_hash

OLD, NEW, EDIT, LATER = b"the old text\n", b"the new text\n", b"a person's edit\n", b"a later edit\n"
NAME = "report.md"
KEY = "run_0/write/0/0"
MAX_STEPS = 24
DIED = 7

Versions = tuple[bytes | None, bytes | None]
SHAPES: dict[str, Versions] = {"create": (None, NEW), "replace": (OLD, NEW), "remove": (OLD, None)}


@pytest.fixture(params=["exchange", "no exchange", "no renameat2 at all"])
def file_system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "no exchange":
        monkeypatch.setattr(renames, "exchange", lambda *_: False)
    elif request.param == "no renameat2 at all":
        monkeypatch.setattr(renames, "_renameat2", None)
    return str(request.param)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def name_of(content: bytes | None) -> str | None:
    return None if content is None else content_hash(content)


def put(tmp_path: Path, content: bytes) -> None:
    """A person saves, as editors do: in one step."""
    fresh = tmp_path / ".editor"
    fresh.write_bytes(content)
    fresh.replace(tmp_path / NAME)


def begin_anew(tmp_path: Path, old: bytes | None) -> None:
    """A folder with the file at its old version, and nothing else."""
    for left in tmp_path.iterdir():
        left.unlink()
    if old is not None:
        put(tmp_path, old)


def swap_of(folder: int, versions: Versions) -> FileSwap:
    return FileSwap(folder, NAME, KEY, name_of(versions[0]), name_of(versions[1]))


def carry_out(folder: int, versions: Versions) -> Swap | Changed:
    swap = swap_of(folder, versions)
    if versions[1] is not None:
        swap.stage([versions[1]])
    return swap.commit()


def contents(tmp_path: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in tmp_path.iterdir()}


class Interruption:
    """Counts the calls that change the folder, and does something before the n-th."""

    CALLS = ("rename", "unlink", "link", "fsync", "replace", "utime")

    def __init__(self, at: int, then: Callable[[], None]) -> None:
        self.left, self.then = at, then

    def passing(self) -> None:
        self.left -= 1
        if self.left == 0:
            self.then()

    def install(self, patch: Callable[[object, str, object], None]) -> None:
        for name in self.CALLS:
            patch(os, name, self._wrapped(getattr(os, name)))
        if renames._renameat2 is not None:
            patch(renames, "_renameat2", self._wrapped(renames._renameat2))

    def _wrapped(self, call: Callable[..., object]) -> Callable[..., object]:
        def passing(*arguments: object, **named: object) -> object:
            self.passing()
            return call(*arguments, **named)

        return passing


def dies_in_a_child(folder: int, versions: Versions, at: int, edit: Callable[[], None] | None) -> bool:
    """Carry the swap out in a child that is gone before its `at`-th change; `edit` happens just before it is gone."""
    child = os.fork()
    if child == 0:

        def end() -> None:
            if edit is not None:
                edit()
            os._exit(DIED)

        Interruption(at, end).install(setattr)
        carry_out(folder, versions)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == DIED


@pytest.mark.parametrize("shape", SHAPES)
def test_a_swap_leaves_the_new_version_and_nothing_else(
    tmp_path: Path, folder: int, file_system: str, shape: str
) -> None:
    old, new = SHAPES[shape]
    if old is not None:
        put(tmp_path, old)
    assert carry_out(folder, (old, new)) is Swap.DONE
    assert contents(tmp_path) == ({} if new is None else {NAME: new})
    assert swap_of(folder, (old, new)).recover() is Swap.DONE


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.feature("D6")
def test_an_edit_since_the_version_that_was_seen_stays_untouched(
    tmp_path: Path, folder: int, file_system: str, shape: str
) -> None:
    put(tmp_path, EDIT)
    judged = carry_out(folder, SHAPES[shape])
    assert isinstance(judged, Changed)
    assert judged.found == content_hash(EDIT)
    assert contents(tmp_path) == {NAME: EDIT}


@pytest.mark.parametrize("shape", ["replace", "remove"])
def test_a_file_that_went_away_is_not_made_again(
    tmp_path: Path, folder: int, file_system: str, shape: str
) -> None:
    gone = Swap.DONE if shape == "remove" else Changed(None)
    assert carry_out(folder, SHAPES[shape]) == gone
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.feature("H10")
def test_dead_at_any_step_it_is_done_or_not_done_and_recovery_says_which(
    tmp_path: Path, folder: int, file_system: str, shape: str
) -> None:
    old, new = SHAPES[shape]
    for at in range(1, MAX_STEPS):
        begin_anew(tmp_path, old)
        if not dies_in_a_child(folder, (old, new), at, None):
            assert at > 2, "the swap was interrupted at least twice"
            return
        judged = swap_of(folder, (old, new)).recover()
        stands = new if judged is Swap.DONE else old
        assert judged in (Swap.DONE, Swap.NOT_DONE), at
        assert contents(tmp_path) == ({} if stands is None else {NAME: stands}), at
        if judged is Swap.NOT_DONE:
            assert carry_out(folder, (old, new)) is Swap.DONE
    pytest.fail("the swap takes more steps than the test has")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "after", [False, True], ids=["the edit comes before it dies", "and another one after"]
)
@pytest.mark.feature("D6")
def test_an_edit_at_any_step_of_a_swap_that_dies_is_never_lost(
    tmp_path: Path, folder: int, file_system: str, shape: str, after: bool
) -> None:
    """It stands in its place or beside it, under a name that a person sees."""
    old, new = SHAPES[shape]
    for at in range(1, MAX_STEPS):
        begin_anew(tmp_path, old)
        if not dies_in_a_child(folder, (old, new), at, lambda: put(tmp_path, EDIT)):
            return
        if after:
            put(tmp_path, LATER)
        swap_of(folder, (old, new)).recover()
        found = contents(tmp_path)
        assert not [name for name in found if name.startswith(".aios-")], at
        # A later save through the same name replaces the earlier one, as it does without us.
        assert (LATER if after else EDIT) in found.values(), (at, found)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.feature("D6")
def test_an_edit_at_any_step_of_a_swap_that_lives_is_never_lost(
    tmp_path: Path, folder: int, file_system: str, shape: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = SHAPES[shape]
    for at in range(1, MAX_STEPS):
        begin_anew(tmp_path, old)
        with monkeypatch.context() as patched:
            happened: list[bool] = []

            def edit(happened: list[bool] = happened) -> None:
                happened.append(True)
                put(tmp_path, EDIT)

            Interruption(at, edit).install(patched.setattr)
            judged = carry_out(folder, (old, new))
        if not happened:
            return
        found = contents(tmp_path)
        assert EDIT in found.values(), (at, judged, found)
        assert not [name for name in found if name.startswith(".aios-")], at
        if isinstance(judged, Changed):
            assert NEW not in found.values(), "what could not take its place is not left lying about"


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("stays", [False, True], ids=["the other dies after its look", "the other goes on"])
@pytest.mark.feature("D3", "H10")
def test_another_worker_that_comes_in_at_any_step_of_a_swap_does_no_harm(
    tmp_path: Path, folder: int, file_system: str, shape: str, stays: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks as after a crash, although the first one lives, and carries the swap out where it finds nothing."""
    old, new = SHAPES[shape]
    for at in range(1, MAX_STEPS):
        begin_anew(tmp_path, old)
        others: list[Swap | Changed | None] = []

        def come_in(others: list[Swap | Changed | None] = others) -> None:
            others.append(attempted(lambda: swap_of(folder, SHAPES[shape]).recover()))
            if stays and others[0] is Swap.NOT_DONE:
                others.append(attempted(lambda: carry_out(folder, SHAPES[shape])))

        with monkeypatch.context() as patched:
            Interruption(at, come_in).install(patched.setattr)
            judged = attempted(lambda: carry_out(folder, (old, new)))
        if not others:
            return
        done = Swap.DONE in (judged, *others)
        stands = new if done else old
        assert contents(tmp_path) == ({} if stands is None else {NAME: stands}), (at, judged, others)
        assert done or not stays, "one of the two has carried it out"
    pytest.fail("the swap takes more steps than the test has")


def attempted(work: Callable[[], Swap | Changed]) -> Swap | Changed | None:
    """None: it gave way to another one, and may be tried again."""
    try:
        return work()
    except RetryableError:
        return None


def test_an_edit_that_lost_its_place_is_kept_under_a_name_that_a_person_sees(
    tmp_path: Path, folder: int
) -> None:
    put(tmp_path, OLD)
    assert dies_in_a_child(folder, (OLD, NEW), 4, None), "after the exchange"
    (left,) = [name for name in contents(tmp_path) if name.startswith(".aios-")]
    (tmp_path / left).write_bytes(EDIT)  # what came out was an edit of the last moment
    put(tmp_path, LATER)
    judged = swap_of(folder, (OLD, NEW)).recover()
    assert isinstance(judged, Changed)
    assert judged.kept.startswith("report.kept-")
    assert contents(tmp_path) == {NAME: LATER, judged.kept: EDIT}


def test_bytes_that_are_not_those_of_the_hash_are_never_put_anywhere(tmp_path: Path, folder: int) -> None:
    with pytest.raises(TerminalError, match="not those of their hash"):
        swap_of(folder, (None, NEW)).stage([OLD])
    assert contents(tmp_path) == {}


def test_a_full_disk_leaves_nothing_half_written(
    tmp_path: Path, folder: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    put(tmp_path, OLD)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        swap_of(folder, (OLD, NEW)).stage([NEW])
    assert contents(tmp_path) == {NAME: OLD}


def test_a_link_in_the_place_of_the_file_is_put_back(tmp_path: Path, folder: int, file_system: str) -> None:
    outside = tmp_path.parent / "outside.md"
    outside.write_bytes(OLD)
    (tmp_path / NAME).symlink_to(outside)
    assert version_of(folder, NAME) == "link"
    assert isinstance(carry_out(folder, (OLD, NEW)), Changed)
    assert (tmp_path / NAME).is_symlink()
    assert outside.read_bytes() == OLD
