"""Answers that are kept and given again: what they are kept under, and who may give them."""

from pathlib import Path

import pytest

from aios.run.v1.state_pb2 import Fork, Recovery, RunState, StepChange
from aios.task.v1.task_pb2 import MODE_EXECUTE, CachedAnswer, CacheOrigin, Task
from aios_core.encoding import decode, encode
from aios_core.errors import TerminalError
from aios_core.labels import OWNER, Trust, outside
from aios_core.values import label_of, labeled
from aios_orchestrator.codec import task_of
from aios_orchestrator.core.advance import advance
from aios_orchestrator.core.decide import Settle, decide
from aios_orchestrator.core.draft import Draft
from aios_orchestrator.kept_answers import KeptAnswers
from aios_runtime.kept import kept_answer
from aios_runtime.store.sqlite import open_store
from tests.orchestrator.runs import Driver, workflow

STEP = "- {name: a, agent: x, cache: 1h, input: {n: '${inputs.n}'}}"
KEYED = "- {name: a, agent: x, cache: {ttl: 1h, key: '${inputs.n % 2}'}, input: {n: '${inputs.n}'}}"


def key(steps: str, n: int = 1, name: str = "w", **change: str) -> bytes:
    of = workflow(steps, name=name)
    driver = Driver(of, n=n)
    if change:
        draft = Draft(driver.run, of, 1, "person:owner")
        draft.run.steps = draft.run.steps.delete("a")
        draft.run.live = draft.run.live.delete("a")
        draft.run.fork = Fork(changes=[StepChange(step="a", **change)])
        draft.may_start(["a"])
        advance(draft)
        return draft.run.at("a").cache_key
    return driver.run.at("a").cache_key


@pytest.mark.feature("D2")
def test_the_same_question_has_the_same_key_whoever_asks() -> None:
    assert key(STEP) == key(STEP, name="other") and len(key(STEP)) == 32
    assert key(STEP) != key(STEP, n=2)
    assert key(STEP) != key(STEP.replace("agent: x", "agent: y"))
    assert len({key(STEP), key(STEP, agent="z"), key(STEP, model="m"), key(STEP, prompt="p")}) == 4
    assert key(KEYED) == key(KEYED, n=3) != key(KEYED, n=2)
    assert key(KEYED) != key(KEYED, name="other")  # what the words of a key mean is its workflow's own
    assert key("- {name: a, agent: x, input: {n: 1}}") == b""


@pytest.mark.feature("D2")
def test_a_person_who_goes_back_has_it_done_anew() -> None:
    run = Driver(workflow(STEP + "\n- {name: b, agent: x}"))
    run.settle("a")
    run.fail("b")
    run.recover(Recovery.RECOVERY_REWIND, "a")
    assert run.run.at("a").cache_key == b"" and not task_of(run.run, run.workflow, "a", None, "").cacheable


@pytest.mark.feature("D2")
def test_an_answer_that_is_given_again_costs_nothing_and_says_where_it_is_from() -> None:
    run = Driver(workflow("- {name: a, agent: x, budget: '0.10', cache: 1h, input: {n: '${inputs.n}'}}"))
    origin = CacheOrigin(run_id="run_before", step="a", time_ms=7)
    stranger = encode(labeled({"n": 5}, outside("mail")))
    outcome = run.outcome("a", output=stranger, target_version="1")
    outcome.cached.CopyFrom(origin)
    run.give(Settle(outcome))
    step = run.run.at("a")
    assert step.cached == origin and (step.cost, run.run.held, run.run.settled) == (0, 0, 0)
    assert run.run.state == RunState.RUN_STATE_SUCCEEDED
    assert label_of(decode(step.output)).trust == Trust.UNTRUSTED  # as it was computed from
    asked = Driver(workflow("- {name: a, agent: x, cache: {ttl: 1h, key: k}, input: {n: '${inputs.n}'}}"))
    asked.run.step("a").input = stranger
    outcome = asked.outcome("a", output=encode(labeled({"n": 5}, OWNER)), target_version="1")
    outcome.cached.CopyFrom(origin)
    # It depends on what is asked now as well.
    decided = decide(asked.run, asked.workflow, Settle(outcome), 5, "service:x").run
    assert label_of(decode(decided.at("a").output)).trust == Trust.UNTRUSTED


@pytest.mark.feature("D2")
def test_a_worker_gives_again_what_its_own_version_has_given() -> None:
    answer = CachedAnswer(output=b"x", target_version="1", origin=CacheOrigin(run_id="run_before"))
    task = Task(target="x", mode=MODE_EXECUTE, cacheable=True, cached=answer)
    kept = kept_answer(task, lambda _: "1")
    assert kept is not None and (kept.output, kept.cost_micros, kept.usage.cached) == (b"x", 0, True)
    assert kept_answer(task, lambda _: "2") is None
    assert kept_answer(task, lambda _: "") is None and kept_answer(task, None) is None
    assert kept_answer(Task(target="x"), lambda _: "1") is None


@pytest.mark.feature("D2")
async def test_what_is_kept_ends_and_is_bounded(tmp_path: Path) -> None:
    store = await open_store(tmp_path / "o.db", service="orchestrator", now_ms=lambda: 0)
    answers = KeptAnswers(store, "main", max_entries=2)
    keys = []
    for n in range(3):
        run = Driver(workflow(STEP), n=n)
        keys.append(run.run.at("a").cache_key)
        run.now = 2_000
        run.settle("a", target_version="1")
        await answers.keep(run.run, run.workflow, run.last.ended)
    assert await answers.find(keys[0], 3_000) is None  # the oldest makes room
    found = await answers.find(keys[2], 3_000)
    assert found is not None and found.origin == CacheOrigin(run_id="run_test", step="a", time_ms=2_000)
    assert await answers.find(keys[2], 2_000 + 3_600_000) is None
    assert await KeptAnswers(store, "other").find(keys[2], 3_000) is None
    again = Driver(workflow(STEP), n=2)
    outcome = again.outcome("a", target_version="1")
    outcome.cached.CopyFrom(found.origin)
    again.now = 9_000
    again.give(Settle(outcome))
    await answers.keep(again.run, again.workflow, again.last.ended)
    assert (await answers.find(keys[2], 3_000)).origin.time_ms == 2_000  # type: ignore[union-attr]
    await store.close()


@pytest.mark.feature("D2")
@pytest.mark.parametrize(
    ("step", "field", "words"),
    [
        ("{name: a, connector: f.w, effect: write, cache: 1h}", "cache", "changes something"),
        ("{name: a, memory: write, cache: 1h}", "cache", "changes something"),
        ("{name: a, transform: 1, cache: 1h}", "cache", "has no cache"),
        ("{name: a, agent: x, cache: {key: 1}}", "cache.ttl", "is missing"),
    ],
)
def test_a_cache_is_for_what_changes_nothing(step: str, field: str, words: str) -> None:
    with pytest.raises(TerminalError, match=r"w\.yaml:") as caught:
        workflow(f"- {step}")
    assert caught.value.details["field"].endswith(field) and words in caught.value.message
