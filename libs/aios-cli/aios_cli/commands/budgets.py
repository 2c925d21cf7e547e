"""`aios budget …`: what is held, what was spent, and what is left."""

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aios_cli.options import command, given, group

if TYPE_CHECKING:
    from rich.text import Text

    from aios.run.v1.budget_pb2 import AccountView

app = group("See what was spent, in which accounts, and what budgets have left.")

KINDS = ("budget", "month", "workflow", "customer", "run", "task")
BAR_CHARS = 20
PAGE = 200
MAX_SHOWN = 2_000


@command(app, "show")
def show(
    by: Annotated[
        str,
        typer.Option("--by", metavar="KIND", help=f"{', '.join(KINDS)}; without it all but the last two."),
    ] = "",
    month: Annotated[
        str, typer.Option("--month", metavar="YYYY-MM", help="Of that month, this one without it.")
    ] = "",
    run: Annotated[str, typer.Option("--run", help="With `--by task`: the run.", show_default=False)] = "",
) -> None:
    """Show what is held, was spent and is left: by account, by run, or of a run by task."""
    from aios_cli.output import print_json, say
    from aios_core.errors import TerminalError

    if by and by not in KINDS:
        raise TerminalError("INVALID_ARGUMENT", f"--by: one of {', '.join(KINDS)}.", field="by")
    if bool(run) != (by == "task"):
        raise TerminalError("INVALID_ARGUMENT", "--by task needs --run, and nothing else does.", field="run")
    which = _month(month)
    found = list(_tasks(run) if run else _runs(which) if by == "run" else _accounts(by, which))
    if given.json:
        print_json([_shape(item) for item in found])
    elif found:
        _print(found)
    else:
        say(f"Nothing was spent in {which}.")


@command(app, "history")
def history(name: Annotated[str, typer.Argument(metavar="NAME", help="The budget's name.")]) -> None:
    """Show what was spent of a budget, period by period."""
    from aios_cli.output import print_json, say
    from aios_core.errors import TerminalError
    from aios_core.ids import check_name

    found = list(_found(f"budget/{check_name(name, 'name')}/"))
    if not found:
        raise TerminalError("NOT_FOUND", f"Nothing was held or spent under a budget {name!r}.", field="name")
    if given.json:
        print_json([_shape(item) for item in found])
        return
    _print(found)
    say("What each was raised to, and by whom, stands in the runs that asked.", "dim")


@command(app, "list")
def list_() -> None:
    """List the budgets with what they allow."""
    from aios_cli.output import print_json, say
    from aios_cli.session import Session
    from aios_core.json_values import loads

    with Session() as session:
        found = session.resources("Budget")
    documents: list[Any] = [loads(item.document) for item in found]
    if given.json:
        print_json([{"name": item["metadata"]["name"], **item["spec"]} for item in documents])
        return
    if not documents:
        say("There are none; apply a document of kind Budget.")
    for item in documents:
        spec = item["spec"]
        scope = spec.get("scope", "workspace")
        whose = scope if scope == "workspace" else f"{scope} {spec.get('of', '(each)')}"
        say(f"{item['metadata']['name']}  ${spec['cap']} per {spec.get('per', 'month')}, {whose}")


def _accounts(by: str, month: str) -> "Iterator[AccountView]":
    if by != "budget":
        yield from _found(f"month/{month}/{_UNDER.get(by, by)}")
    if by in ("", "budget"):
        yield from (item for item in _found("budget/") if _in_month(item.name, month))


def _runs(month: str) -> "Iterator[AccountView]":
    """The runs that began in a month, the newest first."""
    from datetime import UTC, datetime

    from aios.api.v1 import api_pb2
    from aios.run.v1.budget_pb2 import AccountView
    from aios_cli.session import Session

    with Session() as session:
        request = api_pb2.ListRunsRequest(page_size=PAGE)
        for item in islice(session.client.each(session.client.runs.ListRuns, request, "runs"), MAX_SHOWN):
            began = f"{datetime.fromtimestamp(item.create_time_ms / 1000, UTC):%Y-%m}"
            if began < month:
                return
            if began == month:
                yield AccountView(
                    name=f"run/{item.run_id}",
                    held_micros=item.held_micros,
                    settled_micros=item.cost_micros,
                    cap_micros=item.cap_micros,
                    capped=True,
                )


