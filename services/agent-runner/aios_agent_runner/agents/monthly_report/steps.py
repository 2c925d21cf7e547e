"""The monthly report's agents as the workflow calls them: between memory's records and pointers, and the pure parts.

What the next steps decide on stays small and travels in the step's output; the whole computation is an artifact.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from aios_agent_runner.agents.monthly_report import compute as computation
from aios_agent_runner.agents.monthly_report import facts
from aios_agent_runner.agents.monthly_report import render as rendering
from aios_agent_runner.agents.monthly_report.currencies import PLACES
from aios_agent_runner.agents.monthly_report.folder import kind_of

COMPUTED: Final = "computed.json"
MAX_PROJECTS: Final = 20  # that the drafting agent hears of
MAX_USED_FACTS: Final = 50


def compute(request: dict[str, Any], files: Path, out: Path) -> dict[str, Any]:
    """Compute the month.

    request: {"client", "month", "files" and "ignored": of files.read_folder, "facts" and "history": records of
    memory.read}
    result: {"questions", "outputs", "used_facts": sentences, "by_project", "month_over_month", "figures"}; the whole
    computation lies in the artifact `computed.json`.
    """
    whole = computation.run(
        {
            "client": request["client"],
            "month": request["month"],
            "files": [*request["files"], *_unread(request.get("ignored") or [])],
            "facts": [fact for record in request["facts"] for fact in _facts(record)],
            "history": [_past(record) for record in request["history"]],
        },
        files,
        out,
    )
    (out / COMPUTED).write_text(
        json.dumps(whole, ensure_ascii=False), encoding="utf-8", errors="surrogatepass"
    )
    return {
        "questions": [_asked(question) for question in whole["questions"]],
        "outputs": {
            name: value for name, value in whole["outputs"].items() if name != "rejected_rows_artifact"
        },
        "used_facts": [used["sentence"] for used in whole["used_facts"][:MAX_USED_FACTS]],
        "by_project": [
            {"project": item["project"], "hours": item["hours"]}
            for item in whole["by_project"][:MAX_PROJECTS]
        ],
        "month_over_month": whole["month_over_month"],
        "outliers": whole["outliers_total"],
        "warnings": whole["warnings_total"],
    }


def _unread(ignored: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Tables that lie in the folder and were not read (a link, too large): each is rejected whole, not passed over."""
    return [
        {"name": item["name"], "why": item.get("why")}
        for item in ignored
        if kind_of(str(item["name"])) is not None
    ]


