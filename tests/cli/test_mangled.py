"""Documents with something wrong in them: what is wrong is told with its place, and what passes can be explained, drawn
and rehearsed."""

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as some

from aios_cli import compiling
from aios_cli.compiling import Compiler
from aios_core.errors import AiosError, TerminalError
from aios_orchestrator import drawing
from aios_orchestrator.cases import cases_of
from aios_orchestrator.explaining import explain
from aios_orchestrator.rehearsing import rehearse
from aios_orchestrator.workflow import Workflow
from tests.often import tries

DOCS: Final = Path(__file__).parents[2] / "docs"
TEXTS: Final = [
    file.read_text("utf-8") for file in sorted(DOCS.glob("[es]*/*.yaml")) if "tests" not in file.name
]
ODD: Final[list[Any]] = [
    *(
        None,
        True,
        0,
        -1,
        1.5,
        1e300,
        10**40,
        "",
        " ",
        "x",
        "1h",
        "-1h",
        "99999999d",
        "P1D",
        "a.b",
        "a@1",
        "../x",
    ),
    *(
        "${",
        "${inputs.n}",
        "${steps.x}",
        "${1/0}",
        "${item}",
        "steps.a == 1",
        "not not 1",
        "((((((((",
        "^(a+)+$",
    ),
    *(
        "\u00e9",
        "\U0001f600",
        "x" * 300,
        "2026-02-30",
        "2026-01-01",
        "person:owner",
        "each",
        "!!python/object",
    ),
    *([], {}, [[]], [None], {"a": {}}, {"name": "x"}, [{"name": "x"}], ["a", "a"], {"": 1}, {1: 2}),
]
NAMES: Final = ["x", 1, None, True, "name", "when", "needs"]
CHARACTERS: Final = "{}[]:#&*!|>'\"%@`\t\x00\x85,-? \u00e9"
Place = tuple[Any, ...]


def places(data: Any, place: Place = ()) -> Iterator[Place]:
    """Where something stands."""
    if place:
        yield place
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, item in items:
        yield from places(item, (*place, key))


def around(data: Any, place: Place) -> Any:
    for key in place[:-1]:
        data = data[key]
    return data


def replaced(documents: Any, rng: Random) -> str:
    """Another value, name or place of what stands there."""
    known = list(places(documents))
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        place, other = rng.choice(known), rng.choice(known)
        try:
            home, how = around(documents, place), rng.randrange(6)
            if how == 0:
                del home[place[-1]]
            elif how == 1 and isinstance(home, dict):
                home[rng.choice([*NAMES, f"{place[-1]}s"])] = home.pop(place[-1])
            elif how == 2:
                home[place[-1]] = deepcopy(around(documents, other)[other[-1]])
            else:
                home[place[-1]] = deepcopy(rng.choice(ODD))
        except (KeyError, IndexError, TypeError):  # what was changed before is no more there
            continue
    return str(yaml.safe_dump_all(documents, sort_keys=False))


def mistyped(text: str, rng: Random) -> str:
    """Lines that are gone, doubled, indented otherwise, or have a character more."""
    lines = text.split("\n")
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(lines))
        line, how = lines[at], rng.randrange(4)
        cut = rng.randrange(len(line) + 1)
        lines[at : at + 1] = (
            [
                *(
                    []
                    if how == 0
                    else [line, rng.choice(lines)]
                    if how == 1
                    else [" " * rng.randint(1, 4) + line]
                )
            ]
            if how < 3
            else [line[:cut] + rng.choice(CHARACTERS) + line[cut:]]
        )
        lines = lines or [""]
    return "\n".join(lines)


def applied(name: str, version: str = "") -> Workflow:
    raise TerminalError("NOT_FOUND", f"There is no {name!r}.")


@pytest.mark.feature("D1")
@settings(max_examples=tries(150), deadline=None)
@given(some.integers(0, 2**32))
def test_whatever_is_written_is_explained_or_refused_with_its_place(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    rng = Random(seed)
    text = rng.choice(TEXTS)
    wrong = mistyped(text, rng) if rng.random() < 0.2 else replaced(list(yaml.safe_load_all(text)), rng)
    file = tmp_path_factory.getbasetemp() / "mangled.yaml"
    file.write_text(wrong, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiling, "applied", applied)  # nothing runs that could be asked
        found = Compiler([str(file)])
    for error in found.errors:
        assert error.code and "mangled.yaml" in error.message, error
    if found.errors:
        return
    for workflow in found.workflows.values():
        assert list(explain(workflow).lines())
        assert drawing.outline(workflow) and drawing.mermaid(workflow) and drawing.svg(workflow)
        for given_ in ({}, {"n": 1}):
            try:
                rehearse(workflow, cases_of([{"input": given_}])[0])
            except AiosError:
                continue
