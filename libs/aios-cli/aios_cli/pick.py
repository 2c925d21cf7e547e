"""Full ids from what a person typed: the end or the beginning of one is enough where it is the only one."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from aios.api.v1 import api_pb2
from aios.run.v1.state_pb2 import RunState
from aios_cli.client import Client
from aios_core.errors import TerminalError

FULL_CHARS: Final = 26  # characters of an id after its prefix
PAGE: Final = 100
MAX_PAGES: Final = 10  # of a listing that is searched, the newest first
MIN_CHARS: Final = 3
ACTIVE: Final = (
    RunState.RUN_STATE_QUEUED,
    RunState.RUN_STATE_RUNNING,
    RunState.RUN_STATE_CANCELLING,
    RunState.RUN_STATE_UNDOING,
    RunState.RUN_STATE_REDOING,
)


def run(client: Client, text: str) -> str:
    """The id of a run."""
    if _full(text, "run_"):
        return text
    return _choose(text, "run", _run_ids(client))


def approval(client: Client, text: str) -> str:
    """The id of an approval; without any text the only one that is open."""
    if _full(text, "apr_"):
        return text
    if not text:
        listed = client.call(client.approvals.ListApprovals, api_pb2.ListApprovalsRequest(open_only=True))
        ids = [item.approval_id for item in listed.approvals]
        if len(ids) == 1 and not listed.next_page_token:
            return ids[0]
        many = f"More than {len(ids)}" if listed.next_page_token else str(len(ids))
        sentence = "Nothing waits for you." if not ids else f"{many} things wait for you; say which one."
        raise TerminalError("NOT_FOUND" if not ids else "INVALID_ARGUMENT", sentence, field="approval")
    return _choose(text, "approval", _approval_ids(client))


def _full(text: str, prefix: str) -> bool:
    return text.startswith(prefix) and len(text) >= len(prefix) + FULL_CHARS


def _choose(text: str, noun: str, ids: Iterable[str]) -> str:
    if len(text) < MIN_CHARS:
        raise TerminalError(
            "INVALID_ARGUMENT", f"{text!r} is too short; give at least {MIN_CHARS} characters.", field=noun
        )
    looked_at = list(dict.fromkeys(ids))
    found = [
        identifier
        for identifier in looked_at
        if identifier.endswith(text)
        or identifier.startswith(text)
        or identifier.partition("_")[2].startswith(text)
    ]
    if len(found) == 1:
        return found[0]
    if not found:
        many = len(looked_at) >= PAGE * MAX_PAGES
        among = (
            f" among the newest {PAGE * MAX_PAGES:,} and the open ones; of others give the whole id"
            if many
            else ""
        )
        raise TerminalError(
            "NOT_FOUND", f"There is no {noun} {text!r}{among}; see `aios {noun} list`.", field=noun
        )
    several = ", ".join(found[:3])
    raise TerminalError(
        "INVALID_ARGUMENT", f"{text!r} fits {len(found)}: {several}. Give more of it.", field=noun
    )


def _run_ids(client: Client) -> Iterator[str]:
    """The newest runs, and those that have not ended, however old they are."""

    def ask(token: str, states: Sequence[RunState.ValueType]) -> tuple[list[str], str]:
        request = api_pb2.ListRunsRequest(states=states, page_size=PAGE, page_token=token)
        listed = client.call(client.runs.ListRuns, request)
        return [item.run_id for item in listed.runs], listed.next_page_token

    yield from _pages(lambda token: ask(token, ()))
    yield from _pages(lambda token: ask(token, ACTIVE))


def _approval_ids(client: Client) -> Iterator[str]:
    """The newest approvals, and those that are open, however old they are."""

    def ask(token: str, open_only: bool) -> tuple[list[str], str]:
        request = api_pb2.ListApprovalsRequest(open_only=open_only, page_size=PAGE, page_token=token)
        listed = client.call(client.approvals.ListApprovals, request)
        return [item.approval_id for item in listed.approvals], listed.next_page_token

    yield from _pages(lambda token: ask(token, False))
    yield from _pages(lambda token: ask(token, True))


def _pages(ask: Callable[[str], tuple[list[str], str]]) -> Iterator[str]:
    token = ""
    for _ in range(MAX_PAGES):
        found, token = ask(token)
        yield from found
        if not token:
            return