def _facts(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    value = record.get("value") or {}
    marks = {"version": record.get("version"), "learned": value.get("learned")}
    return [{**fact, **marks} for fact in value.get("facts") or [] if isinstance(fact, dict)]


def _past(record: Mapping[str, Any]) -> dict[str, Any]:
    value = record.get("value") or {}
    rows = value.get("rows") or {}
    return {"month": value.get("month"), "figures": value.get("figures"), "rows_artifact": rows.get("path")}


def _asked(question: Mapping[str, Any]) -> dict[str, Any]:
    """The question with the pattern of what else answers it."""
    pattern = "(?i)(" + "|".join(sorted(PLACES)) + ")" if question["kind"] == "currency" else ""
    return {**question, "pattern": pattern}


def learn(request: dict[str, Any], files: Path, out: Path) -> dict[str, Any]:
    """Turn answers into facts for memory.

    request: {"client", "month", "answered": questions, each with its "answer"}; result: {"writes": of memory.write}
    """
    writes = []
    for question in request["answered"]:
        taught = facts.facts_from_answer(question, question["answer"])
        writes.append(
            {
                "kind": "fact",
                "key": f"client/{request['client']}/{question['id'].replace('.', '/')}",
                "expect": "any",
                "authority": "authoritative",
                "value": {
                    "question": question["text"],
                    "answer": question["answer"],
                    "learned": request["month"],
                    "facts": taught,
                },
                "note": f"learned: {question['text']} {question['answer']}"[:200],
            }
        )
    return {"writes": writes}


def render(request: dict[str, Any], files: Path, out: Path) -> dict[str, Any]:
    """Write report and review.

    request: {"client", "month", "run_id", "narrative", "written_by", "computed": the result of `compute` with its
    artifacts, "sources": the files that were read}
    result: {"index_entry", "why", "risk", "history": what later months need, "rejected_rows_all": pointer or None}
    """
    artifacts = request["computed"]["artifacts"]
    whole = json.loads(
        (files / artifacts[COMPUTED]["path"]).read_text(encoding="utf-8", errors="surrogatepass")
    )
    month = request["month"]
    done = rendering.run(
        {
            **whole,
            "client": request["client"],
            "client_name": request.get("client_name") or request["client"],
            "month": month,
            "run_id": request["run_id"],
            "narrative": request["narrative"],
            "evidence": _evidence(request),
        },
        files,
        out,
    )
    outputs = whole["outputs"]
    return {
        "index_entry": done["index_entry"],
        "why": _why(request, whole),
        "risk": _risk(whole),
        "history": {
            "month": month,
            "figures": {name: outputs[name] for name in ("total_hours", "billed", "invoiced", "outstanding")},
            "rows": _pointer(artifacts[whole["history_artifact"]]),
        },
        "rejected_rows_all": _pointer(artifacts.get(computation.REJECTED_ROWS_ARTIFACT)),
    }


def _evidence(request: Mapping[str, Any]) -> list[dict[str, Any]]:
    sources: Sequence[Mapping[str, Any]] = request["sources"]
    read = [
        {"file": source["name"], "sha256": source["sha256"], "bytes": source["size"]} for source in sources
    ]
    return [*read, {"words": f"drafted by {request['written_by']}"}]


def _pointer(pointer: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A pointer as it came, without the place of its file."""
    return {key: value for key, value in pointer.items() if key != "path"} if pointer else None


def _why(request: Mapping[str, Any], whole: Mapping[str, Any]) -> str:
    outputs = whole["outputs"]
    billed = ", ".join(f"{amount} {currency}" for currency, amount in outputs["billed"].items()) or "nothing"
    parts = [
        f"{_count(len(request['sources']), 'file was', 'files were')} read of {request['client']} for "
        f"{request['month']}; {_count(outputs['accepted_rows'], 'row counts', 'rows count')}: "
        f"{outputs['total_hours']} {'hour' if outputs['total_hours'] == '1' else 'hours'}, {billed} billed.",
        *[used["sentence"] for used in whole["used_facts"][:MAX_USED_FACTS]],
    ]
    return " ".join(parts)


def _count(number: int, one: str, several: str) -> str:
    return f"{number} {one if number == 1 else several}"


def _risk(whole: Mapping[str, Any]) -> str:
    outputs = whole["outputs"]
    parts = []
    if outputs["rejected_rows_total"]:
        codes = outputs["rejected_by_code"].items()
        reasons = ", ".join(f"{count} × {code.replace('_', ' ').lower()}" for code, count in codes)
        rejected = _count(outputs["rejected_rows_total"], "row is", "rows are")
        parts.append(f"{rejected} not counted ({reasons}); see the review.")
    if whole["outliers_total"]:
        parts.append(f"{_count(whole['outliers_total'], 'row looks', 'rows look')} unusual.")
    if whole["warnings_total"]:
        parts.append(f"{_count(whole['warnings_total'], 'warning', 'warnings')}.")
    if whole["questions"]:
        still = _count(len(whole["questions"]), "question is", "questions are")
        parts.append(f"{still} still open; what depends on it is not counted.")
    if whole["client_notes"]:
        parts.append("Notes from the section “For the client” are in the report: read them.")
    return " ".join(parts) or "Every row counts, and nothing looks unusual."
