"""Rows that differ from what the project was like before, and how the month compares with the last one.

A row's hours are an outlier if they differ from the median of the project's earlier rows by more than LIMIT
median absolute deviations (Leys et al. 2013 discuss the measure; the limit of 3.5 goes back to Iglewicz and
Hoaglin 1993). With fewer than MIN_ROWS earlier rows nothing is said. Where more than half of the earlier rows
are equal the median deviation is zero; then the mean absolute deviation takes its place, as Iglewicz and
Hoaglin advise; if that is zero too, every other value is an outlier.

A rate that the project never had before in that currency is reported once, with the number of rows that have
it.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from decimal import Decimal, localcontext
from typing import Any, Final

from aios_agent_runner.agents.monthly_report.currencies import EXACT, PLACES, plain, rounded
from aios_agent_runner.agents.monthly_report.dates import months_between
from aios_agent_runner.agents.monthly_report.figures import MAX_NAME_CHARS
from aios_agent_runner.agents.monthly_report.history import Past, Spread
from aios_agent_runner.agents.monthly_report.reasons import excerpt
from aios_agent_runner.agents.monthly_report.rows import TimeRow

LIMIT: Final = Decimal("3.5")
MIN_ROWS: Final = 5

_AMOUNT_MAPS: Final = ("billed", "invoiced", "outstanding")


def find_outliers(times: Iterable[TimeRow], past: Past) -> list[dict[str, Any]]:
    """The outliers by file and line; each has `file`, `line`, `field` (hours or rate) and a sentence."""
    usual = {project: _usual(spread) for project, spread in past.hours.items() if spread.total() >= MIN_ROWS}
    new_rates: Counter[tuple[str, str, Decimal]] = Counter()
    first: dict[tuple[str, str, Decimal], TimeRow] = {}
    found: list[dict[str, Any]] = []
    for row in times:
        if (known := usual.get(row.project)) and _deviation(row.hours, known[0]) > LIMIT * known[1]:
            found.append(_hours_outlier(row, known[0], past.hours[row.project].total()))
        spread = past.rates.get((row.project, row.currency))
        if spread is not None and spread.total() >= MIN_ROWS and row.rate not in spread:
            key = (row.project, row.currency, row.rate)
            new_rates[key] += 1
            first.setdefault(key, row)
    found += [_new_rate(first[key], count, past.rates[key[:2]]) for key, count in new_rates.items()]
    return sorted(found, key=lambda item: (item["file"], item["line"], item["field"]))


def _deviation(value: Decimal, middle: Decimal) -> Decimal:
    return EXACT.abs(EXACT.subtract(value, middle))


def _usual(spread: Spread) -> tuple[Decimal, Decimal]:
    """The median of the values, and their median (or else mean) absolute deviation from it."""
    with localcontext(EXACT):
        middle = median(spread)
        deviations: Spread = Counter()
        for value, count in spread.items():
            deviations[abs(value - middle)] += count
        deviation = median(deviations)
        if deviation == 0:
            deviation = (
                sum((value * count for value, count in deviations.items()), Decimal(0)) / deviations.total()
            )
        return middle, deviation


def median(spread: Mapping[Decimal, int]) -> Decimal:
    """The median of values with their counts; the mean of the middle two if their number is even."""
    ordered, total = sorted(spread.items()), sum(spread.values())
    low, high = (total - 1) // 2, total // 2
    seen = 0
    middle: list[Decimal] = []
    for value, count in ordered:
        for position in (low, high)[len(middle) :]:
            if position < seen + count:
                middle.append(value)
        seen += count
    return EXACT.divide(EXACT.add(middle[0], middle[1]), Decimal(2))


def _hours_outlier(row: TimeRow, usual: Decimal, rows: int) -> dict[str, Any]:
    hours = "1 hour" if row.hours == 1 else f"{plain(row.hours)} hours"
    middle = f"the {rows} earlier rows of the project have {plain(usual)} in the middle"
    return {
        "file": row.file,
        "line": row.line,
        "field": "hours",
        "project": row.project[:MAX_NAME_CHARS],
        "value": plain(row.hours),
        "usual": plain(usual),
        "rows": 1,
        "text": f"{hours} on {excerpt(row.project)}; {middle}.",
    }


def _new_rate(row: TimeRow, count: int, earlier: Spread) -> dict[str, Any]:
    usual = median(earlier)
    rows = "1 row" if count == 1 else f"{count} rows"
    text = f"A rate of {plain(row.rate)} {row.currency} on {excerpt(row.project)} in {rows}, new to the project; "
    text += f"{plain(usual)} was usual."
    return {
        "file": row.file,
        "line": row.line,
        "field": "rate",
        "project": row.project[:MAX_NAME_CHARS],
        "value": plain(row.rate),
        "usual": plain(usual),
        "rows": count,
        "text": text,
    }


def month_over_month(month: str, figures: Mapping[str, Any], past: Past) -> dict[str, Any]:
    """The change of each figure against the latest month that memory has; empty if it has none.

    {"previous", "months_ago", "total_hours": {"before", "now", "change", "percent"}, "billed": {currency: the
    same}, …}; a currency that one of the months lacks counts as 0 there; `percent` has one decimal place and
    is None after a 0.
    """
    if not past.figures:
        return {}
    previous = max(past.figures)
    before = past.figures[previous]
    result: dict[str, Any] = {"previous": previous, "months_ago": months_between(previous, month)}
    result["total_hours"] = _change(_number(before.get("total_hours")), Decimal(figures["total_hours"]), None)
    for name in _AMOUNT_MAPS:
        old = before.get(name)
        old = old if isinstance(old, dict) else {}
        codes = sorted(set(figures[name]) | {code for code in old if code in PLACES})
        result[name] = {
            code: _change(_number(old.get(code)), _number(figures[name].get(code)), code) for code in codes
        }
    return result


def _change(before: Decimal, now: Decimal, currency: str | None) -> dict[str, str | None]:
    def show(number: Decimal) -> str:
        return rounded(number, currency) if currency else plain(number)

    with localcontext(EXACT):
        change = now - before
        percent = format((change / abs(before) * 100).quantize(Decimal("0.1")), "f") if before else None
    return {"before": show(before), "now": show(now), "change": show(change), "percent": percent}


def _number(text: object) -> Decimal:
    try:
        number = Decimal(str(text)) if text is not None else Decimal(0)
    except ArithmeticError:
        return Decimal(0)
    return number if number.is_finite() else Decimal(0)
