"""Works on one agent task: check the contract, run the code or ask the model, and say what it cost."""

import json
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from aios.memory.v1.memory_pb2 import GetCachedRequest, GetCachedResponse, PutCachedRequest
from aios.task.v1.task_pb2 import STATUS_FAILED, STATUS_SUCCEEDED, Outcome, Task, Usage
from aios_agent_runner.batching import Batches, NotAnsweredError
from aios_agent_runner.contract import Agent
from aios_agent_runner.materialize import answer_of, media_type_of, output_of, request_of
from aios_agent_runner.models.port import ModelPort, ModelReply, ModelRequest
from aios_agent_runner.models.template import TemplateModel, fill, render
from aios_agent_runner.sandbox.model import SandboxCall
from aios_agent_runner.sandbox.pool import SandboxPool
from aios_agent_runner.working import Working, working
from aios_core.encoding import decode, decode_trusted, encode
from aios_core.errors import RetryableError, TerminalError
from aios_core.hashing import sha256
from aios_core.json_values import dumps, from_json, loads, to_json
from aios_core.labels import Label, Trust, meet
from aios_core.money import Micros, format_usd
from aios_core.values import Plain, Pointer, Value, label_of, labeled, plain
from aios_runtime.artifacts import MemoryArtifacts
from aios_runtime.bus import subjects
from aios_runtime.bus.patience import ask_patiently
from aios_runtime.bus.port import Bus
from aios_runtime.bus.replies import error_to_proto
from aios_runtime.telemetry.tracing import span

FALL_BACK_ATTEMPT: Final = 3  # from this attempt on, a model that can't answer is replaced by the template
ASK_S: Final = 5.0
Trusted = Callable[[Any], Any]


