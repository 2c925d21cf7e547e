"""The charts of the report, as SVG that stands inside the page. The same figures give the same bytes.

matplotlib is imported when a chart is drawn, since that takes longer than all the rest of an agent's start.
"""

import io
import os
import re
import tempfile
from calendar import monthrange
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from markupsafe import Markup

from aios_agent_runner.agents.monthly_report.display import clean, grouped, month_name, short_month

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH: Final = 420
"""Pixels of the drawing; it is scaled with the page, so this sets how large the text is beside it."""
MAX_BARS: Final = 8
"""Projects drawn one by one; the rest make one bar."""
MAX_LABEL_CHARS: Final = 22

INK, MUTED, GRID, ACCENT, SOFT = "#243b53", "#627d98", "#d9e2ec", "#2f6f9f", "#b3cde0"
_FONT_SIZE: Final = 12 * 0.75  # points of 12 px at 96 px an inch

_STYLE: Final[Any] = {  # Any: the keys are not plain text to type checkers
    "svg.fonttype": "none",  # text stays text: it is found, read aloud and printed in the page's font
    "text.parse_math": False,  # a project named $x$ is a name
    "font.family": ["DejaVu Sans"],  # ships with matplotlib, so widths are the same everywhere
    "font.size": _FONT_SIZE,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "xtick.color": MUTED,
    "ytick.color": INK,
}


def hours_by_project(projects: Sequence[Mapping[str, Any]], total_hours: str) -> Markup:
    """Horizontal bars, most hours first; empty without projects."""
    if not projects:
        return Markup("")
    names = [_short(project["project"]) for project in projects[:MAX_BARS]]
    hours = [Decimal(project["hours"]) for project in projects[:MAX_BARS]]
    rest = Decimal(total_hours) - sum(hours)
    if rest > 0:
        names.append("other projects")
        hours.append(rest)

    def draw(axes: "Axes") -> None:
        values = [float(value) for value in hours]
        colors = [ACCENT if name != "other projects" else SOFT for name in names]
        axes.barh(range(len(names)), values, height=0.62, color=colors)
        for row, value in enumerate(hours):
            axes.annotate(_hours(value), (float(value), row), (6, 0), textcoords="offset points", va="center")
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.set_xlim(0, max(values) * 1.22)
        axes.xaxis.set_visible(False)

    told = ", ".join(f"{name} {_hours(value)}" for name, value in zip(names, hours, strict=True))
    return _svg(draw, 34 + 30 * len(names), f"Hours by project: {told}.", "projects")


def hours_by_day(days: Mapping[str, str], month: str) -> Markup:
    """One bar a day of the month; empty without days."""
    if not days:
        return Markup("")
    length = monthrange(int(month[:4]), int(month[5:]))[1]
    values = [float(days.get(f"{month}-{day:02d}", "0")) for day in range(1, length + 1)]

    def draw(axes: "Axes") -> None:
        axes.bar(range(1, length + 1), values, width=0.7, color=ACCENT)
        axes.set_xticks([1, 5, 10, 15, 20, 25, length])
        axes.set_xlim(0.3, length + 0.7)
        _hour_lines(axes)

    most = max(days, key=lambda day: (Decimal(days[day]), day))
    told = (
        f"Hours of each day of {month_name(month)}: {len(days)} days with work, most on day {int(most[8:])} "
    )
    return _svg(draw, 230, f"{told}with {_hours(Decimal(days[most]))}.", "days")


def hours_by_month(hours: Mapping[str, str]) -> Markup:
    """One bar a month, the last one in full colour; empty with fewer than two months."""
    if len(hours) < 2:
        return Markup("")
    months = sorted(hours)
    values = [float(hours[month]) for month in months]

    def draw(axes: "Axes") -> None:
        axes.bar(range(len(months)), values, width=0.6, color=[SOFT] * (len(months) - 1) + [ACCENT])
        step = 1 if len(months) <= 7 else 2
        ticks = [index for index in range(len(months)) if (len(months) - 1 - index) % step == 0]
        axes.set_xticks(ticks, [short_month(months[index]) for index in ticks])
        axes.set_xlim(-0.7, len(months) - 0.3)
        _hour_lines(axes)

    told = ", ".join(f"{month_name(month)} {_hours(Decimal(hours[month]))}" for month in months)
    return _svg(draw, 230, f"Hours by month: {told}.", "months")


def _hour_lines(axes: "Axes") -> None:
    axes.yaxis.grid(True, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", colors=MUTED)
    axes.locator_params(axis="y", nbins=4)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g} h")
    axes.set_ylim(bottom=0)


def _svg(draw: Any, height: int, description: str, salt: str) -> Markup:
    """The drawing as an inline SVG element with its description; `salt` keeps the ids of drawings apart."""
    os.environ.setdefault("MPLCONFIGDIR", tempfile.gettempdir())  # it wants to keep a list of fonts somewhere
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE | {"svg.hashsalt": f"aios-monthly-report-{salt}"}):
        figure: Figure = Figure(figsize=(WIDTH / 96, height / 96), dpi=96, layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.tick_params(length=0)
        draw(axes)
        if salt == "projects":
            axes.spines["bottom"].set_visible(False)
        written = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(written, format="svg", transparent=True, metadata=nothing)
    return _inline(written.getvalue(), description, salt)


def _inline(document: str, description: str, salt: str) -> Markup:
    body = document[document.index("<svg") :]
    box = re.search(r'viewBox="([^"]+)"', body)
    assert box is not None
    inner = body[body.index(">") + 1 :]
    inner = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>|<!--.*?-->", "", inner, flags=re.DOTALL)
    inner = re.sub(r'<g id="[^"]*"', "<g", inner)
    inner = re.sub(r"\n\s*", "\n", inner)
    head = Markup(
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="{}" role="img" '
        'aria-labelledby="chart-{}"><title id="chart-{}">{}</title>'
    ).format(box[1], salt, salt, description)
    return head + Markup(inner.strip())  # noqa: S704  matplotlib has escaped the text in its own output


def _hours(value: Decimal) -> str:
    return f"{grouped(format(value.normalize() if value % 1 else value.to_integral_value(), 'f'))} h"


def _short(name: str) -> str:
    name = clean(name)
    return name if len(name) <= MAX_LABEL_CHARS else name[: MAX_LABEL_CHARS - 1].rstrip() + "…"
