"""What a person made of a proposal is kept once, under the labels that it had, for later runs to read."""

import pytest

from aios.run.v1 import events_pb2 as run
from aios.run.v1.state_pb2 import Approval, ProposedStep
from aios_core.encoding import decode, encode
from aios_core.labels import OWNER, RESOURCE, outside
from aios_core.values import Leaf, Value, plain
from aios_memory.corrections import Corrections
from aios_memory.model import Kind, Name
from aios_memory.store import Records
from aios_memory.writing import Writing
from aios_runtime.store.port import Store
from tests.memory.serving import START_MS, WORKSPACE, Clock

pytestmark = pytest.mark.feature("I6")

KEY = "correction/mail/each[].send/2026-09-21T14:13:20.007Z-00000002"


def edited(
    before: Value,
    after: Value,
    *,
    note: str = "warmer",
    step: str = "each[3].send",
    approval: str = "apr_00000002",
) -> bytes:
    proposed = [
        ProposedStep(step="other", target="files.read"),
        ProposedStep(step=step, target="files.append_line", original=encode(before), arguments=encode(after)),
    ]
    return run.RunEvent(
        schema=1, semantics=1, workspace=WORKSPACE, run_id="run_7", sequence=9, time_ms=START_MS + 7,
        actor="person:owner",
        approval_edited=run.ApprovalEdited(
            step="each[3].ok", approval_id="apr_00000001",
            approval=Approval(approval_id=approval, workflow="mail", proposed=proposed),
            edited=step, input=encode(after), edited_by="person:owner", note=note,
        ),
    ).SerializeToString()  # fmt: skip


async def test_the_fields_that_differ_are_kept_with_who_said_what(store: Store, clock: Clock) -> None:
    agent = outside("agent:writer")
    before: Value = {"text": Leaf("Dear Ada", agent), "path": Leaf("out.jsonl", RESOURCE)}
    after: Value = {"text": Leaf("Hello Ada", OWNER), "path": Leaf("out.jsonl", RESOURCE)}
    records = Records(store, WORKSPACE)
    corrections = Corrections(Writing(store, records), clock)
    for _ in range(2):  # the event may come again
        await corrections.learn([edited(before, after)])
    newest = await records.newest(Name(Kind.FACT, KEY))
    assert newest is not None
    assert newest.version == 1
    assert newest.authority == "authoritative"
    assert newest.provenance.run_id == "run_7"
    assert newest.provenance.sources == ("approval:apr_00000002",)
    value = decode(newest.value)
    assert plain(value) == {
        "proposed": {"text": "Dear Ada"},
        "corrected": {"text": "Hello Ada"},
        "note": "warmer",
        "by": "person:owner",
        "target": "files.append_line",
    }
    assert isinstance(value, dict)
    corrected, proposed = value["corrected"], value["proposed"]
    assert isinstance(corrected, dict) and isinstance(proposed, dict)
    assert corrected["text"] == Leaf("Hello Ada", OWNER)
    assert proposed["text"] == Leaf("Dear Ada", agent)


async def test_of_what_is_too_large_the_names_are_kept_and_nothing_stops(store: Store, clock: Clock) -> None:
    records = Records(store, WORKSPACE)
    corrections = Corrections(Writing(store, records), clock)
    large: Value = {"text": Leaf("x" * 30_000, OWNER)}
    other = run.RunEvent(
        workspace=WORKSPACE, run_id="run_7", sequence=1, step_failed=run.StepFailed(step="\u0828 \u08aa")
    )
    await corrections.learn([edited({"text": Leaf("", RESOURCE)}, large), other.SerializeToString()])
    newest = await records.newest(Name(Kind.FACT, KEY))
    assert newest is not None
    value = plain(decode(newest.value))
    assert isinstance(value, dict)
    assert (value["corrected"], value["changed"]) == (None, ["text"])


async def test_a_name_that_is_no_key_is_passed_over(store: Store, clock: Clock) -> None:
    records = Records(store, WORKSPACE)
    corrections = Corrections(Writing(store, records), clock)
    far = ".".join(["each[0]"] * 60) + ".send"
    before, after = {"text": Leaf("a", OWNER)}, {"text": Leaf("b", OWNER)}
    await corrections.learn([edited(dict(before), dict(after), step=far), edited(dict(before), dict(after))])
    assert await records.newest(Name(Kind.FACT, KEY)) is not None
