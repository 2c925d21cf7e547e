"""Full ids from what a person typed: the end or the beginning of one is enough where it is the only one."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

from aios.api.v1 import api_pb2
from aios_cli.client import Client
from aios_core.errors import TerminalError
from aios_runtime.run_states import ACTIVE

FULL_CHARS: Final = 26  # characters of an id after its prefix
PAGE: Final = 100
MAX_LOOKED_AT: Final = 1_000  # of a listing that is searched, the newest first
MIN_CHARS: Final = 3


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
        among = ""
        if len(looked_at) >= MAX_LOOKED_AT:
            among = f" among the newest {MAX_LOOKED_AT:,} and the open ones; of others give the whole id"
        raise TerminalError(
            "NOT_FOUND", f"There is no {noun} {text!r}{among}; see `aios {noun} list`.", field=noun
        )
    several = ", ".join(found[:3])
    raise TerminalError(
        "INVALID_ARGUMENT", f"{text!r} fits {len(found)}: {several}. Give more of it.", field=noun
    )


def _run_ids(client: Client) -> Iterator[str]:
    """The newest runs, and those that have not ended, however old they are."""
    for states in ((), ACTIVE):
        request = api_pb2.ListRunsRequest(states=states, page_size=PAGE)
        for item in islice(client.each(client.runs.ListRuns, request, "runs"), MAX_LOOKED_AT):
            yield item.run_id


def _approval_ids(client: Client) -> Iterator[str]:
    """The newest approvals, and those that are open, however old they are."""
    for open_only in (False, True):
        request = api_pb2.ListApprovalsRequest(open_only=open_only, page_size=PAGE)
        for item in islice(client.each(client.approvals.ListApprovals, request, "approvals"), MAX_LOOKED_AT):
            yield item.approval_id
