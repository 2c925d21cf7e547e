"""A plan step, field by field."""

import re
from dataclasses import dataclass
from typing import Any, Final

from aios_orchestrator.computed_shapes import Computed
from aios_orchestrator.definition import EFFECTS
from aios_orchestrator.plan_step import MAX_PLANNED, USUAL
from aios_orchestrator.shapes import NAME, Check, Choice, Duration, Field, Fields, MapOf, Several, Text, Whole

_ACTION: Final = f"{NAME}\\.[A-Za-z0-9_-]+"
_AGENT: Final = Text("the name of an agent", NAME, "nothing", "planner")
_WORKFLOW: Final = Text("the name of a workflow", f"{NAME}(@[0-9a-f]{{4,64}})?", "nothing", "send-invoice")


@dataclass(frozen=True)
class _Actions(MapOf):
    """A map whose keys are actions of connectors."""

    def check(self, check: Check, path: str, data: Any) -> Any:
        out = super().check(check, path, data)
        for name in [name for name in out if not re.fullmatch(_ACTION, name)]:
            check.say(f"{path}.{name}", "must be <connector>.<action>, such as files.append_line.")
            del out[name]
        return out

    def schema(self) -> dict[str, Any]:
        return {**super().schema(), "propertyNames": {"pattern": f"^{_ACTION}$"}}


_MAY: Final = Fields(
    {
        "agents": Field(Several(_AGENT, most=100, about="a list of agents", distinct=True), "Agents"),
        "actions": Field(
            _Actions(Choice(EFFECTS), "a map from an action to what it does to the world"),
            "Actions of connectors, with what each does to the world",
        ),
        "memory": Field(
            Several(Choice(("read", "write")), most=2, about="a list of operations of memory", distinct=True),
            "Operations of memory",
        ),
        "workflows": Field(
            Several(_WORKFLOW, most=100, about="a list of workflows", distinct=True), "Workflows"
        ),
    }
)
PLANNED: Final = Field(
    Fields(
        {
            "agent": Field(_AGENT, "The agent that gives the plan", True),
            "goal": Field(Computed(), "What is to be achieved", True),
            "input": Field(
                MapOf(Computed(), "a map of what planned steps see"), "What the planned steps see as `inputs`"
            ),
            "may": Field(_MAY, "What the planned steps may use; nothing else"),
            "steps": Field(Whole(1, MAX_PLANNED), f"How many steps a plan has at most, {USUAL} without it"),
            "expires": Field(
                Duration(), "How long it waits for a person to approve the plan, 30d without it"
            ),
        }
    ),
    "An agent plans the steps, a person approves them, and they are carried out",
)
