"""The sample that ships: each month's figures were worked out from what the data means, not from what the code says."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import aios_cli
from aios_agent_runner.agents.monthly_report.facts import facts_from_answer
from tests.report.months import Folder, places

SAMPLE = Path(aios_cli.__file__).parent / "sample"
EXPECTED = json.loads((Path(__file__).parent / "sample_expected.json").read_text(encoding="utf-8"))
CLIENTS = ("acme", "brandt", "kitano")
MONTHS = ("2026-07", "2026-08", "2026-09", "2026-10")
ANSWERS = {"Which column is hours?": "Std-Anz", "Which currency is “Fränkli”?": "CHF"}
ASKED = {
    ("brandt", "2026-09"): "Which column is hours?",
    ("kitano", "2026-09"): "Which currency is “Fränkli”?",
}


def agrees(outputs: dict[str, Any], key: str) -> None:
    expected = EXPECTED[key]
    assert [[file, line] for file, line, _ in places(outputs)] == expected["rejected"]
    assert {name: outputs[name] for name in expected if name != "rejected"} == {
        name: value for name, value in expected.items() if name != "rejected"
    }


def months(client: str, root: Path) -> Iterator[tuple[str, Folder]]:
    """The client's months in order, each with the history that the earlier ones left."""
    history: list[dict[str, Any]] = []
    facts: list[dict[str, Any]] = []
    for month in MONTHS:
        folder = Folder(root / month, month)
        shutil.copytree(SAMPLE / client / month, folder.files, dirs_exist_ok=True)
        for entry in history:
            shutil.copy(root / entry["month"] / "out" / entry["rows_artifact"], folder.files)
        folder.history, folder.facts = history, facts
        yield month, folder
        outputs = folder.outputs()
        figures = {name: outputs[name] for name in ("total_hours", "billed", "invoiced", "outstanding")}
        history.append({"month": month, "figures": figures, "rows_artifact": f"history-{month}.json"})


@pytest.mark.feature("M1")
@pytest.mark.parametrize("client", CLIENTS)
def test_every_month_gives_the_figures_that_its_data_means(client: str, tmp_path: Path) -> None:
    for month, folder in months(client, tmp_path):
        result = folder.compute()
        question = ASKED.get((client, month))
        assert [one["text"] for one in result["questions"]] == ([question] if question else [])
        if question:
            agrees(result["outputs"], f"{client}/{month} unanswered")
            taught = facts_from_answer(result["questions"][0], ANSWERS[question])
            folder.facts.extend({**fact, "learned": month} for fact in taught)
            result = folder.compute()
        agrees(result["outputs"], f"{client}/{month}")
        assert bool(result["used_facts"]) == (client != "acme" and month >= "2026-09")
        assert all(folder.render(result).values())


def test_the_long_workshop_is_the_outlier_of_october(tmp_path: Path) -> None:
    *_, (month, folder) = months("acme", tmp_path)
    result = folder.compute()
    assert month == "2026-10"
    assert [(item["value"], item["project"]) for item in result["outliers"]] == [("11.5", "Advice")]
    assert result["month_over_month"]["previous"] == "2026-09"


def test_the_readme_of_the_sample_names_every_month() -> None:
    text = (SAMPLE / "README.md").read_text(encoding="utf-8")
    assert all(client in text for client in CLIENTS)
    assert all(text.count(month) == len(CLIENTS) for month in MONTHS)
