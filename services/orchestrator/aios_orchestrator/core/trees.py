"""The expressions of a step."""

from collections.abc import Iterable

from aios_orchestrator.mapping import Mapped
from aios_orchestrator.workflow import Step


def trees(step: Step) -> Iterable[Mapped]:
    """What a step of the document computes from other steps; of a sub-workflow only what is given to it."""
    key = step.cache.key if step.cache is not None else None
    deadline = step.bounds.deadline if step.bounds is not None else None
    own = (step.input, step.output, step.when, step.until, deadline, key)
    yield from (tree for tree in own if tree is not None)
    yield from (condition for _, condition in step.cases)
    if step.ask is not None:
        yield step.ask.questions
    if step.body is not None and step.body.child is None:
        yield from (tree for tree in (step.body.over, step.body.until, step.body.result) if tree is not None)
