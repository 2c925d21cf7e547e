"""The published JSON Schemas take what is right and refuse what is wrong, as `aios apply` does."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from aios_agent_runner.contract import PLAYBOOKS as AGENTS
from aios_cli.commands.schema import published
from aios_core.errors import TerminalError
from aios_core.json_values import to_json
from aios_orchestrator import definition, language, step_language, timing
from aios_orchestrator.document import KINDS, parse_documents
from aios_orchestrator.problems import Problems
from tests.orchestrator.test_bad_documents import FOLDER
from tests.served import run

ROOT = Path(__file__).parents[2]
SCHEMAS = {kind: jsonschema_rs.Draft202012Validator(schema) for kind, schema in published().items()}
# What a schema can't say: how parts of a document fit each other, and what stands within a text.
BEYOND = (
    "twice", "breaks its own schema", "none of the properties", "more than maximum", "regular expression",
    "longest duration", "a whole number from 0",
    "what there are no properties for", "US dollars", "did you mean", "refer to parts", "JSON Schema: Pointer",
)  # fmt: skip


def plain(text: str) -> list[Any]:
    """The documents of a file as an editor sees them."""
    return [to_json(document.data) for document in parse_documents(text.encode(), "w.yaml")]


def shipped() -> list[Any]:
    files = [*ROOT.glob("services/*/*/playbooks/*.yaml"), *ROOT.glob("**/samples/**/*.yaml")]
    assert files
    found = [item for file in files for item in yaml.safe_load_all(file.read_text())]
    page = (ROOT / "docs/language.md").read_text()
    examples = [text for text in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "apiVersion" in text]
    found += [item for text in examples for item in plain(text)]
    return [item for item in found if isinstance(item, dict) and item.get("apiVersion") == "aios/v1"]


@pytest.mark.feature("D1")
def test_everything_that_ships_is_valid() -> None:
    kinds = set()
    for item in shipped():
        kinds.add(item["kind"])
        errors = [error.message for error in SCHEMAS[item["kind"]].iter_errors(item)]
        assert not errors, (item["metadata"]["name"], errors)
    assert {"Workflow", "Intent", "Agent"} <= kinds and AGENTS.is_dir()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_document_is_described(kind: str) -> None:
    assert kind in language.SPECS and kind in SCHEMAS


def test_every_kind_and_field_of_a_step_is_described() -> None:
    assert set(step_language.STEPS) == set(definition.KINDS)
    assert set(step_language.STEP_FIELDS) == set(definition._STEP_FIELDS)
    work = {field for fields in definition._WORK.values() for field in fields}
    assert set(step_language.WORK) == work | set(timing.TIMES)
    step = published()["Workflow"]["$defs"]["step"]["properties"]
    assert all(step[kind]["description"] for kind in definition.KINDS)


def _structural(error: TerminalError) -> bool:
    if error.code == "UNKNOWN_FIELD":  # in a JSON Schema any word may stand
        return not any(part in error.details["field"] for part in (".properties.", ".inputs.", ".gives."))
    return error.code != "BAD_EXPRESSION" and not any(words in error.message for words in BEYOND)


ENTRIES = [entry for file in sorted(FOLDER.glob("*.yaml")) for entry in yaml.safe_load(file.read_text())]


@pytest.mark.feature("D1")
def test_what_is_wrong_in_structure_is_refused_by_the_schema_too() -> None:
    refused, kept = 0, []
    for entry in ENTRIES:
        try:
            documents = parse_documents(entry["document"].encode(), "w.yaml")
        except TerminalError:
            continue  # no document that a schema could look at
        problems = Problems()
        for document in documents:
            language.checked(document, problems)
        structural = [error for error in problems.errors if _structural(error)]
        if not structural:
            continue
        valid = all(SCHEMAS[document.kind].is_valid(to_json(document.data)) for document in documents)
        refused += not valid
        if valid:
            kept.append((entry["name"], structural[0].message))
    assert not kept
    assert refused >= 100


@pytest.mark.feature("D1")
def test_a_schema_is_printed_and_written(tmp_path: Path) -> None:
    said = run("schema", "workflow")
    assert said.code == 0 and json.loads(said.out)["title"] == "AIOS Workflow"
    said = run("schema", "--all", "-o", str(tmp_path / "out"))
    assert said.code == 0 and "yaml-language-server: $schema=" in said.out
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        f"{kind.lower()}.json" for kind in SCHEMAS
    }
    said = run("schema", "Pod")
    assert said.code != 0 and "there are Workflow, Intent, Schedule, Limit, Budget, Agent" in said.err
    assert run("schema").code == 2
