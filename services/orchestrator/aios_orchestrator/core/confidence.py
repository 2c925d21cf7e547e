"""How sure something was, and whether that is enough for a gate to pass by itself. In doubt it is not."""

import re
from decimal import Decimal
from typing import Final

from aios.run.v1.state_pb2 import Confidence
from aios_core.errors import TerminalError
from aios_core.values import Plain, label_of, plain
from aios_core.wording import SHOWN, kind_of
from aios_orchestrator.core.draft import Draft
from aios_orchestrator.mapping import as_text
from aios_orchestrator.workflow import Asked, Step

_DECIMAL: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{1,30})?")
_OWN: Final = ("person:", "agent:")  # origins that no stranger chooses
_DOCUMENT: Final = "resource"


def weigh(draft: Draft, step: Step, asked: Asked) -> Confidence:
    """The confidence that a gate's document names, against what it asks for.

    It passes when it is a number from 0 to 1, high enough, and computed from nothing that came from outside: whoever
    writes the mail would also choose how sure we are of it."""
    told = Confidence(at_least=str(asked.at_least))
    try:
        value = asked.of.evaluate(draft.look_from(step.scope))
    except TerminalError as error:
        told.why = error.message
        return told
    label, data = label_of(value), plain(value)
    told.origins.extend(label.origins)
    number, told.why = _number(data)
    told.value = str(number if number is not None else "")
    strange = [origin for origin in label.origins if not _own(origin)]
    if strange:
        told.why = f"it depends on what came from outside ({', '.join(strange)})"
    told.passed = not told.why and number is not None and number >= asked.at_least
    return told


def _own(origin: str) -> bool:
    return origin == _DOCUMENT or origin.startswith(_OWN)


def _number(data: Plain) -> tuple[Decimal | None, str]:
    """The number from 0 to 1, or why it is none."""
    if data is None:
        return None, "there is none"
    text = isinstance(data, str) and _DECIMAL.fullmatch(data)  # what an expression makes of a fraction
    if isinstance(data, bool) or not (text or isinstance(data, int | Decimal)):
        return None, f"{kind_of(data)} is no number"
    number = Decimal(str(data))
    if not number.is_finite() or not 0 <= number <= 1:
        return None, f"{as_text(data)[:SHOWN]} is not from 0 to 1"
    return number, ""
