"""A connector: a name and its actions."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from aios_core.errors import TerminalError
from aios_sdk.connector.actions import Action
from aios_sdk.connector.effects import Rate


class Connector:
    """The actions of one external system. `name` is what targets start with, such as `files` in `files.write_file`.

    With a `rate`, each try of an action, each look-up and each undo waits for its turn.
    """

    def __init__(
        self, name: str, version: str, actions: Sequence[Action[Any, Any, Any]], rate: Rate | None = None
    ) -> None:
        self.rate = rate
        self.name = name
        self.version = version
        self.actions: Mapping[str, Action[Any, Any, Any]] = {action.spec.name: action for action in actions}

    def find(self, target: str) -> Action[Any, Any, Any]:
        """The action of a task's target. Raises NOT_FOUND with the nearest name."""
        connector, _, name = target.partition(".")
        if connector == self.name and name in self.actions:
            return self.actions[name]
        known = [f"{self.name}.{other}" for other in self.actions]
        near = get_close_matches(target, known, 1)
        hint = f"Did you mean {near[0]}?" if near else f"It has {', '.join(known)}."
        raise TerminalError(
            "NOT_FOUND", f"Connector {self.name} has no action {target[:80]!r}. {hint}", field="target"
        )

    def describe(self) -> dict[str, Any]:
        """What the connector declares, as JSON: for each action its schemas, effect, inverse and steering fields."""
        return {
            "name": self.name,
            "version": self.version,
            "actions": {name: _describe(action) for name, action in self.actions.items()},
        }


def _describe(action: Action[Any, Any, Any]) -> dict[str, Any]:
    spec = action.spec
    return {
        "effect": spec.effect.value,
        "idempotency": type(spec.idempotency).__name__.lower(),
        "inverse": spec.inverse.says if spec.inverse else "",
        "steering": list(spec.steering),
        "input": spec.input.model_json_schema(),
        "output": spec.output.model_json_schema(),
    }
