"""What is asked once, and how the answer is used."""

from typing import Any

import pytest

from aios_agent_runner.agents.monthly_report.facts import facts_from_answer
from aios_core.errors import TerminalError
from tests.report.months import INVOICES, TIMES, Folder, places, reasons

UNKNOWN = "date,project,task,Std-Anz,rate,currency,Kürzel"
ROWS = ("2026-10-05,A,b,8,100,EUR,mb", "2026-10-06,A,b,7.5,100,EUR,mb")


def ask(folder: Folder) -> dict[str, Any]:
    (question,) = folder.compute()["questions"]
    return question  # type: ignore[no-any-return]


def test_an_unknown_header_asks_and_nothing_of_the_file_counts(folder: Folder) -> None:
    result = folder.times(*ROWS, header=UNKNOWN).compute()
    (question,) = result["questions"]
    assert question["text"] == "Which column is hours?"
    assert question["options"] == ["Std-Anz", "none of these"]
    assert "“8”" in question["why"]
    assert "timesheet.csv" in question["why"]
    assert places(result["outputs"]) == [("timesheet.csv", 0, "UNANSWERED_COLUMN")]


@pytest.mark.feature("M1")
def test_an_answer_is_a_fact_that_the_next_month_uses_and_says_so(folder: Folder) -> None:
    question = ask(folder.times(*ROWS, header=UNKNOWN))
    facts = facts_from_answer(question, "Std-Anz")
    assert facts == [{"kind": "column", "table": "timesheet", "header": "Std-Anz", "means": "hours"}]
    folder.facts = [{**facts[0], "learned": "2026-09", "version": 1}]
    result = folder.times(*ROWS, header=UNKNOWN.replace("Std-Anz", "STD ANZ.")).compute()
    assert result["questions"] == []
    assert result["outputs"]["total_hours"] == "15.5"
    (used,) = result["used_facts"]
    assert used["files"] == ["timesheet.csv"]
    assert used["sentence"] == "“STD ANZ.” was read as hours, as you said in 2026-09."


def test_one_question_serves_all_files_with_the_same_headers(folder: Folder) -> None:
    folder.times(*ROWS, header=UNKNOWN).times(*ROWS, header=UNKNOWN, name="timesheet-2.csv")
    assert ask(folder)["files"] == ["timesheet-2.csv", "timesheet.csv"]


def test_the_id_of_a_question_depends_on_what_is_asked_alone(folder: Folder) -> None:
    first = ask(folder.times(*ROWS, header=UNKNOWN))
    second = ask(folder.times("2026-10-07,X,y,1,2,USD,z", header=UNKNOWN))
    assert first["id"] == second["id"]


def test_none_of_these_is_remembered_too(folder: Folder) -> None:
    folder.facts = facts_from_answer(ask(folder.times(*ROWS, header=UNKNOWN)), "None of these")
    result = folder.compute()
    assert result["questions"] == []
    assert places(result["outputs"]) == [("timesheet.csv", 0, "MISSING_COLUMNS")]


def test_a_later_fact_overrides_an_earlier_one(folder: Folder) -> None:
    none, hours = (
        facts_from_answer(ask(folder.times(*ROWS, header=UNKNOWN)), answer)
        for answer in ("none of these", "Std-Anz")
    )
    folder.facts = [{**hours[0], "learned": "2026-09"}, {**none[0], "learned": "2026-08"}]
    assert folder.outputs()["total_hours"] == "15.5"
    folder.facts = [{**hours[0], "learned": "2026-08"}, {**none[0], "learned": "2026-09"}]
    assert folder.compute()["questions"] == []
    assert folder.outputs()["total_hours"] == "0"


def test_two_unknown_headers_are_asked_one_by_one(folder: Folder) -> None:
    folder.times("2026-10-05,A,8,b,100,EUR", header="date,Vorhaben,Anz,task,Preis je h,currency")
    result = folder.compute()
    assert {q["text"]: q["options"] for q in result["questions"]} == {
        "Which column is project?": ["Vorhaben", "none of these"],
        "Which column is hours?": ["Anz", "none of these"],
        "Which column is rate?": ["Anz", "Preis je h", "none of these"],
    }
    answers = {"project": "Vorhaben", "hours": "Anz", "rate": "Preis je h"}
    for question in result["questions"]:
        folder.facts += facts_from_answer(question, answers[question["fact"]["means"]])
    assert folder.outputs()["billed"] == {"EUR": "800.00"}


