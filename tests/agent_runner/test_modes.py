"""How a declared mode is carried out: with what chance a model is asked, and whose answers are given again."""

import json
from dataclasses import replace
from typing import Any

import pytest

from aios.memory.v1.memory_pb2 import GetCachedRequest, GetCachedResponse, PutCachedRequest
from aios.task.v1.task_pb2 import MODE_EXECUTE, Task, WorkMode
from aios_agent_runner.contract import Agent, Model, Spec, Temperatures, load_agents
from aios_agent_runner.models.port import ModelReply, ModelRequest
from aios_agent_runner.runner import Runner
from aios_agent_runner.working import working
from aios_core.encoding import encode
from aios_core.labels import OWNER
from aios_core.money import Micros
from aios_core.values import labeled
from tests.agent_runner.test_models import REQUEST, endpoint, model

W = WorkMode


def drafter(temperatures: Temperatures | None = None) -> Agent:
    said = Model(system="Be short.", prompt="Say {{ n }}.", offline="{{ n }}", temperatures=temperatures)
    return Agent("drafter", "1", Spec(runtime="model", model=said))


class Asked:
    """A model that answers with how often it was asked, and a bus with memory's kept answers behind it."""

    name = "asked"

    def __init__(self) -> None:
        self.requests: list[ModelRequest] = []
        self.kept: dict[bytes, bytes] = {}

    def other(self, model: str) -> "Asked":
        return self

    def bound(self, request: ModelRequest) -> Micros:
        return Micros(10)

    async def complete(self, request: ModelRequest) -> ModelReply:
        self.requests.append(request)
        return ModelReply(f"answer {len(self.requests)}", "m", 1, 1, Micros(10))

    async def ask(self, subject: str, data: bytes, wait_s: float) -> bytes:
        if "get_cached" in subject:
            found = self.kept.get(GetCachedRequest.FromString(data).key_sha256)
            return GetCachedResponse(found=found is not None, value=found or b"").SerializeToString()
        put = PutCachedRequest.FromString(data)
        self.kept[put.key_sha256] = put.value
        return b""


def runner(asked: Asked, agent: Agent) -> Runner:
    bus: Any = asked
    none: Any = None
    return Runner(agents={agent.name: agent}, trusted={}, pool=none, model=asked, artifacts=none, bus=bus)


def task(mode: WorkMode.ValueType, number: int = 1) -> Task:
    return Task(
        workspace="main",
        run_id="run_1",
        task_id=f"run_1/a/0/{number}",
        target="drafter",
        mode=MODE_EXECUTE,
        input=encode(labeled({"n": 1}, OWNER)),
        hold_micros=100,
        work_mode=mode,
        attempt=1,
    )


@pytest.mark.feature("C5")
async def test_the_mode_says_with_what_chance_a_model_is_asked_and_the_accounting_has_it() -> None:
    asked = Asked()
    work = runner(asked, drafter(Temperatures(creative=1.2)))
    for mode in (
        W.WORK_MODE_UNSPECIFIED,
        W.WORK_MODE_DETERMINISTIC,
        W.WORK_MODE_EXPLORATORY,
        W.WORK_MODE_CREATIVE,
    ):
        outcome = await work.perform(task(mode))
        assert outcome.usage.work_mode == mode
        assert outcome.usage.temperature_milli == round(asked.requests[-1].temperature * 1000)
        assert mode == W.WORK_MODE_UNSPECIFIED or " mode" in outcome.summary
    assert [request.temperature for request in asked.requests] == [0.0, 0.0, 0.4, 1.2]
    assert [request.seed is not None for request in asked.requests] == [False, True, False, False]


@pytest.mark.feature("C5")
@pytest.mark.parametrize(
    ("mode", "again"),
    [
        (W.WORK_MODE_UNSPECIFIED, "answer 1"),
        (W.WORK_MODE_DETERMINISTIC, "answer 1"),
        (W.WORK_MODE_EXPLORATORY, "answer 2"),
        (W.WORK_MODE_CREATIVE, "answer 2"),
    ],
)
async def test_only_what_is_to_be_the_same_is_given_again(mode: WorkMode.ValueType, again: str) -> None:
    asked = Asked()
    work = runner(asked, drafter())
    assert b"answer 1" in (await work.perform(task(mode))).output
    assert again.encode() in (await work.perform(task(mode, number=2))).output
    repeated = await work.perform(
        task(mode, number=2)
    )  # a task that comes again has its own answer, and is free
    assert again.encode() in repeated.output and repeated.cost_micros == 0


@pytest.mark.feature("C5")
async def test_an_endpoint_is_asked_with_the_temperature_and_the_seed() -> None:
    how = working(task(W.WORK_MODE_DETERMINISTIC), drafter(), b"x")
    with endpoint() as (url, seen):
        await model(url).complete(replace(REQUEST, temperature=0.9, seed=how.seed))
        await model(url).complete(REQUEST)
    first, second = (json.loads(json.dumps(each["body"])) for each in seen)
    assert (first["temperature"], first["seed"]) == (0.9, how.seed)
    assert second["temperature"] == 0.0 and "seed" not in second


@pytest.mark.feature("C5")
def test_agents_that_say_nothing_of_temperatures_keep_their_version() -> None:
    assert load_agents()["monthly-report-draft"].version == "48a7b0a383ee5b1b"
