"""Values, labels and their one canonical encoding."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aios.value.v1 import value_pb2
from aios_core.encoding import decode, decode_trusted, encode
from aios_core.errors import AiosError, TerminalError
from aios_core.ids import PARTITIONS, SLOTS, derive, partition_of, run_id, slot_of
from aios_core.json_values import dumps, loads
from aios_core.labels import MAX_ORIGINS, Label, Trust, meet
from aios_core.money import format_usd, usd
from aios_core.values import INT64_MAX, INT64_MIN, Leaf, Pointer, Value, label_of, labeled, plain, relabeled

EARLY, LATE = datetime(1900, 1, 1), datetime(2200, 1, 1)  # noqa: DTZ001 - the strategy adds the zone
ORIGINS = st.lists(
    st.sampled_from(["person:owner", "connector:files", "agent:x"]), min_size=1, max_size=3, unique=True
)
LABELS = st.builds(
    Label,
    ORIGINS.map(lambda names: tuple(sorted(names))),
    st.sampled_from(list(Trust)),
    st.none() | st.lists(st.sampled_from(["a", "b"]), unique=True).map(lambda names: tuple(sorted(names))),
)
DECIMALS = st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**20), max_value=10**20, places=6)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(INT64_MIN, INT64_MAX)
    | st.text(max_size=20)
    | st.binary(max_size=20)
    | DECIMALS
    | st.datetimes(timezones=st.just(UTC), min_value=EARLY, max_value=LATE)
    | st.builds(
        Pointer,
        st.binary(min_size=32, max_size=32).map(bytes.hex),
        st.integers(0, 2**40),
        st.text(max_size=8),
        st.text(max_size=8),
    )
)
LEAVES = st.builds(Leaf, SCALARS | st.just([]) | st.just({}), LABELS)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, min_size=1, max_size=4)
        | st.dictionaries(st.text(max_size=6), inner, min_size=1, max_size=4)
    ),
    max_leaves=12,
)


@pytest.mark.feature("G7")
@given(VALUES)
def test_a_value_and_its_labels_come_back_from_their_bytes(value: Value) -> None:
    data = encode(value)
    assert encode(decode(data)) == data
    assert plain(decode_trusted(data)) == plain(value)
    assert label_of(decode(data)) == label_of(value)


@given(VALUES)
def test_the_bytes_are_protobuf_that_any_language_reads(value: Value) -> None:
    data = encode(value)
    message = value_pb2.Value.FromString(data)
    assert message.SerializeToString(deterministic=True) == data


@given(st.binary(max_size=60))
def test_bytes_that_encode_would_not_have_written_are_refused(data: bytes) -> None:
    try:
        value = decode(data)
    except TerminalError as error:
        refused = error.code
    else:
        refused = "" if encode(value) == data else "accepted"
    assert refused in ("", "UNDECODABLE", "TOO_LARGE", "TOO_DEEP", "INVALID_ARGUMENT")


@given(VALUES, st.data())
def test_one_changed_byte_is_another_value_or_none(value: Value, data: st.DataObject) -> None:
    good = bytearray(encode(value))
    at = data.draw(st.integers(0, len(good) - 1))
    good[at] ^= 1 << data.draw(st.integers(0, 7))
    try:
        other = decode(bytes(good))
    except AiosError:
        return
    assert encode(other) == bytes(good) != encode(value)


def test_equal_numbers_have_equal_bytes_however_they_were_written() -> None:
    label = Label(("x",), Trust.OWNER)
    assert encode(Leaf(Decimal("1.50"), label)) == encode(Leaf(Decimal("1.5"), label))
    assert encode(Leaf(Decimal("-0.0"), label)) == encode(Leaf(Decimal("0"), label))
    assert encode(labeled({"b": 1, "a": 2}, label)) == encode(labeled({"a": 2, "b": 1}, label))


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (1.5, "INVALID_ARGUMENT"),
        (2**63, "INVALID_ARGUMENT"),
        (Decimal("NaN"), "INVALID_ARGUMENT"),
        (datetime(2026, 1, 1), "INVALID_ARGUMENT"),  # noqa: DTZ001 - the missing zone is the point
        ({1: 2}, "INVALID_ARGUMENT"),
    ],
)
def test_what_has_no_exact_meaning_is_refused(data: object, code: str) -> None:
    with pytest.raises(TerminalError) as caught:
        labeled(data, Label(("x",), Trust.OWNER))  # type: ignore[arg-type]
    assert caught.value.code == code


def test_depth_and_size_are_bounded() -> None:
    label = Label(("x",), Trust.OWNER)
    deep: object = 1
    for _ in range(40):
        deep = [deep]
    with pytest.raises(TerminalError, match="nested"):
        labeled(deep, label)  # type: ignore[arg-type]
    with pytest.raises(TerminalError, match="artifact"):
        encode(Leaf("x" * 300_000, label))
    with pytest.raises(TerminalError, match="JSON"):
        loads("[" * 100_000)


@given(LABELS, LABELS)
def test_nothing_becomes_more_trusted_or_more_widely_read_by_being_combined(one: Label, two: Label) -> None:
    both = meet((one, two))
    assert both.trust <= min(one.trust, two.trust)
    assert both == meet((two, one)) and meet((both, one)) == both
    for label in (one, two):
        assert set(label.origins) <= set(both.origins)
        if label.readers is not None:
            assert both.readers is not None and set(both.readers) <= set(label.readers)
    assert label_of(relabeled(Leaf(1, one), two)) == both


def test_origins_of_a_label_are_bounded() -> None:
    many = meet(Label((f"o{number:03}",), Trust.OWNER) for number in range(100))
    assert len(many.origins) == MAX_ORIGINS


@given(st.text(min_size=1, max_size=30), st.text(min_size=1, max_size=30))
def test_a_run_id_is_derived_and_has_its_place(trigger: str, request: str) -> None:
    run = run_id("main", trigger, request)
    assert run == run_id("main", trigger, request) != run_id("other", trigger, request)
    assert 0 <= slot_of(run) < SLOTS and 0 <= partition_of(slot_of(run)) < PARTITIONS
    assert derive("x", "ab", "c") != derive("x", "a", "bc")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(),
        lambda i: st.lists(i) | st.dictionaries(st.text(), i),
        max_leaves=8,
    )
)
def test_json_comes_back(data: object) -> None:
    if isinstance(data, dict) and ("$artifact" in data or set(data) == {"$bytes"}):
        return
    text = dumps(data)  # type: ignore[arg-type]
    if b'"$artifact"' not in text and b'"$bytes"' not in text:
        assert loads(text) == data


SHA = "ab" * 32


@pytest.mark.parametrize(
    "text",
    [
        '{"$artifact": "zz", "size": 1}',
        '{"$artifact": "ab", "size": 1}',
        f'{{"$artifact": "{SHA.upper()}", "size": 1}}',
        f'{{"$artifact": "{SHA}", "size": -1}}',
        f'{{"$artifact": "{SHA}", "size": 9223372036854775808}}',
        f'{{"$artifact": "{SHA}", "size": {{}}}}',
        '{"$artifact": ["x"]}',
    ],
)
def test_a_pointer_to_nothing_that_could_be_stored_is_refused(text: str) -> None:
    """Some were a defect where they were written down, and some were written down so that they could not be read."""
    with pytest.raises(TerminalError, match=r"\$artifact|size") as caught:
        loads(text)
    assert caught.value.code == "INVALID_ARGUMENT"


@pytest.mark.parametrize("pointer", [Pointer("zz", 1), Pointer(SHA, -1), Pointer(SHA, 2**63)])
def test_such_a_pointer_is_not_written_down_either(pointer: Pointer) -> None:
    with pytest.raises(TerminalError, match="pointer"):
        encode(labeled({"file": pointer}, Label(("x",), Trust.OWNER)))


def test_money_is_exact_and_never_rounded_down() -> None:
    assert usd("0.25") == 250_000 and usd("0.0000001") == 1
    assert format_usd(250_000) == "$0.25" and format_usd(0) == "$0.00" and format_usd(1234) == "$0.001234"
    for wrong in ("-1", "NaN", "x", "1e99"):
        with pytest.raises(TerminalError):
            usd(wrong)
