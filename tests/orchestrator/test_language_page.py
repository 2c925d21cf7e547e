"""The page of the workflow language says what the compiler takes: its examples compile, no kind or limit is missing."""

import re
from pathlib import Path

import pytest

from aios_cli.rehearsals import rehearsed
from aios_orchestrator import definition
from aios_orchestrator.checking import check_workflow
from aios_orchestrator.core import rounds
from aios_orchestrator.document import parse_documents
from aios_orchestrator.mapping import ROOTS
from aios_orchestrator.problems import Problems

PAGE = (Path(__file__).parents[2] / "docs" / "language.md").read_text()


@pytest.mark.feature("D1")
def test_the_examples_hold(tmp_path: Path) -> None:
    """The workflows compile with nothing wrong, and the test of the first passes."""
    example, tests, *others = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    for text in (example, *others):
        problems = Problems()
        check_workflow(parse_documents(text.encode(), "language.md")[0], {}, problems)
        assert not problems.errors
    (tmp_path / "thank-clients.yaml").write_text(example)
    (tmp_path / "tests.yaml").write_text(tests)
    assert [told.problems for told in rehearsed(tmp_path / "tests.yaml")] == [[]]


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
