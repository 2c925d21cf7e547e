"""How agents are to work: the words of documents, and of people, for it."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from aios.task.v1.task_pb2 import WorkMode
from aios_orchestrator.timing import Place, wrong
from aios_orchestrator.workflow import Step

UNSPECIFIED: Final = WorkMode.WORK_MODE_UNSPECIFIED
MODES: Final[Mapping[str, WorkMode.ValueType]] = {
    "exploratory": WorkMode.WORK_MODE_EXPLORATORY,
    "deterministic": WorkMode.WORK_MODE_DETERMINISTIC,
    "creative": WorkMode.WORK_MODE_CREATIVE,
}


def compile_mode(place: Place, fields: Mapping[str, Any]) -> WorkMode.ValueType:
    """Compile `mode` of a step or a workflow. Raises BAD_RESOURCE."""
    word = fields.get("mode")
    if word is None:
        return UNSPECIFIED
    if word not in MODES:
        raise wrong(place, "mode", f"must be one of {', '.join(MODES)}.")
    return MODES[str(word)]


def with_mode(steps: Mapping[str, Step], mode: WorkMode.ValueType) -> dict[str, Step]:
    """The steps, those of agents that say nothing of a mode in the one of their workflow."""
    return {
        name: replace(step, mode=mode) if step.kind == "agent" and not step.mode else step
        for name, step in steps.items()
    }


def word_of(mode: WorkMode.ValueType) -> str:
    """A mode as documents call it; empty for none."""
    return next((word for word, each in MODES.items() if each == mode), "")


def wants_anew(step: Step) -> bool:
    """Whether a step is to have another answer each time."""
    return step.mode in (WorkMode.WORK_MODE_EXPLORATORY, WorkMode.WORK_MODE_CREATIVE)
