"""How the agent-runner is put together."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict

from aios.task.v1.task_pb2 import CheckInputRequest, CheckInputResponse
from aios_agent_runner.contract import load_agents
from aios_agent_runner.models.openai import OpenAIModel
from aios_agent_runner.models.port import ModelPort
from aios_agent_runner.models.template import TemplateModel
from aios_agent_runner.runner import Runner, Trusted
from aios_agent_runner.sandbox.model import SandboxSettings
from aios_agent_runner.sandbox.pool import SandboxPool
from aios_runtime.artifacts import MemoryArtifacts
from aios_runtime.bus import subjects
from aios_runtime.lanes import LaneWorker
from aios_runtime.service.port import Context, Health, Service

SERVICE: Final = "agent-runner"
SLOTS: Final = 1024  # tasks taken at once; the sandbox has a bound of its own
BATCH: Final = 64  # messages of tasks in one fetch


class Options(BaseModel):
    """`pool`: sandboxed calls at once. Without `model_url` the offline template provider writes."""

    model_config = ConfigDict(protected_namespaces=())

    pool: int = 2
    model_url: str = ""
    model_name: str = ""
    model_key_file: Path | None = None
    model_input_price: str = ""
    model_output_price: str = ""


def _model(options: Options) -> ModelPort:
    if not options.model_url:
        return TemplateModel()
    return OpenAIModel(
        base_url=options.model_url,
        model=options.model_name,
        key_file=options.model_key_file,
        input_price=options.model_input_price,
        output_price=options.model_output_price,
    )


def echo(request: object) -> object:
    """The smallest trusted agent: it answers with its request."""
    return request


TRUSTED: Final[dict[str, Trusted]] = {"echo": echo}


class AgentRunner:
    """The service."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._options = Options.model_validate(dict(context.options))
        self._agents = load_agents()
        self._model = _model(self._options)
        entries = frozenset(
            agent.spec.entry for agent in self._agents.values() if agent.spec.runtime == "sandbox"
        )
        private = (context.data_dir,) if context.data_dir.exists() else ()
        self._pool = SandboxPool(
            SandboxSettings(agents=entries, concurrency=self._options.pool, private=private)
        )
        self._worker: LaneWorker | None = None

    async def start(self) -> None:
        context = self._context
        await self._pool.start()
        runner = Runner(
            agents=self._agents,
            trusted=TRUSTED,
            pool=self._pool,
            model=self._model,
            artifacts=MemoryArtifacts(context.bus, context.workspace, context.mint),
            bus=context.bus,
        )
        self._worker = LaneWorker(
            context.bus,
            service=SERVICE,
            workspace=context.workspace,
            lane=subjects.LANE_AGENT,
            perform=runner.perform,
            perform_now=runner.perform_now,
            slots=SLOTS,
            batch=BATCH,
            worker=context.instance,
            version_of=runner.version_of,
        )

        async def check(data: bytes, headers: Mapping[str, str]) -> bytes:
            request = CheckInputRequest.FromString(data)
            runner.check_input(request.target, request.input)
            return CheckInputResponse().SerializeToString()

        subject = subjects.query(SERVICE, "check_input", context.workspace)
        await context.bus.answer(subject, check, queue=subjects.consumer(SERVICE, "check_input"))
        await self._worker.start()

    async def stop(self) -> None:
        if self._worker is not None:
            await self._worker.stop()
        await self._pool.close()

    def health(self) -> Health:
        if self._worker is None:
            return Health(False, "starting")
        facts = {
            item.name: f"{'in force' if item.in_force else 'NOT in force'}: {item.why}"
            for item in self._pool.capabilities()
        }
        return Health(True, facts={"model": self._model.name, **facts})


def create(context: Context) -> Service:
    """The agent-runner, not yet started."""
    return AgentRunner(context)
