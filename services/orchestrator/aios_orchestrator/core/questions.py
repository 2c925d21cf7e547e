"""Questions of a step, read strictly: many come from an agent, and what is left out of them can't be answered."""

from collections.abc import Iterator, Mapping
from typing import Final

from aios.run.v1.state_pb2 import Question
from aios_core.errors import TerminalError
from aios_core.values import Plain
from aios_core.wording import kind_of
from aios_orchestrator.core import patterns
from aios_orchestrator.mapping import as_text

MAX_QUESTIONS: Final = 50
MAX_OPTIONS: Final = 200


def read(step: str, asked: Plain) -> list[Question]:
    """The questions of a step, in their order. Raises BAD_OUTPUT, naming the field."""
    if not isinstance(asked, list) or not 0 < len(asked) <= MAX_QUESTIONS:
        what = f"{len(asked)}" if isinstance(asked, list) else kind_of(asked)
        raise _wrong(step, "questions", f"must be a list of 1 to {MAX_QUESTIONS}, not {what}")
    found: dict[str, Question] = {}
    for at, item in enumerate(asked):
        place = f"questions[{at}]"
        if not isinstance(item, dict):
            raise _wrong(step, place, f"must be a map, not {kind_of(item)}")
        question = _question(step, place, item)
        if question.id in found:
            raise _wrong(
                step, f"{place}.id", f"{question.id[:80]!r} stands twice; each answer has a name of its own"
            )
        found[question.id] = question
    return list(found.values())


def _question(step: str, place: str, item: Mapping[str, Plain]) -> Question:
    for name in ("id", "text"):
        if item.get(name) in (None, ""):
            raise _wrong(step, f"{place}.{name}", "is missing; a question has an id and a text")
    identity, pattern = item["id"], item.get("pattern")
    if isinstance(identity, bool) or not isinstance(identity, str | int):
        raise _wrong(step, f"{place}.id", f"must be a text, not {kind_of(identity)}")
    if pattern is not None and not isinstance(pattern, str):
        raise _wrong(step, f"{place}.pattern", f"must be a text, not {kind_of(pattern)}")
    patterns.check(pattern or "", str(identity))
    return Question(
        id=str(identity),
        text=as_text(item["text"]),
        why=as_text(item.get("why")),
        options=_options(step, f"{place}.options", item.get("options")),
        pattern=pattern or "",
    )


def _options(step: str, place: str, given: Plain) -> Iterator[str]:
    options = [] if given is None else given
    if not isinstance(options, list):
        raise _wrong(step, place, f"must be a list, not {kind_of(options)}")
    if len(options) > MAX_OPTIONS:
        raise _wrong(
            step, place, f"has {len(options):,} entries; a person chooses from {MAX_OPTIONS} at most"
        )
    for option in options:
        # a document's yes and no are truth values, as in all of YAML
        yield as_text(option) if not isinstance(option, bool) else "yes" if option else "no"


def _wrong(step: str, place: str, what: str) -> TerminalError:
    return TerminalError("BAD_OUTPUT", f"Step {step!r} can't ask: {place} {what}.", field=place)
