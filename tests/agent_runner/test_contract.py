"""The agents that ship: what they ask of the machine that runs them."""

from pathlib import Path

import pytest

from aios_agent_runner.contract import load_agents
from aios_core.errors import TerminalError

SANDBOXED = [name for name, agent in load_agents().items() if agent.spec.runtime == "sandbox"]


@pytest.mark.parametrize("name", SANDBOXED)
def test_agents_that_ship_are_content_with_one_process(name: str) -> None:
    """Several would need namespaces to keep them in bounds, which a restricted container has not."""
    assert load_agents()[name].spec.resources.processes == 1


HEAD = "apiVersion: aios/v1\nkind: Agent\nmetadata: {name: x}\nspec:\n"
DRAFTS = "  runtime: model\n  model: {system: s, prompt: p, offline: o}\n"


@pytest.mark.feature("B5")
@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("  runtime: trusted\n  batch: {max: 2}\n", "batch: only agents of runtime model"),
        (DRAFTS + "  batch: {max: 1}\n", "spec.batch.max: .*greater than or equal to 2"),
        (DRAFTS + "  batch: {max: 2, wait: soon}\n", "spec.batch.wait"),
        (DRAFTS + "  batch: {max: 2, across: all}\n", "spec.batch.across"),
    ],
)
def test_a_batch_that_makes_no_sense_is_refused_with_its_field(tmp_path: Path, spec: str, words: str) -> None:
    (tmp_path / "x.yaml").write_text(HEAD + spec)
    with pytest.raises(TerminalError, match=words):
        load_agents(tmp_path)


@pytest.mark.feature("B5")
def test_a_batch_is_a_part_of_the_version_and_an_agent_without_one_keeps_its_own(tmp_path: Path) -> None:
    versions = []
    for batch in ("", "  batch: {max: 2, wait: 50ms}\n"):
        (tmp_path / "x.yaml").write_text(HEAD + DRAFTS + batch)
        versions.append(load_agents(tmp_path)["x"].version)
    assert versions[0] == "04fc9045334cda98" and versions[1] != versions[0]
