"""Having failed runs go on: which ones, with what, and what would become of it."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import typer

from aios.api.v1 import api_pb2
from aios.run.v1.state_pb2 import Failure, Recovery
from aios_cli import inputs, shapes
from aios_cli import pick as ids
from aios_cli.client import Client
from aios_cli.files import read_text
from aios_core import json_values
from aios_core.encoding import decode_trusted
from aios_core.errors import AiosError, TerminalError
from aios_core.money import usd
from aios_core.values import Plain, plain

PAGE: Final = 100
MAX_ALL: Final = 10_000  # failures of one cause in one command


@dataclass(frozen=True, slots=True)
class Asked:
    """What a person wants done: `RETRY`, `SKIP`, `EDIT`, `REWIND`, `REPLAN` or `UNDO`, and with what."""

    action: str
    step: str
    why: str
    request_id: str
    value: Plain | None = None
    budget: str = ""
    pairs: Sequence[str] | None = None
    document: str | None = None

    def request(self, client: Client, run_id: str, dry_run: bool, several: bool) -> api_pb2.RecoverRunRequest:
        """The request for one run. Of several, each has a request id of its own."""
        request = api_pb2.RecoverRunRequest(
            request_id=f"{self.request_id}/{run_id}" if several else self.request_id,
            run_id=run_id,
            recovery=Recovery.Value(f"RECOVERY_{self.action}"),
            step=self.step,
            why=self.why,
            cap_micros=usd(self.budget) if self.budget else 0,
            dry_run=dry_run,
        )
        if self.value is not None:
            request.value.CopyFrom(inputs.to_value(self.value))
        elif self.pairs or self.document is not None:
            request.value.CopyFrom(inputs.to_value(self._input(client, run_id)))
        elif self.action == "EDIT":
            raise TerminalError(
                "INVALID_ARGUMENT", "Give the new input with --input or --input-json.", field="input"
            )
        return request

    def _input(self, client: Client, run_id: str) -> Plain:
        """The input that was given as JSON, or else that of the failed step, with the fields that were given anew."""
        data: Any = {}
        if self.document is not None:
            data = json_values.loads(read_text(self.document))
        elif self.action == "EDIT":
            before = failure(client, run_id)
            if before.input and self.step in ("", before.step):
                data = plain(decode_trusted(before.input))
        if not self.pairs:
            return data  # type: ignore[no-any-return]
        if not isinstance(data, Mapping):
            raise TerminalError(
                "INVALID_ARGUMENT", "The step's input has no fields; give --input-json.", field="input"
            )
        fields = dict(data)
        for pair in self.pairs:
            key, equals, text = pair.partition("=")
            if not equals or not key:
                raise TerminalError("INVALID_ARGUMENT", f"--input {pair!r} must be key=value.", field="input")
            fields[key] = inputs.typed(key, text, {"type": _KINDS.get(type(fields.get(key)), "string")})
        return fields


_KINDS: Final = {bool: "boolean", int: "integer", list: "array", dict: "object"}


def failures(client: Client, cause: str, limit: int) -> list[Failure]:
    """What is failed, the newest first."""
    request = api_pb2.ListFailuresRequest(cause=cause, page_size=min(limit, PAGE))
    return list(islice(client.each(client.failures.ListFailures, request, "failures"), limit))


def failure(client: Client, run_id: str) -> Failure:
    """One failure, with its blast radius and remedies. Raises NOT_FAILED."""
    return client.call(client.failures.GetFailure, api_pb2.GetFailureRequest(run_id=run_id)).failure


def pick(client: Client, text: str) -> str:
    """The id of a run; without any text the only one that is failed."""
    if text:
        return ids.run(client, text)
    found = failures(client, "", 2)
    if len(found) == 1:
        return found[0].run_id
    sentence = "Nothing has failed." if not found else "Several runs have failed; say which one."
    raise TerminalError("NOT_FOUND" if not found else "INVALID_ARGUMENT", sentence, field="run")


def full_cause(client: Client, text: str) -> str:
    """A cause from its last characters."""
    if text.startswith("cause_") and len(text) >= len("cause_") + ids.FULL_CHARS:
        return text
    found = sorted({item.cause for item in failures(client, "", MAX_ALL) if item.cause.endswith(text)})
    if len(found) == 1:
        return found[0]
    what = f"fits {len(found)} causes; give more of it." if found else "is no cause of a failure."
    raise TerminalError(
        "INVALID_ARGUMENT" if found else "NOT_FOUND",
        f"{text!r} {what} See `aios failure list`.",
        field="cause",
    )


def preview(client: Client, asked: Asked, run_id: str) -> dict[str, Any]:
    """What it would do to a run, or why it is refused."""
    shape: dict[str, Any] = {"run_id": run_id, "action": asked.action.lower()}
    shape |= {"again": [], "what": "", "refused": ""}
    try:
        if asked.action == "UNDO":
            remedies = failure(client, run_id).remedies
            again = "Try again to take back what was left alone."
            shape["what"] = next((item.what for item in remedies if item.action == "undo"), again)
        else:
            request = asked.request(client, run_id, dry_run=True, several=False)
            shape["again"] = list(client.call(client.failures.RecoverRun, request).again)
    except AiosError as error:
        if error.code in ("INVALID_ARGUMENT", "UNAVAILABLE", "UNAUTHENTICATED", "PERMISSION_DENIED"):
            raise
        shape["refused"] = error.message
    return shape


def carry_out(
    client: Client, asked: Asked, run_id: str, *, several: bool = False
) -> api_pb2.RecoverRunResponse:
    """Do it."""
    if asked.action == "UNDO":
        named = f"{asked.request_id}/{run_id}" if several else asked.request_id
        undo = api_pb2.UndoRunRequest(request_id=named, run_id=run_id, why=asked.why)
        return api_pb2.RecoverRunResponse(run=client.call(client.runs.UndoRun, undo).run)
    request = asked.request(client, run_id, dry_run=False, several=several)
    return client.call(client.failures.RecoverRun, request)


def tried(client: Client, asked: Asked, run_id: str) -> dict[str, Any]:
    """Do it to one of several; what is wrong with one is its own answer."""
    try:
        run = carry_out(client, asked, run_id, several=True).run
    except AiosError as error:
        return {"run_id": run_id, "state": None, "error": {"code": error.code, "message": error.message}}
    return {"run_id": run_id, "state": shapes.run_state(run.state), "error": None}


def confirm(count: int, yes: bool) -> None:
    """Ask before it is done to several. Raises INVALID_ARGUMENT where nobody can be asked."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise TerminalError(
            "INVALID_ARGUMENT", f"This is about {count} runs; say --yes, or see --dry-run.", field="yes"
        )
    typer.confirm(f"Go on with {count} runs?", abort=True)
