"""What a deadline may be in a document."""

import re
from dataclasses import dataclass
from typing import Any

from aios_core.wording import kind_of
from aios_orchestrator.computed_shapes import each_of
from aios_orchestrator.mapping import time_of
from aios_orchestrator.shapes import DURATION, Check, Duration


@dataclass(frozen=True)
class Deadline:
    """A duration, a time, or an expression that gives a time."""

    def check(self, check: Check, path: str, data: Any) -> Any:
        if not isinstance(data, str):
            check.say(path, f"must be a duration such as 2h, or a time with its zone, not {kind_of(data)}.")
            return "1s"
        if "${" in data:
            return each_of(check, path, data)
        if re.fullmatch(DURATION, data):
            return Duration().check(check, path, data)
        try:
            time_of(data)
        except ValueError as error:
            check.say(path, f"{error}, nor a duration such as 2h.")
            return "1s"
        return data

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "minLength": 1}