class Runner:
    """Performs tasks. It keeps nothing between two of them but those that are gathered for one call."""

    def __init__(
        self,
        *,
        agents: Mapping[str, Agent],
        trusted: Mapping[str, Trusted],
        pool: SandboxPool,
        model: ModelPort,
        artifacts: MemoryArtifacts,
        bus: Bus,
    ) -> None:
        self._agents = agents
        self._trusted = trusted
        self._pool = pool
        self._model = model
        self._template = TemplateModel()
        self._artifacts = artifacts
        self._bus = bus
        self._batches = Batches()

    def version_of(self, task: Task) -> str:
        """The version of the agent of a task, and of the model that it asks; empty where there is no such agent."""
        agent = self._agents.get(task.target)
        if agent is None:
            return ""
        return f"{agent.version}/{self._model.name}" if agent.spec.runtime == "model" else agent.version

    def check_input(self, target: str, data: bytes) -> None:
        """Raises NOT_FOUND or INVALID_ARGUMENT for what an agent would not take."""
        agent = self._agent(target)
        value = plain(decode(data))
        agent.check_input(request_of(value)[0] if agent.spec.runtime == "sandbox" else to_json(value))

    def _agent(self, target: str) -> Agent:
        agent = self._agents.get(target)
        if agent is None:
            known = ", ".join(sorted(self._agents))
            raise TerminalError(
                "NOT_FOUND", f"There is no agent {target!r}; there are: {known}.", field="agent"
            )
        return agent

    def perform_now(self, task: Task) -> Outcome | None:
        """Trusted code runs at once; None for all else."""
        agent = self._agents.get(task.target)
        if agent is None or agent.spec.runtime != "trusted":
            return None
        value = decode_trusted(task.input)
        request = to_json(plain(value))
        agent.check_input(request)
        response = self._trusted[agent.spec.entry](request)
        agent.check_output(response)
        return _succeeded(encode(_labeled(agent, value, response)))

    async def perform(self, task: Task) -> Outcome:
        """One task to its outcome. Raises what made it fail."""
        agent = self._agent(task.target)
        attributes = {"aios.run_id": task.run_id, "aios.step": task.step, "gen_ai.agent.name": agent.name}
        with span("invoke_agent {agent}", kind="consumer", parent=task.traceparent, attributes=attributes):
            if agent.spec.runtime == "trusted":
                done = self.perform_now(task)
                assert done is not None
                return done
            if agent.spec.runtime == "sandbox":
                return await self._sandboxed(task, agent)
            return await self._drafted(task, agent)

    async def _sandboxed(self, task: Task, agent: Agent) -> Outcome:
        value = decode_trusted(task.input)
        request, wanted = request_of(plain(value))
        agent.check_input(request)
        files = {name: await self._artifacts.get(pointer) for name, pointer in wanted.items()}
        call = SandboxCall(
            agent.spec.entry,
            json.dumps(request, separators=(",", ":"), ensure_ascii=False).encode(),
            files,
            agent.spec.resources.limits(),
        )
        with span("run sandbox", attributes={"gen_ai.agent.name": agent.name}):
            result = await self._pool.run(call)
        with result:
            answer = answer_of(agent.name, result.response)
            agent.check_output(to_json(answer))
            made: dict[str, Pointer] = {}
            for name, path in sorted(result.artifacts.items()):
                with path.open("rb") as file:
                    made[name] = await self._artifacts.put(file, media_type_of(name), name)
            output = output_of(agent.name, answer, made)
            outcome = _succeeded(encode(_labeled(agent, value, output)))
            outcome.usage.CopyFrom(
                Usage(
                    cpu_us=int(result.usage.cpu_seconds * 1e6),
                    wall_us=int(result.usage.wall_seconds * 1e6),
                    max_rss_bytes=result.usage.max_rss_bytes,
                )
            )
            outcome.summary = f"worked in a sandbox, {result.usage.cpu_seconds:.1f} s of CPU"
            return outcome

    async def _drafted(self, task: Task, agent: Agent) -> Outcome:
        assert agent.spec.model is not None
        started = time.monotonic()
        value = decode_trusted(task.input)
        data = to_json(plain(value))
        agent.check_input(data)
        prompt = fill(task.prompt, data) if task.prompt else render(agent.spec.model.prompt, data)
        how = working(task, agent, prompt.encode())
        request = ModelRequest(
            agent=agent.name,
            system=agent.spec.model.system,
            prompt=prompt,
            temperature=how.temperature,
            seed=how.seed,
            offline=agent.spec.model.offline,
            data=data,
            max_tokens=agent.spec.model.max_tokens,
            literal=bool(task.prompt),
        )
        model = self._model.other(task.model) if task.model else self._model
        bound = model.bound(request)
        if bound > task.hold_micros:
            raise TerminalError(
                "BUDGET_EXCEEDED",
                f"Agent {agent.name} may cost {format_usd(bound)} with {model.name}; its step holds "
                f"{format_usd(task.hold_micros)}. Raise the step's budget.",
            )
        try:
            reply, cached, note = await self._answer(task, agent, model, request, how)
        except NotAnsweredError as error:  # its share of the call is charged
            failed = Outcome(status=STATUS_FAILED, error=error_to_proto(error), cost_micros=error.reply.cost)
            failed.usage.CopyFrom(
                Usage(
                    input_tokens=error.reply.input_tokens,
                    output_tokens=error.reply.output_tokens,
                    model=error.reply.model,
                )
            )
            return failed
        output = {"text": reply.text, "model": reply.model}
        agent.check_output(output)
        outcome = _succeeded(encode(_labeled(agent, value, output)))
        outcome.cost_micros = 0 if cached else reply.cost
        outcome.usage.CopyFrom(
            Usage(
                wall_us=int((time.monotonic() - started) * 1e6),
                input_tokens=reply.input_tokens,
                output_tokens=reply.output_tokens,
                model=reply.model,
                cached=cached,
                work_mode=task.work_mode,
                temperature_milli=round(how.temperature * 1000),
            )
        )
        outcome.summary = note or (
            f"written by {reply.model} (reused, free)"
            if cached
            else f"written by {reply.model}, {format_usd(reply.cost)}"
        ) + (f", in {how.word} mode" if how.word else "")
        return outcome

    async def _answer(
        self, task: Task, agent: Agent, model: ModelPort, request: ModelRequest, how: Working
    ) -> tuple[ModelReply, bool, str]:
        """(the reply, whether it was cached, what the person should know about it)."""
        key = sha256(
            model.name.encode(),
            agent.version.encode(),
            request.system.encode(),
            request.prompt.encode(),
            *how.apart,
        )
        known = None if self._offline(model) else await self._cached(task, key)
        if known is not None:
            return known, True, ""
        attributes = {"gen_ai.operation.name": "chat", "gen_ai.request.model": model.name}
        if how.word:
            attributes |= {
                "aios.work_mode": how.word,
                "gen_ai.request.temperature": f"{how.temperature:g}",
            }
        try:
            with span("chat {model}", kind="client", attributes=attributes) as asking:
                reply = await self._ask(task, agent, model, request, how)
                asking.set("gen_ai.usage.input_tokens", reply.input_tokens)
                asking.set("gen_ai.usage.output_tokens", reply.output_tokens)
        except NotAnsweredError:
            raise
        except RetryableError as error:
            if task.attempt < FALL_BACK_ATTEMPT:
                raise
            fallback = await self._template.complete(request)
            return fallback, False, f"the model could not answer ({error.message}); the template was used"
        await self._keep(task, key, reply)
        return reply, False, ""

    async def _ask(
        self, task: Task, agent: Agent, model: ModelPort, request: ModelRequest, how: Working
    ) -> ModelReply:
        """Alone, or with like ones where the agent says so: what is asked again, for the same answer as before, or in a
        client's words is asked alone. Only what has the same label shares a call, so nothing gets another's."""
        batch = agent.spec.batch
        if batch is None or task.attempt > 1 or how.seed is not None or task.prompt or self._offline(model):
            return await model.complete(request)
        run = task.run_id if batch.across == "run" else ""
        label = label_of(decode_trusted(task.input))
        key = (task.workspace, run, agent.name, agent.version, model.name, how.word, how.temperature, label)
        return await self._batches.complete(key, batch, model, request)

    def _offline(self, model: ModelPort) -> bool:
        return model.name == self._template.name

    async def _cached(self, task: Task, key: bytes) -> ModelReply | None:
        request = GetCachedRequest(workspace=task.workspace, key_sha256=key)
        subject = subjects.query("memory", "get_cached", task.workspace)
        answer = await ask_patiently(self._bus, subject, request.SerializeToString(), ASK_S)
        found = GetCachedResponse.FromString(answer)
        if not found.found:
            return None
        data = loads(found.value)
        assert isinstance(data, dict)
        read, written = int(str(data["input_tokens"])), int(str(data["output_tokens"]))
        return ModelReply(
            str(data["text"]), str(data["model"]), read, written, Micros(int(str(data["cost"])))
        )

    async def _keep(self, task: Task, key: bytes, reply: ModelReply) -> None:
        if reply.model == self._template.name:
            return
        data: dict[str, Plain] = {
            "text": reply.text,
            "model": reply.model,
            "input_tokens": reply.input_tokens,
            "output_tokens": reply.output_tokens,
            "cost": int(reply.cost),
        }
        request = PutCachedRequest(workspace=task.workspace, key_sha256=key, value=dumps(data))
        subject = subjects.query("memory", "put_cached", task.workspace)
        await ask_patiently(self._bus, subject, request.SerializeToString(), ASK_S)


def _succeeded(output: bytes) -> Outcome:
    """What is specific to it; the lane adds whose it is."""
    return Outcome(status=STATUS_SUCCEEDED, output=output)


def _labeled(agent: Agent, value: Value, output: Any) -> Value:
    """What an agent says is no more trusted than what it was told; a model's words never steer."""
    label = meet((label_of(value), agent.label))
    if agent.spec.runtime == "model":
        label = Label(label.origins, Trust.UNTRUSTED, label.readers)
    return labeled(output if agent.spec.runtime == "sandbox" else from_json(output), label)
