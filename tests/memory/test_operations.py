"""What memory declares of its operations is what they take and give."""

import jsonschema
import pytest

from aios_core.encoding import decode
from aios_core.errors import RetryableError, TerminalError
from aios_core.json_values import to_json
from aios_core.labels import OWNER
from aios_core.values import labeled, plain
from aios_memory.operations import OPERATIONS
from aios_runtime.lanes import UnansweredError
from aios_runtime.store.port import Store
from tests.memory.serving import Memory, fact, make_task, write_task

GOOD = [
    fact("a", 1),
    fact(
        "b",
        {"x": [1, "2"]},
        0,
        authority="authoritative",
        confidence=1,
        schema="s/v1",
        sources=["run:x"],
        note="why",
    ),
    {"kind": "entity", "key": "client/acme", "expect": "any", "value": {"name": "Acme"}},
]
BAD = [
    {},
    {"writes": []},
    {"writes": [{"kind": "fact", "key": "a", "expect": 1}]},
    {"writes": [fact("a", 1, "now")]},
]


@pytest.mark.feature("E1")
async def test_what_steps_take_and_give_fits_the_declared_schemas(memory: Memory) -> None:
    write, read = OPERATIONS["memory.write"], OPERATIONS["memory.read"]
    jsonschema.validate({"writes": GOOD}, write.input)
    written = await memory.steps.perform(write_task(*GOOD))
    jsonschema.validate(to_json(plain(decode(written.output))), write.output)

    reads = [
        {"name": "one", "kind": "fact", "key": "b"},
        {"name": "none", "kind": "fact", "key": "c"},
        {"name": "some", "kind": "fact", "prefix": "", "limit": 5, "take": "last"},
    ]
    jsonschema.validate({"reads": reads}, read.input)
    jsonschema.validate(to_json(await memory.read(*reads)), read.output)


@pytest.mark.parametrize("value", BAD)
async def test_what_the_declared_schema_of_a_write_refuses_is_refused(memory: Memory, value: dict) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(value, OPERATIONS["memory.write"].input)
    with pytest.raises(TerminalError) as caught:
        await memory.steps.perform(make_task("memory.write", labeled(value, OWNER), run="r", step="s"))
    assert caught.value.code == "INVALID_ARGUMENT"


def test_the_operations_say_what_they_change() -> None:
    assert {operation.effect for operation in OPERATIONS.values()} == {"read", "reversible"}


@pytest.mark.feature("B3", "E2")
@pytest.mark.parametrize("undoing", [False, True], ids=["a write", "its undo"])
async def test_a_store_that_can_not_be_reached_is_no_answer_about_a_change(
    memory: Memory, store: Store, monkeypatch: pytest.MonkeyPatch, undoing: bool
) -> None:
    """An earlier dispatch may have written: "failed, nothing was done" would be a guess. It comes again."""

    async def unreachable(*_: object, **__: object) -> None:
        raise RetryableError("UNAVAILABLE", "The store can't be reached; nothing was applied.")

    done = await memory.write(fact("a", 1))
    with monkeypatch.context() as patched:
        for method in ("read", "record", "records", "commit"):
            patched.setattr(store, method, unreachable)
        with pytest.raises(UnansweredError):
            await (memory.undo(done) if undoing else memory.write(fact("a", 1)))
    again = await memory.write(fact("a", 1))
    assert (again.status, again.undo_token) == (done.status, done.undo_token)
    assert (await memory.read({"kind": "fact", "key": "a", "name": "a"}))["a"]["version"] == 1
