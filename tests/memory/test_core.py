"""The core against a model: random histories of writes and undos, two writers, as-of reads."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aios_core.encoding import encode
from aios_core.errors import TerminalError
from aios_core.labels import OWNER
from aios_core.values import Leaf
from aios_memory import core
from aios_memory.model import ABSENT, ANY, Authority, Change, Kind, Name, Provenance, Version, check_key

NAME = Name(Kind.FACT, "client/acme/column/timesheet/std")


def change(value: str | None, expect: int, authority: Authority = Authority.HEURISTIC) -> Change:
    return Change(
        name=NAME,
        value=None if value is None else encode(Leaf(value, OWNER)),
        expect=expect,
        authority=authority,
        confidence=500,
        schema="",
        labeled_key=encode(Leaf(NAME.key, OWNER)),
    )


@dataclass
class Log:
    """A record as the store keeps it: every version, by its number."""

    versions: list[Version] = field(default_factory=list)

    @property
    def newest(self) -> Version | None:
        return self.versions[-1] if self.versions else None

    def at(self, number: int) -> Version:
        return self.versions[number - 1]


def answered(asking: core.Asking, version: Callable[[int], Version]) -> int:
    """What a decision comes to that asks for versions."""
    try:
        number = next(asking)
        while True:
            number = asking.send(version(number))
    except StopIteration as decided:
        return decided.value


Writes = st.tuples(
    st.just("write"),
    st.one_of(st.none(), st.text(max_size=5)),
    st.sampled_from(["any", "absent", "newest", "stale"]),
    st.integers(-5, 50),
)
Undos = st.tuples(st.just("undo"), st.integers(0, 6), st.none(), st.integers(-5, 50))


@pytest.mark.feature("G9")
@pytest.mark.feature("G12")
@given(st.lists(st.one_of(Writes, Undos), max_size=25))
def test_every_version_stays_losers_conflict_and_reads_as_of_any_time_find_what_stood_then(steps) -> None:
    log, clock = Log(), 1_000
    content: list[str | None] = []  # the model: what each version says, None for a deletion
    standing: list[int] = []  # and which version's content that is, past undos
    for kind, argument, expectation, passed in steps:
        clock += passed  # the wall clock may go back
        before = list(log.versions)
        stands = bool(content) and content[-1] is not None
        if kind == "write":
            expect = {"any": ANY, "absent": ABSENT, "newest": len(content), "stale": len(content) + 7}[
                expectation
            ]
            allowed = (
                expect == ANY or (expect == ABSENT and not stands) or (expect > 0 and expect == len(content))
            ) and (argument is not None or stands)
            if not allowed:
                with pytest.raises(TerminalError) as caught:
                    core.decide_write(log.newest, change(argument, expect), Provenance(), clock)
                assert caught.value.code in ("CONFLICT", "NOT_FOUND")
                continue
            log.versions.append(core.decide_write(log.newest, change(argument, expect), Provenance(), clock))
            content.append(argument)
            standing.append(len(content))
        else:
            written = len(content) - argument
            if written < 1 or any(version.provenance.undoes == written for version in log.versions):
                continue
            newest = log.newest
            assert newest is not None
            stood = answered(core.standing(newest), log.at)
            assert stood == standing[-1]
            earlier = log.at(written - 1) if written > 1 else None
            if stood != written:
                with pytest.raises(TerminalError, match="changed since"):
                    core.decide_undo(newest, stood, written, earlier, Provenance(), clock)
                continue
            log.versions.append(core.decide_undo(newest, stood, written, earlier, Provenance(), clock))
            content.append(content[written - 2] if written > 1 else None)
            standing.append(standing[written - 2] if written > 1 else 0)
        assert log.versions[:-1] == before

    assert [version.version for version in log.versions] == list(range(1, len(content) + 1))
    assert [None if version.deleted else version.value for version in log.versions] == [
        None if text is None else encode(Leaf(text, OWNER)) for text in content
    ]
    times = [version.create_time_ms for version in log.versions]
    assert times == sorted(times)
    for moment in {0, *times, *(time - 1 for time in times), clock + 1000}:
        expected = max((number for number, time in enumerate(times, 1) if time <= moment), default=0)
        assert answered(core.version_as_of(len(times), moment), log.at) == expected


@given(st.integers(1, 5000), st.integers(0, 5000))
def test_an_as_of_read_asks_for_few_versions(newest: int, time_ms: int) -> None:
    asked: list[int] = []

    def created(number: int) -> Version:
        asked.append(number)
        return replace(core.decide_write(None, change("hours", ABSENT), Provenance(), number), version=number)

    assert answered(core.version_as_of(newest, time_ms), created) == min(newest, time_ms)
    assert len(asked) <= newest.bit_length() + 1


@pytest.mark.feature("G9")
def test_of_two_writers_that_read_the_same_version_the_second_is_refused_and_told_what_stands() -> None:
    first = core.decide_write(None, change("hours", ABSENT), Provenance(), 1)
    second = core.decide_write(first, change("rate", 1), Provenance(), 2)
    with pytest.raises(TerminalError) as caught:
        core.decide_write(second, change("days", 1), Provenance(), 3)
    assert caught.value.code == "CONFLICT"
    assert caught.value.details["found"] == "2"
    assert "version 1 was read, but version 2 stands" in caught.value.message


@pytest.mark.feature("G7")
def test_a_guess_does_not_replace_the_ground_truth() -> None:
    truth = core.decide_write(None, change("hours", ABSENT, Authority.AUTHORITATIVE), Provenance(), 1)
    with pytest.raises(TerminalError, match="authoritative"):
        core.decide_write(truth, change("days", 1, Authority.HEURISTIC), Provenance(), 2)
    assert core.decide_write(truth, change("days", 1, Authority.AUTHORITATIVE), Provenance(), 2).version == 2


def test_two_writes_of_a_run_are_taken_back_one_after_the_other() -> None:
    first = core.decide_write(None, change("a", ABSENT), Provenance(), 1)
    second = core.decide_write(first, change("b", 1), Provenance(), 2)
    third = core.decide_undo(second, 2, 2, first, Provenance(), 3)
    log = Log([first, second, third])
    assert answered(core.standing(third), log.at) == 1
    fourth = core.decide_undo(third, 1, 1, None, Provenance(), 4)
    assert fourth.deleted
    assert fourth.version == 4
    assert answered(core.standing(fourth), Log([first, second, third, fourth]).at) == 0


@pytest.mark.parametrize(
    "key", ["", "/", "a//b", "a/", "a\nb", "a\x00", "a\x85b", "a\u2028b", "x" * 321, "/".join("a" * 13)]
)
def test_a_key_that_would_be_ambiguous_is_refused(key: str) -> None:
    with pytest.raises(TerminalError) as caught:
        check_key(key, "key")
    assert caught.value.code == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    "key", ["a", "client/Müller & Söhne /column/Std. Anz.", "client/e\u0301clair", "a\u00a0b", "a@3"]
)
def test_a_key_may_be_what_a_person_would_write(key: str) -> None:
    assert check_key(key, "key") == key
