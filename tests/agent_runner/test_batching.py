"""Like tasks share one call of the model: what each is given, what it costs, and who may share at all."""

import asyncio
import json
import re
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aios.task.v1.task_pb2 import MODE_EXECUTE, STATUS_FAILED, STATUS_SUCCEEDED, Outcome, Task, WorkMode
from aios_agent_runner.batching import answers, divided, joined
from aios_agent_runner.contract import Agent, Batch, Model, Spec, load_agents
from aios_agent_runner.models.port import ModelReply, ModelRequest
from aios_core.encoding import decode, encode
from aios_core.errors import RetryableError
from aios_core.labels import OWNER, Label, Trust
from aios_core.money import Micros
from aios_core.values import labeled, plain
from tests.agent_runner.test_models import REQUEST, model
from tests.agent_runner.test_modes import Asked, runner

pytestmark = pytest.mark.feature("B5")

NEVER = "9999ms"  # a batch that is full does not wait for it
TASK = re.compile(r"--- Task (\d+) ---\nSay (\d+)\.")


class Many(Asked):
    """Answers each task of a call with its number in capitals, but not those it is told to leave out."""

    def __init__(self, silent: Sequence[str] = (), broken: bool = False, bound: int = 50) -> None:
        super().__init__()
        self.silent, self.broken, self._bound = silent, broken, bound

    def bound(self, request: ModelRequest) -> Micros:
        return Micros(self._bound if "--- Task" not in request.prompt else 60)

    async def complete(self, request: ModelRequest) -> ModelReply:
        self.requests.append(request)
        tasks = TASK.findall(request.prompt)
        if not tasks:
            return ModelReply(f"alone {request.prompt}", "m", 5, 3, Micros(11))
        if self.broken:
            raise RetryableError("MODEL_FAILED", "It does not want to.")
        said = [{"task": int(at), "text": f"said {n}"} for at, n in tasks if n not in self.silent]
        return ModelReply(json.dumps(said), "m", 101, 50, Micros(47))


def agent(**batch: object) -> Agent:
    said = Model(system="Be short.", prompt="Say {{ n }}.", offline="{{ n }}")
    spec = Spec(runtime="model", model=said, batch=Batch.model_validate(batch) if batch else None)
    return Agent("drafter", "1", spec)


def task(n: int, run: str = "run_1", label: Label = OWNER, **fields: object) -> Task:
    made = Task(
        workspace="main",
        run_id=run,
        task_id=f"{run}/a/0/{n}",
        target="drafter",
        mode=MODE_EXECUTE,
        input=encode(labeled({"n": n}, label)),
        hold_micros=100,
        attempt=1,
    )
    made.MergeFrom(Task(**fields))  # type: ignore[arg-type]
    return made


async def performed(asked: Many, of: Agent, tasks: Sequence[Task]) -> list[Outcome]:
    work = runner(asked, of)
    return list(await asyncio.gather(*map(work.perform, tasks)))


def text(outcome: Outcome) -> object:
    output = plain(decode(outcome.output))
    assert isinstance(output, dict)
    return output["text"]


async def test_like_tasks_share_a_call_and_each_has_its_own_answer_and_share() -> None:
    asked = Many()
    done = await performed(asked, agent(max=3, wait=NEVER), [task(n) for n in (7, 8, 9)])
    assert len(asked.requests) == 1
    assert [text(outcome) for outcome in done] == ["said 7", "said 8", "said 9"]
    assert sum(outcome.cost_micros for outcome in done) == 47
    assert sum(outcome.usage.input_tokens for outcome in done) == 101
    assert sum(outcome.usage.output_tokens for outcome in done) == 50


async def test_without_a_batch_in_its_contract_each_task_is_asked_alone() -> None:
    asked = Many()
    await performed(asked, agent(), [task(n) for n in (7, 8)])
    assert len(asked.requests) == 2


async def test_one_without_an_answer_fails_alone_and_what_was_charged_is_accounted() -> None:
    asked = Many(silent=["8"])
    done = await performed(asked, agent(max=3, wait=NEVER), [task(n) for n in (7, 8, 9)])
    assert [outcome.status for outcome in done] == [STATUS_SUCCEEDED, STATUS_FAILED, STATUS_SUCCEEDED]
    assert done[1].error.code == "MODEL_FAILED" and done[1].error.retryable
    assert sum(outcome.cost_micros for outcome in done) == 47 and done[1].cost_micros > 0


