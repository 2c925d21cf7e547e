"""Workflows that use others: which, in what order they are read, and how a document names their versions."""

import contextlib
import graphlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from aios_core.errors import TerminalError
from aios_orchestrator.document import Document, parse_documents
from aios_orchestrator.workflow import Workflow

Children = Mapping[str, Workflow]
"""The workflows that a document uses, by what it calls them: `name@version`."""
NO_CHILDREN: Final[Children] = MappingProxyType({})
MAX_CHAIN: Final = 100  # files that use each other one after the other


def used(document: Document) -> list[tuple[str, str]]:
    """The workflows that a Workflow document uses: (place of the field, `name` or `name@version`)."""
    return [(place, str(holder[key])) for place, holder, key in _using(document)]


def bind(document: Document, found: Mapping[str, Workflow]) -> Children:
    """The workflows that a document uses, `found` by what it calls them; afterwards it names their versions where it
    named none: `invoice` is `invoice@1f0c…`. What was not found stays as it is."""
    children = {}
    for _, holder, key in _using(document):
        child = found.get(str(holder[key]))
        if child is None:
            continue
        holder[key] = f"{child.name}@{child.version}"
        children[holder[key]] = child
    return children


def unbound(document: Document) -> None:
    """Have a document name the workflows that it uses without their versions."""
    for _, holder, key in _using(document):
        holder[key] = str(holder[key]).partition("@")[0]


def without(document: Document, missing: Collection[str]) -> None:
    """Put steps of which nothing is known where a document uses workflows that are not there."""
    for _, holder, key in reversed(list(_using(document))):
        if holder[key] not in missing:
            continue
        del holder[key]
        if isinstance(holder, dict):
            holder.pop("input", None)
            holder["agent"] = "nothing"


def _using(document: Document) -> Iterator[tuple[str, Any, Any]]:
    """Where a document uses a workflow: (its place, the map or list that names it, the key there); what is no list of
    steps is passed over."""

    def look(data: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
        for at, step in enumerate(data if isinstance(data, list) else []):
            place = f"{path}[{at}]"
            if not isinstance(step, dict):
                continue
            if "workflow" in step:
                yield f"{place}.workflow", step, "workflow"
            for kind in ("map", "repeat"):
                if isinstance(step.get(kind), dict):
                    yield from look(step[kind].get("steps"), f"{place}.{kind}.steps")
            may = step["plan"].get("may") if isinstance(step.get("plan"), dict) else None
            names = may.get("workflows") if isinstance(may, dict) else None
            for index, _ in enumerate(names if isinstance(names, list) else []):
                yield f"{place}.plan.may.workflows[{index}]", names, index

    return look(document.spec.get("steps"), "spec.steps")


def in_order(documents: Sequence[Document]) -> list[Document]:
    """The workflows among documents, each after those that it uses. Raises CYCLE with the place."""
    together = {document.name: document for document in documents if document.kind == "Workflow"}
    uses = {name: used(document) for name, document in together.items()}
    graph = {name: [ref for _, ref in found if ref in together] for name, found in uses.items()}
    try:
        return [together[name] for name in graphlib.TopologicalSorter(graph).static_order()]
    except graphlib.CycleError as error:
        circle = [str(name) for name in error.args[1]]
        first = together[circle[0]]
        place = next(place for place, ref in uses[first.name] if ref in circle)
        raise first.error(
            "CYCLE", place, f"workflows use each other in a circle: {' → '.join(circle)}."
        ) from None


def used_first(files: Sequence[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    """Files of documents, by name and content, each after those whose workflows it uses. What can't be read, or goes
    in a circle, is left for when it is applied."""
    home: dict[str, int] = {}
    uses: dict[int, list[str]] = {}
    for at, (name, text) in enumerate(files):
        with contextlib.suppress(TerminalError):
            for document in parse_documents(text, name):
                if document.kind == "Workflow":
                    home[document.name] = at
                    uses.setdefault(at, []).extend(ref for _, ref in used(document))
    ordered: dict[int, None] = {}

    def take(at: int, waiting: tuple[int, ...]) -> None:
        for ref in uses.get(at, ()):
            before = home.get(ref, at)
            if before not in ordered and before not in (*waiting, at) and len(waiting) < MAX_CHAIN:
                take(before, (*waiting, at))
        ordered[at] = None

    for at in range(len(files)):
        take(at, ())
    return [files[at] for at in ordered]
