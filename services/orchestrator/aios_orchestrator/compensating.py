"""From what a document says of making good what a step did, `compensate`, to what undo runs."""

from collections.abc import Mapping
from typing import Any, Final

from aios_orchestrator.timing import Place, wrong
from aios_orchestrator.workflow import Compensate

ON_FAILURE: Final = ("stay", "undo")
"""What becomes of what a run changed that fails."""


def compile_compensate(place: Place, fields: Mapping[str, Any]) -> Compensate | None:
    """Compile a step's `compensate: {connector, input, effect}`. Raises UNKNOWN_FIELD, BAD_RESOURCE, BAD_EXPRESSION."""
    if "compensate" not in fields:
        return None
    if fields.get("effect", "read") == "read" and fields.get("memory") != "write":
        raise wrong(place, "compensate", "the step changes nothing, so that nothing has to be made good.")
    names = ("connector", "input", "effect")
    data = place.document.known(f"{place.path}.compensate", fields["compensate"], names)
    connector, dot, action = str(data.get("connector", "")).partition(".")
    if not dot or not action:
        raise wrong(place, "compensate.connector", "must be <connector>.<action>, such as files.append_line.")
    if data.get("effect", "write") != "write":
        words = "must be 'write': undo runs it without a gate, so that it must not be final or spend money."
        raise wrong(place, "compensate.effect", words)
    given = place.mapping(data.get("input", {}), "compensate.input")
    return Compensate(f"{connector}.{action}", f"connector-{connector}", given)
