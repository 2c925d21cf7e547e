"""Runs of which only so many may be under way at once: who waits, who is let in, who is left out."""

from typing import Any

import pytest

from aios.run.v1 import state_pb2 as st
from aios.run.v1.state_pb2 import Concurrency, RunHead
from aios_core.encoding import encode
from aios_core.errors import TerminalError
from aios_core.labels import OWNER
from aios_core.values import labeled
from aios_orchestrator.core.decide import Admit, Cancel, Start, Tick
from aios_orchestrator.definition import compile_workflow
from aios_orchestrator.delivery import TaskKey
from aios_orchestrator.document import parse_documents
from aios_orchestrator.items import Answer
from aios_orchestrator.ownership import Ownership
from aios_orchestrator.repository import under_way_with
from aios_orchestrator.takeover import no_longer_out
from aios_orchestrator.turns import Line, Turns
from aios_runtime.store.port import Write
from tests.orchestrator.deciding import Deciding
from tests.orchestrator.runs import Driver, workflow

pytestmark = pytest.mark.feature("B1", "B2")

TWO = workflow('- {name: a, agent: echo, input: {n: "${inputs.n}"}}\n- {name: b, agent: echo}')


class Queued(Driver):
    """A run that begins by waiting for its turn."""

    def __init__(self, skip: bool = False) -> None:
        super().__init__(TWO)
        self.history, self.records = [], {}
        self.run = type(self.run)("main", "run_test", 7, TWO.name, TWO.version, self.run.mode)
        value = encode(TWO.check_input(labeled({"n": 1}, OWNER)))
        self.give(Start(value, "k", concurrency=Concurrency(limit=1, skip=skip), priority=7))


def test_a_queued_run_begins_when_its_turn_has_come_and_not_before() -> None:
    run = Queued()
    assert run.run.state == st.RUN_STATE_QUEUED and not run.last.dispatched and not run.run.closed
    run.give(Tick())
    assert run.run.state == st.RUN_STATE_QUEUED and not run.last.events
    run.give(Admit())
    assert run.run.state == st.RUN_STATE_RUNNING and run.last.dispatched == ("a",)
    run.give(Admit())
    run.give(Admit("too late to be left out"))
    assert not run.last.events
    run.settle("a")
    run.settle("b")
    assert run.run.state == st.RUN_STATE_SUCCEEDED and run.run.priority == 7


def test_a_run_is_left_out_with_the_reason_and_stays_so() -> None:
    run = Queued(skip=True)
    run.give(Admit("as many were under way as may be"))
    assert run.run.state == st.RUN_STATE_SKIPPED and run.run.closed and run.run.error is not None
    assert (run.run.error.code, run.run.error.message) == ("SKIPPED", "as many were under way as may be")
    run.give(Admit())
    assert not run.last.events
    refused = run.recover(st.RECOVERY_RETRY).refusal
    assert isinstance(refused, TerminalError) and "was skipped" in refused.message


def test_a_queued_run_is_cancelled_at_once_and_not_let_in_afterwards() -> None:
    run = Queued()
    run.give(Cancel("not wanted any more"))
    assert run.run.state == st.RUN_STATE_CANCELLED
    run.give(Admit())
    assert not run.last.events


@pytest.mark.parametrize(
    ("concurrency", "words"),
    [
        ("{policy: replace, limit: 2}", "one at a time"),
        ("{policy: skip, waiting: 2}", "nobody waits"),
        ("{policy: later}", "must be 'replace', 'queue' or 'skip'"),
        ("{policy: queue, limit: 0}", "from 1 to 1000"),
        ("{policy: queue, waiting: 5000}", "from 1 to 1000"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(concurrency: str, words: str) -> None:
    text = (
        "apiVersion: aios/v1\nkind: Workflow\nmetadata: {name: w}\nspec:\n"
        f"  concurrency: {concurrency}\n  steps: [{{name: a, agent: x}}]\n"
    )
    with pytest.raises(TerminalError, match=words):
        compile_workflow(parse_documents(text.encode(), "w.yaml")[0])


def test_a_task_that_another_replica_has_settled_keeps_no_place() -> None:
    run = Driver(workflow("- {name: a, agent: echo, needs: []}\n- {name: b, agent: echo, needs: []}"))
    run.settle("a")
    keys = [TaskKey("run_test", "a"), TaskKey("run_test", "b"), TaskKey("run_gone", "a")]
    assert no_longer_out(keys, [Answer(), Answer(run.run)]) == [keys[0], keys[2]]


async def _nobody(*_: object) -> None:
    """Lets nobody in."""


async def test_all_that_are_under_way_are_counted_however_many_there_are() -> None:
    here = Deciding()
    line = under_way_with("main", "w", "k")
    for at in range(0, 600, 100):
        heads = [RunHead(run_id=f"run_{number:03}", workspace="main") for number in range(at, at + 100)]
        await here.store.commit(
            [
                Write(f"main/run/{head.run_id}", 0, head.SerializeToString(), index={"concurrency": line})
                for head in heads
            ]
        )
    assert len(await here.repository.active_with_key("main", "w", "k")) == 600
    turns: Any = Turns(here.store, _nobody, Ownership(), "main")
    assert await turns._others(Line("w", "k"), [f"run_{number:03}" for number in range(100, 600)]) == 100
