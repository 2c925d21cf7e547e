"""What an agent is: a small unit under contract. The documents that declare agents are data beside this package."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from aios_agent_runner.sandbox.model import MIB, Limits
from aios_core.errors import TerminalError
from aios_core.hashing import content_hash
from aios_core.labels import Label, Trust
from aios_runtime.schemas import Schema

PLAYBOOKS: Final = Path(__file__).parent / "playbooks"


class Resources(BaseModel):
    """What one call may use; seconds and mebibytes."""

    model_config = ConfigDict(extra="forbid")

    cpu_seconds: float = 30
    wall_seconds: float = 60
    memory_mib: int = 1024
    files_mib: int = 64
    processes: int = 1

    def limits(self) -> Limits:
        """As the sandbox takes them."""
        return Limits(
            cpu_seconds=self.cpu_seconds,
            wall_seconds=self.wall_seconds,
            memory_bytes=self.memory_mib * MIB,
            file_bytes=self.files_mib * MIB,
            processes=self.processes,
        )


class Temperatures(BaseModel):
    """With how much chance a model is asked where a workflow declares such a mode; 0 otherwise."""

    model_config = ConfigDict(extra="forbid")

    exploratory: float = Field(default=0.4, ge=0, le=2)
    creative: float = Field(default=0.9, ge=0, le=2)


class Model(BaseModel):
    """What a drafting agent says to a model. `prompt` and `offline` are templates over the input; `offline` is what
    the template provider writes when there is no model."""

    model_config = ConfigDict(extra="forbid")

    system: str
    prompt: str
    offline: str
    max_tokens: int = Field(default=800, ge=1, le=32_000)
    temperatures: Temperatures | None = None


class Batch(BaseModel):
    """Like tasks that wait at the same time share one call of the model: at most `max`, the first of them waits at
    most `wait` for the others. `across: workspace`: tasks of other runs, and so of other customers, may be in it."""

    model_config = ConfigDict(extra="forbid")

    max: int = Field(ge=2, le=32)
    wait: str = Field(default="200ms", pattern=r"^[0-9]{1,4}ms$")
    across: Literal["run", "workspace"] = "run"

    @property
    def wait_s(self) -> float:
        """In seconds."""
        return int(self.wait.removesuffix("ms")) / 1000


class Spec(BaseModel):
    """The body of an Agent document.

    `runtime`: `sandbox` runs `entry` in a process of its own, `trusted` runs registered code in the runner's own
    process, `model` writes through the model port. Agents have no effects: they compute and write, and what follows
    from it is up to the workflow; so calling one twice is harmless.
    """

    model_config = ConfigDict(extra="forbid")

    description: str = ""
    runtime: Literal["sandbox", "trusted", "model"]
    entry: str = ""
    input: dict[str, Any] = Field(default_factory=lambda: {"type": "object"})
    output: dict[str, Any] = Field(default_factory=lambda: {"type": "object"})
    resources: Resources = Field(default_factory=Resources)
    model: Model | None = None
    batch: Batch | None = None

    @model_validator(mode="after")
    def _batch_has_a_model(self) -> Self:
        if self.batch is not None and self.runtime != "model":
            raise ValueError("batch: only agents of runtime model share calls; leave it out")
        return self


class Agent:
    """One agent in one version (the hash of its document)."""

    def __init__(self, name: str, version: str, spec: Spec) -> None:
        self.name, self.version, self.spec = name, version, spec
        self.label = Label((f"agent:{name}",), Trust.OWNER)  # of what it adds to what it was told
        self._input, self._output = Schema(spec.input), Schema(spec.output)

    def check_input(self, data: Any) -> None:
        """Raises INVALID_ARGUMENT, naming the field."""
        self._input.check(data, f"agent {self.name}: input")

    def check_output(self, data: Any) -> None:
        """Raises AGENT_BAD_OUTPUT, naming the field."""
        self._output.check(data, f"agent {self.name}: output", "AGENT_BAD_OUTPUT")


def load_agents(directory: Path = PLAYBOOKS) -> dict[str, Agent]:
    """Every agent that is declared in a folder of YAML documents. Raises BAD_RESOURCE naming file and field."""
    agents: dict[str, Agent] = {}
    for file in sorted(directory.glob("*.yaml")):
        for document in yaml.safe_load_all(file.read_text(encoding="utf-8")):
            agent = _agent(file.name, document)
            agents[agent.name] = agent
    return agents


def _agent(file: str, document: Mapping[str, Any]) -> Agent:
    try:
        if document.get("apiVersion") != "aios/v1" or document.get("kind") != "Agent":
            raise TerminalError(
                "BAD_RESOURCE", f"{file}: an Agent document has apiVersion aios/v1 and kind Agent."
            )
        spec = Spec.model_validate(document["spec"])
        silent = spec.model is not None and spec.model.temperatures is None
        unsaid: dict[str, Any] = {"model": {"temperatures"}} if silent else {}
        if spec.batch is None:
            unsaid["batch"] = True
        said = spec.model_dump_json(exclude=unsaid or None)
        version = content_hash(said.encode())[:16]
        return Agent(str(document["metadata"]["name"]), version, spec)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(["spec", *map(str, first["loc"])])
        raise TerminalError("BAD_RESOURCE", f"{file}: {where}: {first['msg']}.", field=where) from None
    except ValueError as error:
        raise TerminalError("BAD_RESOURCE", f"{file}: a contract is not a JSON Schema: {error}.") from None
    except (KeyError, TypeError, AttributeError):
        raise TerminalError(
            "BAD_RESOURCE", f"{file}: an Agent document has metadata.name and spec."
        ) from None
