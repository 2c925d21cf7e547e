"""The page of the workflow language says what the compiler takes: its examples compile, no kind or limit is missing."""

import re
from pathlib import Path

import pytest

from aios_orchestrator import definition
from aios_orchestrator.core import rounds
from aios_orchestrator.document import parse_documents
from aios_orchestrator.mapping import ROOTS

PAGE = (Path(__file__).parents[2] / "docs" / "language.md").read_text()


@pytest.mark.feature("D1")
@pytest.mark.parametrize("text", re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
def test_an_example_compiles(text: str) -> None:
    (document,) = parse_documents(text.encode(), "language.md")
    definition.compile_workflow(document)


@pytest.mark.feature("D1")
@pytest.mark.parametrize("kind", definition.KINDS)
def test_a_kind_has_its_row(kind: str) -> None:
    assert re.search(rf"^\| `{kind}: ", PAGE, re.MULTILINE)


@pytest.mark.parametrize("field", definition._STEP_FIELDS)
def test_a_field_of_a_step_is_on_the_page(field: str) -> None:
    assert f"`{field}" in PAGE or f" {field}: " in PAGE


@pytest.mark.parametrize("root", [root for root in ROOTS if root != "event"])  # of intents
def test_what_an_expression_knows_is_on_the_page(root: str) -> None:
    assert f"`{root}`" in PAGE or f"`{root}." in PAGE


def test_the_limits_are_those_of_the_code() -> None:
    assert f"at most {rounds.MAX_ITEMS:,} items" in PAGE and f"at most {definition.MAX_AT_ONCE:,}." in PAGE
    assert (
        f"(at most {definition.MAX_TURNS:,})" in PAGE and f"at most {rounds.MAX_ROUND_STEPS:,} steps" in PAGE
    )
    assert f"most {definition.MAX_NESTED} deep" in PAGE