def _tasks(run: str) -> "Iterator[AccountView]":
    """The steps of a run that have cost something, or may."""
    from aios.api.v1 import api_pb2
    from aios.run.v1.budget_pb2 import AccountView
    from aios_cli import pick
    from aios_cli.session import Session

    with Session() as session:
        request = api_pb2.GetRunRequest(run_id=pick.run(session.client, run))
        for step in session.client.call(session.client.runs.GetRun, request).run.steps:
            if step.hold_micros or step.cost_micros:
                yield AccountView(
                    name=f"task/{step.step}", held_micros=step.hold_micros, settled_micros=step.cost_micros
                )


def _month(text: str) -> str:
    from datetime import UTC, datetime

    from aios_core.errors import TerminalError

    if not text:
        return f"{datetime.now(UTC):%Y-%m}"
    try:
        return f"{datetime.fromisoformat(f'{text}-01'):%Y-%m}"
    except ValueError:
        raise TerminalError("INVALID_ARGUMENT", "--month: such as 2026-11.", field="month") from None


def _in_month(name: str, month: str) -> bool:
    period = name.split("/", 3)[2]
    return period == "total" or period.startswith(month)


def _found(prefix: str) -> "Iterator[AccountView]":
    from aios.api.v1 import api_pb2
    from aios_cli.session import Session

    with Session() as session:
        request = api_pb2.ListAccountsRequest(prefix=prefix, page_size=PAGE)
        found = session.client.each(session.client.budgets.ListAccounts, request, "accounts")
        yield from islice(found, MAX_SHOWN)


def _print(found: "list[AccountView]") -> None:
    from rich.table import Table

    from aios_cli import words
    from aios_cli.output import console
    from aios_core.money import format_usd

    table = Table("account", "spent", "held", "cap", "left", "", box=None, padding=(0, 2, 0, 0))
    for item in found:
        left = max(item.cap_micros - item.held_micros - item.settled_micros, 0)
        cap = format_usd(item.cap_micros) + (" (raised)" if item.raised else "")
        table.add_row(
            words.clean(item.name),
            format_usd(item.settled_micros),
            format_usd(item.held_micros) if item.held_micros else "",
            cap if item.capped else "",
            format_usd(left) if item.capped else "",
            _bar(item),
        )
    console().print(table)


def _bar(item: "AccountView") -> "Text":
    """How much of the cap was spent, and is held."""
    from rich.text import Text

    if not item.capped:
        return Text()
    whole = max(item.cap_micros, 1)
    spent = min(BAR_CHARS * item.settled_micros // whole, BAR_CHARS)
    held = min(-(-BAR_CHARS * item.held_micros // whole), BAR_CHARS - spent)
    tone = "red" if item.settled_micros + item.held_micros >= item.cap_micros else "green"
    return Text.assemble(
        ("█" * spent, tone), ("▒" * held, "yellow"), ("░" * (BAR_CHARS - spent - held), "dim")
    )


_UNDER = {"month": "workspace"}


def _shape(message: "AccountView") -> dict[str, Any]:
    """An account with what is held, was spent, and is left; amounts are US dollars."""
    from aios_cli.words import dollars

    left = max(message.cap_micros - message.held_micros - message.settled_micros, 0)
    return {
        "name": message.name,
        "held": dollars(message.held_micros),
        "settled": dollars(message.settled_micros),
        "cap": dollars(message.cap_micros) if message.capped else None,
        "left": dollars(left) if message.capped else None,
        "raised": message.raised,
        "charges": message.charges,
    }
