"""The monthly report's documents: a code agent that writes the report and the review from the figures.

`report` is for the client: figures, narrative, projects, invoices, and the notes meant for the client.
`review` is for the owner: what was not counted and why, what stands out, what was asked and learned, and from
which files all of it comes. Everything that came from a file or a model is text here: both formats escape it
where it is written.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from jinja2 import FileSystemLoader, StrictUndefined
from jinja2.sandbox import SandboxedEnvironment
from markupsafe import Markup

from aios_agent_runner.agents.monthly_report import charts, display

DOCUMENTS: Final = ("report.md", "report.html", "review.md", "review.html")
MAX_PARAGRAPHS: Final = 40
MAX_EVIDENCE: Final = 200

_TEMPLATES = Path(__file__).parent / "templates"


def run(request: dict[str, Any], files: Path, out: Path) -> dict[str, Any]:
    """Write report and review, each as Markdown and HTML, into `out`.

    request: the result of `compute.run`, and {"client", "client_name", "month", "narrative": str, "run_id": str,
        "evidence": list of texts or of objects with text values}
    result: {"artifacts": the names in `out`, "index_entry": {"client", "client_name", "month", "title",
        "run_id", "report", "review", the four figures, "accepted_rows", "rejected_rows"}}
    The same request gives the same bytes.
    """
    view = _view(request)
    for name in DOCUMENTS:
        environment = _html() if name.endswith(".html") else _markdown()
        text = environment.get_template(f"{name}.j2").render(view)
        (out / name).write_bytes(text.encode("utf-8", "replace"))
    return {"artifacts": list(DOCUMENTS), "index_entry": _index_entry(view)}


def _view(request: Mapping[str, Any]) -> dict[str, Any]:
    """What the templates see."""
    outputs, month = request["outputs"], request["month"]
    hours = {
        earlier: figures.get("total_hours", "0") for earlier, figures in request["earlier_months"].items()
    }
    hours[month] = outputs["total_hours"]
    view = dict(request)
    view["client_name"] = request.get("client_name") or request["client"]
    view["month_name"] = display.month_name(month)
    view["paragraphs"] = _paragraphs(request.get("narrative") or "")
    view["run_id"] = request.get("run_id") or ""
    view["evidence"] = [_evidence(item) for item in (request.get("evidence") or [])[:MAX_EVIDENCE]]
    view["charts"] = {
        "projects": charts.hours_by_project(request["by_project"], outputs["total_hours"]),
        "days": charts.hours_by_day(request["by_day"], month),
        "months": charts.hours_by_month(hours),
    }
    view["rounding_shows"] = display.rounding_shows(request["by_project"], outputs["billed"])
    view["changes"] = _changes(request["month_over_month"])
    view["reviewed"] = outputs["rejected_rows_total"] + len(request["questions"]) + request["outliers_total"]
    return view


def _paragraphs(text: str) -> list[str]:
    blocks = text.replace("\r\n", "\n").replace("\r", "\n").split("\n\n")
    return [block for block in map(display.clean, blocks) if block][:MAX_PARAGRAPHS]


def _evidence(item: object) -> list[tuple[str, str]]:
    """One piece of evidence as (name, text) pairs."""
    if isinstance(item, Mapping):
        return [(str(key), str(value)) for key, value in item.items() if value is not None]
    return [("", str(item))]


def _changes(month_over_month: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of the month over month table."""
    if not month_over_month:
        return []
    rows = [{"figure": "Hours", "currency": "", **month_over_month["total_hours"]}]
    for name in ("billed", "invoiced", "outstanding"):
        for currency, change in month_over_month[name].items():
            rows.append({"figure": name.capitalize(), "currency": currency, **change})
    return rows


def _html() -> SandboxedEnvironment:
    environment = _environment(
        autoescape=True, finalize=lambda value: value if isinstance(value, Markup) else display.clean(value)
    )
    environment.filters["number"] = display.number_html
    environment.filters["emphasis"] = display.emphasis_html
    return environment


def _markdown() -> SandboxedEnvironment:
    environment = _environment(autoescape=False, finalize=display.markdown)
    environment.filters["number"] = display.markdown_number
    environment.filters["line"] = display.markdown_line
    environment.filters["emphasis"] = display.emphasis_markdown
    return environment


def _environment(*, autoescape: bool, finalize: Callable[[object], str]) -> SandboxedEnvironment:
    environment = SandboxedEnvironment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=autoescape,
        finalize=finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(signed=display.signed, day=display.day_name, month=display.month_name)
    return environment


def _index_entry(view: Mapping[str, Any]) -> dict[str, Any]:
    outputs = view["outputs"]
    return {
        "client": view["client"],
        "client_name": view["client_name"],
        "month": view["month"],
        "title": f"{display.clean(view['client_name'])}, {view['month_name']}",
        "run_id": view["run_id"],
        "report": "report.html",
        "review": "review.html",
        **{
            name: outputs[name]
            for name in ("total_hours", "billed", "invoiced", "outstanding", "accepted_rows")
        },
        "rejected_rows": outputs["rejected_rows_total"],
    }
