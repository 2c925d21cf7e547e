"""The reference of documents is what the schemas say, and its examples and the samples hold."""

from pathlib import Path

import pytest

from aios_cli.rehearsals import rehearsed
from aios_orchestrator.definition import KINDS
from aios_orchestrator.document import KINDS as DOCUMENTS
from aios_orchestrator.document import parse_documents
from aios_testing.reference import EXAMPLES, ROOT, current

SAMPLES = ROOT / "docs" / "samples"
FILES = [
    file for folder in (EXAMPLES, SAMPLES) for file in sorted(folder.glob("*.yaml")) if file.stem != "tests"
]


def test_the_page_is_what_the_schemas_say() -> None:
    assert (ROOT / "docs" / "reference.md").read_text() == current(), "run `make reference`"


@pytest.mark.feature("D1")
@pytest.mark.parametrize("kind", [*KINDS, *(name.lower() for name in DOCUMENTS)])
def test_a_kind_has_an_example(kind: str) -> None:
    documents = parse_documents((EXAMPLES / f"{kind}.yaml").read_bytes(), kind)
    if kind in KINDS:
        steps = [step for document in documents for step in document.spec["steps"]]
        assert any(kind in step for step in steps)
    else:
        assert kind in {document.kind.lower() for document in documents}


@pytest.mark.feature("D1", "D2")
@pytest.mark.parametrize("file", FILES, ids=[f"{file.parent.name}/{file.stem}" for file in FILES])
def test_nothing_is_wrong_with_it(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from aios_cli.app import main

    assert main(["workflow", "lint", str(file)]) == 0, capsys.readouterr().err


@pytest.mark.feature("D1", "D2")
@pytest.mark.parametrize("folder", [EXAMPLES, SAMPLES], ids=["examples", "samples"])
def test_it_decides_as_it_says(folder: Path) -> None:
    told = rehearsed(folder / "tests.yaml")
    assert len(told) >= 5 and not [(one.name, one.problems) for one in told if one.problems]


def test_the_samples_use_most_of_the_language() -> None:
    used: set[str] = set()

    def look(steps: list[dict[str, object]]) -> None:
        for step in steps:
            used.update(step)
            for kind in ("map", "repeat"):
                body = step.get(kind)
                if isinstance(body, dict):
                    look(body["steps"])

    for file in SAMPLES.glob("*.yaml"):
        if file.stem != "tests":
            for document in parse_documents(file.read_bytes(), file.name):
                look(document.spec.get("steps", []))
    assert set(KINDS) <= used