async def test_a_call_that_is_refused_as_a_whole_is_made_for_each_alone() -> None:
    asked = Many(broken=True)
    done = await performed(asked, agent(max=2, wait=NEVER), [task(n) for n in (7, 8)])
    assert [text(outcome) for outcome in done] == ["alone Say 7.", "alone Say 8."]
    assert [outcome.cost_micros for outcome in done] == [11, 11]


async def test_a_call_that_may_cost_more_than_its_tasks_hold_is_not_made() -> None:
    asked = Many(bound=29)
    await performed(asked, agent(max=2, wait=NEVER), [task(n) for n in (7, 8)])
    assert len(asked.requests) == 2 and "--- Task" not in asked.requests[0].prompt


async def test_of_a_real_endpoint_two_of_an_agent_that_ships_cost_no_more_together() -> None:
    (drafts, *_) = [each for each in load_agents().values() if each.spec.model is not None]
    assert drafts.spec.model is not None
    each = replace(REQUEST, system=drafts.spec.model.system)
    asked = model("http://127.0.0.1:9/v1")
    assert 0 < asked.bound(joined([each, each])) <= 2 * asked.bound(each)


OTHER = Label(("connector:mail",), Trust.UNTRUSTED, ("person:ann",))


@pytest.mark.parametrize(
    "second",
    [
        task(8, run="run_2"),
        task(8, label=OTHER),
        task(8, work_mode=WorkMode.WORK_MODE_CREATIVE),
        task(8, work_mode=WorkMode.WORK_MODE_DETERMINISTIC),
        task(8, prompt="Sing {{n}}."),
        task(8, attempt=2),
    ],
    ids=["run", "label", "mode", "same answer", "prompt", "again"],
)
async def test_what_is_not_like_does_not_share(second: Task) -> None:
    asked = Many()
    await performed(asked, agent(max=2, wait="1ms"), [task(7), second])
    assert len(asked.requests) == 2
    assert all("--- Task" not in request.prompt for request in asked.requests)


async def test_what_is_to_have_the_same_answer_again_is_asked_alone() -> None:
    asked = Many()
    same = WorkMode.WORK_MODE_DETERMINISTIC
    await performed(asked, agent(max=2, wait=NEVER), [task(n, work_mode=same) for n in (7, 8)])
    assert len(asked.requests) == 2 and all(request.seed is not None for request in asked.requests)


async def test_runs_share_where_the_agent_declares_it_but_never_across_labels() -> None:
    asked = Many()
    await performed(asked, agent(max=2, wait=NEVER, across="workspace"), [task(7), task(8, run="run_2")])
    assert len(asked.requests) == 1
    asked = Many()
    of = agent(max=2, wait="1ms", across="workspace")
    await performed(asked, of, [task(7), task(8, run="run_2", label=OTHER)])
    assert len(asked.requests) == 2


async def test_one_that_is_not_wanted_any_more_does_not_keep_back_the_others() -> None:
    asked = Many()
    work = runner(asked, agent(max=3, wait=NEVER))
    gone = asyncio.create_task(work.perform(task(6)))
    while not work._batches._open:
        await asyncio.sleep(0)
    gone.cancel()
    done = await asyncio.gather(*(work.perform(task(n)) for n in (7, 8)))
    assert [text(outcome) for outcome in done] == ["said 7", "said 8"]
    assert sum(outcome.cost_micros for outcome in done) == 47


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=32), st.integers(0, 1_000_000))
def test_what_is_divided_adds_up_and_is_never_above_what_was_held(weights: list[int], total: int) -> None:
    parts = divided(total, weights)
    assert sum(parts) == total and min(parts) >= 0
    if total <= sum(weights):
        assert all(part <= weight for part, weight in zip(parts, weights, strict=True))


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ('[{"task": 2, "text": "b"}, {"task": 1, "text": "a"}]', ["a", "b"]),
        ('```json\n[{"task": 1, "text": "a"}]\n```', ["a", None]),
        ('[{"task": 1, "text": "a"}, {"task": 1, "text": "b"}, {"task": 9, "text": "c"}]', [None, None]),
        ('[{"task": 1, "text": 5}, 7, {"task": true, "text": "x"}]', [None, None]),
        ("I can't.", [None, None]),
        ("{}", [None, None]),
    ],
)
def test_only_a_plain_answer_to_a_task_is_one(said: str, found: list[str | None]) -> None:
    assert answers(said, 2) == found
