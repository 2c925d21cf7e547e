"""`aios approval …`: see what waits for a person, and decide."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from aios_cli.options import command, given, group

if TYPE_CHECKING:
    from aios.run.v1.state_pb2 import Approval, ApprovalState
    from aios_cli.session import Session

app = group("See what waits for you, and decide.")

MAX_ALL_LINES = 1_000_000

ApprovalId = Annotated[
    str,
    typer.Argument(
        metavar="[APPROVAL]", help="Its id or its last characters; without: the only one that waits."
    ),
]
Note = Annotated[str, typer.Option("--note", help="A note, kept in the story.", show_default=False)]
Wait = Annotated[
    bool, typer.Option("--wait/--no-wait", help="Then follow the run until it ends or needs you again.")
]
RequestId = Annotated[str | None, typer.Option("--request-id", help="Makes repeating the command safe.")]
Seen = Annotated[
    str,
    typer.Option(
        "--seen",
        metavar="SHA256",
        help="arguments_sha256 of what you looked at: decide for that alone.",
        show_default=False,
    ),
]


@command(app, "list")
def list_(
    all_: Annotated[bool, typer.Option("--all", help="Also what was decided.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, max=200)] = 20,
) -> None:
    """List what waits for you."""
    from aios.api.v1 import api_pb2
    from aios_cli import shapes
    from aios_cli.output import console, print_json, say
    from aios_cli.session import Session
    from aios_cli.views import approval as view
    from aios_core.minting import now_ms

    with Session() as session:
        request = api_pb2.ListApprovalsRequest(open_only=not all_, page_size=limit)
        found = session.listed(session.client.approvals.ListApprovals, request, "approvals", limit)
    if given.json:
        print_json([shapes.approval(item) for item in found])
    elif found:
        console().print(view.listing(list(found), now_ms()))
    else:
        say("Nothing waits for you.")


@command(app, "show")
def show(
    approval: ApprovalId = "",
    open_: Annotated[bool, typer.Option("--open", help="Show it in the browser, as it will look.")] = False,
    all_: Annotated[bool, typer.Option("--all", help="Every line, however long.")] = False,
) -> None:
    """Show the exact bytes that would be written, why, and what could go wrong."""
    from aios_cli import documents, shapes
    from aios_cli.output import console, hint, print_json
    from aios_cli.session import Session
    from aios_cli.views import approval as view
    from aios_core.minting import now_ms

    with Session() as session:
        item = _read(session, approval, preview=True)
        if given.json:
            print_json(shapes.approval(item))
            return
        found = list(documents.of(session.client, item))
    lines = MAX_ALL_LINES if all_ else view.MAX_LINES
    console().print(view.approval(item, found, now_ms(), lines))
    if open_:
        _open_preview(item, found)
    hint(view.next_steps(item))


@command(app, "approve")
def approve(
    approval: ApprovalId = "",
    note: Note = "",
    wait: Wait = False,
    seen: Seen = "",
    request_id: RequestId = None,
) -> None:
    """Approve exactly what `aios approval show` shows."""
    from aios.run.v1.state_pb2 import ApprovalState

    _decide(approval, ApprovalState.APPROVAL_STATE_APPROVED, note, wait, seen, request_id)


@command(app, "reject")
def reject(
    approval: ApprovalId = "",
    note: Note = "",
    wait: Wait = False,
    seen: Seen = "",
    request_id: RequestId = None,
) -> None:
    """Refuse it: nothing of it is written."""
    from aios.run.v1.state_pb2 import ApprovalState

    _decide(approval, ApprovalState.APPROVAL_STATE_REJECTED, note, wait, seen, request_id)


@command(app, "answer")
def answer(
    approval: Annotated[
        str, typer.Argument(metavar="[APPROVAL]", help="Its id or its last characters.")
    ] = "",
    text: Annotated[
        str, typer.Argument(metavar="[ANSWER]", help="The answer, where there is one question.")
    ] = "",
    answers: Annotated[
        list[str] | None,
        typer.Option("--answer", "-a", metavar="QUESTION=TEXT", help="An answer; repeatable."),
    ] = None,
    note: Note = "",
    wait: Wait = False,
    request_id: RequestId = None,
) -> None:
    """Answer questions, such as which column holds the hours; asks for each on a terminal."""
    from aios.run.v1.state_pb2 import ApprovalState
    from aios_cli import asking
    from aios_cli.session import Session

    with Session() as session:
        item = _read(session, approval)
        said = asking.answers(item, text, answers or [])
        _send(session, item, ApprovalState.APPROVAL_STATE_ANSWERED, note, wait, "", request_id, said)


@command(app, "edit")
def edit(
    approval: ApprovalId = "",
    pairs: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="A field, such as entry.text=Hello; repeatable."),
    ] = None,
    editor: Annotated[bool, typer.Option("--editor", help="Edit the arguments as JSON.")] = False,
    step: Annotated[str, typer.Option("--step", help="Which step, where it proposes several.")] = "",
    note: Note = "",
    seen: Seen = "",
    request_id: RequestId = None,
) -> None:
    """Change what would run. What you made of it needs an approval of its own."""
    from aios.api.v1 import api_pb2
    from aios_cli import editing, inputs, shapes
    from aios_cli.output import hint, print_json, say
    from aios_cli.session import Session
    from aios_cli.views import approval as view
    from aios_cli.words import short
    from aios_core.errors import TerminalError
    from aios_core.minting import mint

    if bool(pairs) == editor:
        raise TerminalError("INVALID_ARGUMENT", "Give --set PATH=VALUE, or --editor.", field="set")
    with Session() as session:
        item = _read(session, approval)
        proposed = editing.chosen(item, step)
        data = editing.in_editor(proposed) if editor else editing.changed(proposed, pairs or [])
        request = api_pb2.EditApprovalRequest(
            request_id=mint("req") if request_id is None else request_id,
            approval_id=item.approval_id,
            step=proposed.step,
            arguments=inputs.to_value(data),
            arguments_sha256=_hash(seen) if seen else item.arguments_sha256,
            note=note,
        )
        answer = session.client.call(session.client.approvals.EditApproval, request)
        new = answer.approval
    if given.json:
        print_json({**shapes.approval(new), "unchecked": answer.unchecked or None})
        return
    if answer.unchecked:
        say(f"Whether it is what the action takes could not be asked: {answer.unchecked}")
    say(f"Changed. Approval {short(new.approval_id)} takes its place: look at it, then decide.")
    hint(view.next_steps(new))


def _decide(
    approval: str,
    decision: "ApprovalState.ValueType",
    note: str,
    wait: bool,
    seen: str,
    request_id: str | None,
) -> None:
    from aios_cli.session import Session

    with Session() as session:
        _send(session, _read(session, approval), decision, note, wait, seen, request_id, None)


def _send(
    session: "Session",
    item: "Approval",
    decision: "ApprovalState.ValueType",
    note: str,
    wait: bool,
    seen: str,
    request_id: str | None,
    answers: Any,
) -> None:
    """Decide, bound to what was shown, and say what follows."""
    from aios.api.v1 import api_pb2
    from aios.run.v1.state_pb2 import ApprovalState
    from aios_cli import inputs, shapes
    from aios_cli.output import print_json, say
    from aios_cli.words import DECIDED, short
    from aios_core.minting import mint

    request = api_pb2.DecideApprovalRequest(
        request_id=mint("req") if request_id is None else request_id,
        approval_id=item.approval_id,
        decision=decision,
        note=note,
        arguments_sha256=_hash(seen) if seen else item.arguments_sha256,
    )
    if answers is not None:
        request.answers.CopyFrom(inputs.to_value(answers))
    before = session.run(item.run_id).sequence if wait else 0
    decided = session.client.call(session.client.approvals.DecideApproval, request).approval
    if wait:
        _follow(session, item.run_id, before)
    if given.json:
        print_json(shapes.approval(decided))
        return
    left = decided.need - len(decided.assents)
    if decided.state == ApprovalState.APPROVAL_STATE_OPEN and left > 0:
        say(f"Approved by you; {left} more of the approvers {'has' if left == 1 else 'have'} to.")
        return
    say(f"{DECIDED.get(decided.state, 'Decided').capitalize()}.")
    say(f"Follow the run with: aios run watch {short(item.run_id)}", "dim")


def _follow(session: "Session", run_id: str, after: int) -> None:
    from aios_cli.commands.runs import _finish, _show_result, followed

    _finish(followed(session, run_id, after=after), _show_result)


def _read(session: "Session", text: str, *, preview: bool = False) -> "Approval":
    from aios.api.v1 import api_pb2
    from aios_cli import pick

    client = session.client
    request = api_pb2.GetApprovalRequest(approval_id=pick.approval(client, text), preview=preview)
    return client.call(client.approvals.GetApproval, request).approval


def _hash(text: str) -> bytes:
    from aios_core.errors import TerminalError

    try:
        return bytes.fromhex(text)
    except ValueError:
        raise TerminalError("INVALID_ARGUMENT", "--seen must be a SHA-256 in hex.", field="seen") from None


def _open_preview(item: "Approval", documents: Any) -> None:
    """A page in a file of this person alone, shown by the browser if there is one."""
    import tempfile
    import webbrowser

    from aios_cli.output import say
    from aios_cli.views.preview import page

    with tempfile.NamedTemporaryFile(
        "w", prefix="aios-approval-", suffix=".html", delete=False, encoding="utf-8"
    ) as file:
        file.write(page(item, documents))
    opened = webbrowser.open(f"file://{file.name}")
    say(f"{'Opened' if opened else 'No browser here; the page is'} {file.name}", "dim")