def test_no_question_where_no_answer_could_help(folder: Folder) -> None:
    result = folder.times(
        "2026-10-05,A,b,100,EUR,fine", header="date,project,task,rate,currency,comment"
    ).compute()
    assert result["questions"] == []
    assert places(result["outputs"]) == [("timesheet.csv", 0, "MISSING_COLUMNS")]


def test_two_equally_good_headers_are_a_question(folder: Folder) -> None:
    folder.invoices(
        "R1;1.10.2026;2.10.2026;5;EUR;offen", header="Nr.;Datum;Rechnungsdatum;Betrag;Währung;Status"
    )
    question = ask(folder)
    assert question["options"] == ["Datum", "Rechnungsdatum", "none of these"]
    folder.facts = facts_from_answer(question, "Rechnungsdatum")
    result = folder.compute()
    assert result["invoices"][0]["date"] == "2026-10-02"


def test_an_unknown_currency_rejects_its_rows_and_asks_once(folder: Folder) -> None:
    folder.times("2026-10-05,A,b,1,100,Fränkli", "2026-10-06,A,b,1,100,EUR", "2026-10-07,A,b,1,100,fränkli ")
    folder.invoices("R1,2026-10-05,,7,FRÄNKLI,open,", header=INVOICES)
    result = folder.compute()
    (question,) = result["questions"]
    assert question["text"] == "Which currency is “FRÄNKLI”?"
    assert question["options"][:2] == ["EUR", "USD"]
    assert result["outputs"]["billed"] == {"EUR": "100.00"}
    assert [code for _, _, code in places(result["outputs"])] == ["UNKNOWN_CURRENCY"] * 3
    folder.facts = [{**fact, "learned": "2026-10"} for fact in facts_from_answer(question, "chf")]
    result = folder.compute()
    assert result["outputs"]["billed"] == {"CHF": "200.00", "EUR": "100.00"}
    assert (result["used_facts"][0]["rows"], result["questions"]) == (3, [])


def test_any_iso_code_answers_a_question_about_a_currency(folder: Folder) -> None:
    question = ask(folder.times("2026-10-05,A,b,1,100,Kronor"))
    assert facts_from_answer(question, " sek ") == [
        {"kind": "currency", "spelling": "Kronor", "means": "SEK"}
    ]
    with pytest.raises(TerminalError, match="“Goldstücke” is not an answer") as refused:
        facts_from_answer(question, "Goldstücke")
    assert refused.value.code == "BAD_ANSWER"


def test_a_currency_that_is_none_stays_rejected_and_is_not_asked_again(folder: Folder) -> None:
    folder.facts = facts_from_answer(ask(folder.times("2026-10-05,A,b,1,100,Punkte")), "none of these")
    result = folder.compute()
    assert result["questions"] == []
    assert reasons(result["outputs"]) == {2: "UNKNOWN_CURRENCY"}


def test_a_row_that_is_wrong_anyway_asks_nothing(folder: Folder) -> None:
    assert (
        folder.times("2026-09-05,A,b,1,100,Taler", "2026-10-05,A,b,99,100,Taler").compute()["questions"] == []
    )


@pytest.mark.parametrize("spelling", ["12", "5 EUR", "x" * 30])
def test_what_can_be_no_currency_is_not_asked(folder: Folder, spelling: str) -> None:
    assert folder.times(f"2026-10-05,A,b,1,100,{spelling}").compute()["questions"] == []


def test_a_fact_that_makes_no_sense_is_a_warning(folder: Folder) -> None:
    folder.facts = [{"kind": "column", "table": "timesheet", "header": "x", "means": "colour"}, {"kind": "?"}]
    result = folder.times("2026-10-05,A,b,1,100,EUR", header=TIMES).compute()
    assert [warning["code"] for warning in result["warnings"]] == ["UNUSABLE_FACT"] * 2
    assert result["outputs"]["total_hours"] == "1"
