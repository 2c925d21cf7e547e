"""How a mode that a workflow declares is carried out: how much chance there is, and whose answers are given again."""

from dataclasses import dataclass
from typing import Final

from aios.task.v1.task_pb2 import Task, WorkMode
from aios_agent_runner.contract import Agent, Temperatures
from aios_core.hashing import sha256

_ANEW: Final = (WorkMode.WORK_MODE_EXPLORATORY, WorkMode.WORK_MODE_CREATIVE)


@dataclass(frozen=True, slots=True)
class Working:
    """`temperature` from 0 to 2. `seed` asks for the same answer to the same question. `apart` is part of what an
    answer is kept under: in modes in which each task is to be done anew, a task finds its own answer alone."""

    word: str = ""
    temperature: float = 0.0
    seed: int | None = None
    apart: tuple[bytes, ...] = ()


def working(task: Task, agent: Agent, asked: bytes) -> Working:
    """How an agent works on a task; `asked` is what it asks its model."""
    mode = task.work_mode
    if mode == WorkMode.WORK_MODE_UNSPECIFIED:
        return Working()
    word = WorkMode.Name(mode).removeprefix("WORK_MODE_").lower()
    if mode not in _ANEW:
        seed = int.from_bytes(sha256(agent.version.encode(), asked)[:4], "big") >> 1
        return Working(word, seed=seed, apart=(word.encode(),))
    declared = agent.spec.model.temperatures if agent.spec.model is not None else None
    temperatures = declared or Temperatures()
    return Working(
        word, temperature=float(getattr(temperatures, word)), apart=(word.encode(), task.task_id.encode())
    )
