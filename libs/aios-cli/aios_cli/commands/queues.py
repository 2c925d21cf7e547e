"""`aios queue …`: what waits for a place on its lane."""

from typing import TYPE_CHECKING

from aios_cli.options import command, given, group

if TYPE_CHECKING:
    from aios.api.v1 import api_pb2

app = group("See what waits, what is out, and which limits hold.")


@command(app, "show")
def show() -> None:
    """Show each lane: tasks that are out, tasks that wait, for whom, and how long the oldest has waited."""
    from aios.api.v1 import api_pb2
    from aios_cli.output import print_json, say
    from aios_cli.session import Session
    from aios_cli.views import queues

    with Session() as session:
        answer = session.client.call(session.client.queues.ShowQueues, api_pb2.ShowQueuesRequest())
    if given.json:
        print_json(queues.shape(answer))
    elif answer.lanes or answer.limits:
        _print(answer)
    else:
        say("Nothing waits, and nothing has been handed out yet.")


def _print(answer: "api_pb2.ShowQueuesResponse") -> None:
    from rich.table import Table

    from aios_cli import words
    from aios_cli.output import console

    table = Table.grid(padding=(0, 2))
    for lane in answer.lanes:
        oldest = f"the oldest for {words.duration(lane.oldest_ms) or '0 s'}" if lane.waiting else ""
        table.add_row(
            words.clean(lane.lane), f"{lane.in_flight} of {lane.window} out", f"{lane.waiting} wait", oldest
        )
        for part in lane.backlog:
            whose = f", {words.clean(part.customer)}" if part.customer else ""
            table.add_row(
                f"  priority {part.priority}",
                words.clean(part.workflow) + whose,
                f"{part.waiting} wait",
                f"the oldest for {words.duration(part.oldest_ms) or '0 s'}",
            )
    for limit in answer.limits:
        said = [f"{limit.in_flight} of {limit.limit} out"] if limit.limit else []
        said += [f"{limit.rate} in {words.duration(limit.per_ms)}"] if limit.rate else []
        said += [f"weight {limit.weight}"] if limit.weight != 1 else []
        table.add_row(
            f"limit {words.clean(limit.name)}", f"{limit.scope} {words.clean(limit.of)}", ", ".join(said), ""
        )
    console().print(table)
