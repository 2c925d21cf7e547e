"""The two families of errors, and the registry of their reason codes.

An error that AIOS raises on purpose is a `TerminalError` (the same call would fail again: never retry) or a
`RetryableError` (it may pass later). Each carries a reason code from `REASONS`. Anything else that is raised is a bug.
"""

import json
from dataclasses import dataclass
from typing import Final


class AiosError(Exception):
    """An expected failure: `code` is in `REASONS`, `message` is a sentence for a person, `details` name the fields."""

    retryable = False

    def __init__(self, code: str, message: str, **details: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details

    def __str__(self) -> str:
        return f"{self.message} [{self.code}]"


class TerminalError(AiosError):
    """The same call would fail again; a retry is useless."""


class RetryableError(AiosError):
    """The call may succeed later; `retry_after` is the wait in seconds that the failing side asks for, if it said one."""

    retryable = True

    def __init__(self, code: str, message: str, *, retry_after: float | None = None, **details: str) -> None:
        super().__init__(code, message, **details)
        self.retry_after = retry_after


MORE: Final = "more"
"""The detail that holds the errors that came with one: a JSON list of `[code, message, field, line, column]`."""


def others(error: AiosError) -> list[dict[str, str]]:
    """The errors that came with one: `code`, `message`, `field`, `line`, `column`."""
    try:
        rows = json.loads(error.details.get(MORE, "[]"))
        names = ("code", "message", "field", "line", "column")
        return [dict(zip(names, map(str, row), strict=True)) for row in rows]
    except (ValueError, TypeError):
        return []


@dataclass(frozen=True, slots=True)
class Reason:
    """What a reason code means: the gRPC status that carries it, and what a person does about it."""

    grpc: str
    meaning: str
    remedy: str


def _r(grpc: str, meaning: str, remedy: str) -> Reason:
    return Reason(grpc, meaning, remedy)


REASONS: Final[dict[str, Reason]] = {
    # Requests
    "INVALID_ARGUMENT": _r(
        "INVALID_ARGUMENT", "A field of the request is wrong.", "Correct the named field and send it again."
    ),
    "REQUEST_ID_REUSED": _r(
        "ALREADY_EXISTS", "The request id was used for another content.", "Use a new request id."
    ),
    "NOT_FOUND": _r(
        "NOT_FOUND",
        "No such thing.",
        "See what there is with the matching `list` command, and give a name of it.",
    ),
    "TOO_LARGE": _r(
        "INVALID_ARGUMENT",
        "The message or value is over its limit.",
        "Send less, or store it as an artifact and pass its pointer.",
    ),
    "UNDECODABLE": _r(
        "INVALID_ARGUMENT",
        "The message is not what its subject promises.",
        "Fix the sender; the message is kept as a dead letter.",
    ),
    "UNAUTHENTICATED": _r(
        "UNAUTHENTICATED",
        "The token is missing, wrong, expired or revoked.",
        "Use the token that the server wrote at its first start, or make a new one.",
    ),
    "PERMISSION_DENIED": _r(
        "PERMISSION_DENIED", "The token lacks the scope for this call.", "Use a token with the named scope."
    ),
    "DEADLINE_EXCEEDED": _r(
        "DEADLINE_EXCEEDED",
        "It was not done, or not answered, by its deadline.",
        "Repeat a request with the same request id: it is safe. Have a run go on with aios failure retry.",
    ),
    "UNAVAILABLE": _r("UNAVAILABLE", "A part is not there now.", "Try again; `aios doctor` says which part."),
    "INTERNAL": _r(
        "INTERNAL", "A defect of AIOS itself.", "Report it with the trace id; nothing was applied."
    ),
    # Resources
    "BAD_YAML": _r(
        "INVALID_ARGUMENT", "The document is not readable YAML.", "Fix the named line and column."
    ),
    "UNKNOWN_FIELD": _r(
        "INVALID_ARGUMENT",
        "The document has a field that does not exist.",
        "Use the nearest right name, or remove it.",
    ),
    "BAD_RESOURCE": _r(
        "INVALID_ARGUMENT", "The document breaks the schema of its kind.", "Correct the named field."
    ),
    "BAD_EXPRESSION": _r(
        "INVALID_ARGUMENT",
        "A CEL expression does not compile or refers to what does not exist.",
        "Correct the named expression.",
    ),
    "CYCLE": _r("INVALID_ARGUMENT", "Steps need each other in a circle.", "Remove one of the named needs."),
    "TOO_DEEP": _r("INVALID_ARGUMENT", "The document or value is nested too deeply.", "Flatten it."),
    # Runs
    "QUEUE_FULL": _r(
        "RESOURCE_EXHAUSTED",
        "As many runs wait for their turn as may.",
        "Start it again when some have ended, or raise `concurrency.waiting`.",
    ),
    "RUN_CLOSED": _r("FAILED_PRECONDITION", "The run has ended.", "Start a new one."),
    "BUDGET_EXCEEDED": _r(
        "RESOURCE_EXHAUSTED",
        "The step would pass the cap of its run.",
        "Raise the cap in the workflow, or cancel the run.",
    ),
    "UNPRICED": _r(
        "FAILED_PRECONDITION",
        "The price of the call is not known, so it was not made.",
        "Give the model a price in the configuration.",
    ),
    "STEP_TIMEOUT": _r(
        "DEADLINE_EXCEEDED",
        "The step took longer than its limit.",
        "Raise its time-out, or see why it is slow.",
    ),
    "QUEUE_TIMEOUT": _r(
        "DEADLINE_EXCEEDED",
        "No worker began with the step in the time that its task may wait.",
        "See whether the worker runs and what it is busy with, or raise timeout.queued.",
    ),
    "TOTAL_TIMEOUT": _r(
        "DEADLINE_EXCEEDED",
        "All attempts of the step together took longer than their limit.",
        "See why the attempts failed, or raise timeout.total.",
    ),
    "LEASE_LOST": _r(
        "ABORTED", "The worker that held the task was lost.", "Nothing: the task is given to another worker."
    ),
    "EXPRESSION_FAILED": _r(
        "FAILED_PRECONDITION",
        "A CEL expression failed on this run's data.",
        "Correct the expression or the data.",
    ),
    "BAD_OUTPUT": _r(
        "FAILED_PRECONDITION", "The result breaks the declared schema.", "Correct the agent or connector."
    ),
    "BAD_PLAN": _r(
        "FAILED_PRECONDITION",
        "A plan has something in it that it may not have, or that can't be carried out.",
        "Give a plan of the steps that the document allows; `aios plan edit` takes yours.",
    ),
    "REPEAT_LIMIT": _r(
        "FAILED_PRECONDITION",
        "A repeat took all its turns and its condition does not hold.",
        "Raise its limit, or let it go on with `at_limit: go-on`.",
    ),
    "WAIT_TIMED_OUT": _r(
        "DEADLINE_EXCEEDED",
        "The event that a step waited for did not come in time.",
        "Raise the wait's timeout, or let it go on with `on_timeout: go-on`.",
    ),
    "ROUND_FAILED": _r(
        "ABORTED",
        "Another step of the same round failed.",
        "See why that one failed; nothing of this was done.",
    ),
    "NOT_RECORDABLE": _r(
        "FAILED_PRECONDITION",
        "The run can't be written down as a test of its workflow.",
        "Record a run that ended by itself; what a test may say is in docs/language.md.",
    ),
    "NOT_FAILED": _r(
        "FAILED_PRECONDITION",
        "The run or the step has not failed.",
        "See what has failed with `aios failure list`.",
    ),
    "EFFECTS_STAND": _r(
        "FAILED_PRECONDITION",
        "What would run again has changed something that stands.",
        "Undo the run first, then rewind it; or retry what failed alone.",
    ),
    "INCOMPATIBLE": _r(
        "FAILED_PRECONDITION",
        "The run could not follow the other version of its workflow.",
        "Leave it where it is, or make a version that it can follow; `aios run migrate --dry-run` says what is in the way.",
    ),
    # Approvals
    "REJECTED": _r("FAILED_PRECONDITION", "A person rejected it.", "Nothing: it was not done."),
    "APPROVAL_STALE": _r(
        "FAILED_PRECONDITION",
        "What would run is no longer what was shown.",
        "Look at the new proposal and decide again.",
    ),
    "APPROVAL_USED": _r("FAILED_PRECONDITION", "The approval was used already.", "Nothing: it counts once."),
    "APPROVAL_EXPIRED": _r(
        "FAILED_PRECONDITION", "The approval came after its expiry.", "Start the run again."
    ),
    "NOT_AN_APPROVER": _r(
        "PERMISSION_DENIED",
        "The gate names who may decide, and you are not among them.",
        "Ask one of the approvers that the approval names.",
    ),
    "APPROVED_ALREADY": _r(
        "FAILED_PRECONDITION",
        "Several have to approve, and each of them counts once.",
        "Ask another of the approvers.",
    ),
    "APPROVAL_REQUIRED": _r(
        "FAILED_PRECONDITION",
        "The effect needs an approval that it does not have.",
        "Put a gate before the step.",
    ),
    "UNTRUSTED_FIELD": _r(
        "FAILED_PRECONDITION",
        "A field that steers an effect comes from untrusted data.",
        "Approve the exact value at a gate.",
    ),
    "BAD_ANSWER": _r(
        "INVALID_ARGUMENT",
        "The answer is not one that the question allows.",
        "Give one of the listed answers.",
    ),
    # Effects
    "OUTCOME_UNKNOWN": _r(
        "ABORTED", "Whether the change happened can't be known.", "Check it yourself and say so."
    ),
    "CONFLICT": _r(
        "ABORTED", "Something else changed it since it was read.", "Look at the change, then decide."
    ),
    "PATH_OUTSIDE_ROOT": _r(
        "PERMISSION_DENIED", "The path leaves the allowed folder.", "Use a path inside it."
    ),
    "DISK_FULL": _r("RESOURCE_EXHAUSTED", "The disk is full.", "Free space; the work goes on by itself."),
    "READ_ONLY": _r(
        "FAILED_PRECONDITION", "The place can't be written.", "Give write permission or another place."
    ),
    "UNREADABLE": _r("FAILED_PRECONDITION", "A file can't be read.", "Give read permission."),
    "ACTION_FAILED": _r("FAILED_PRECONDITION", "The connector's action failed.", "The message says why."),
    # Agents
    "SANDBOX_TIMEOUT": _r(
        "DEADLINE_EXCEEDED", "The agent ran longer than its limit.", "Raise the limit, or see why it is slow."
    ),
    "SANDBOX_MEMORY": _r(
        "RESOURCE_EXHAUSTED",
        "The agent used more memory than its limit.",
        "Raise the limit, or give it less.",
    ),
    "SANDBOX_CRASHED": _r(
        "ABORTED", "The agent's process ended by itself.", "It is tried again; see its log if it repeats."
    ),
    "SANDBOX_OUTPUT_TOO_LARGE": _r(
        "FAILED_PRECONDITION", "The agent's output is over its limit.", "Write artifacts instead."
    ),
    "SANDBOX_UNAVAILABLE": _r(
        "FAILED_PRECONDITION", "A protection that is required is not in force here.", "See `aios doctor`."
    ),
    "AGENT_FAILED": _r("FAILED_PRECONDITION", "The agent's code raised an error.", "The message names it."),
    "AGENT_BAD_OUTPUT": _r(
        "FAILED_PRECONDITION", "The agent's answer is not what its contract says.", "Correct the agent."
    ),
    "MODEL_FAILED": _r(
        "UNAVAILABLE", "The model could not answer.", "It is tried again, then the template provider is used."
    ),
    # Start-up
    "PORT_TAKEN": _r(
        "FAILED_PRECONDITION", "The port is in use.", "Stop the other program, or give another port."
    ),
    "ALREADY_SERVING": _r(
        "FAILED_PRECONDITION",
        "Another AIOS serves this data directory.",
        "Use that one, or give another --data-dir.",
    ),
    "DATA_DIR": _r(
        "FAILED_PRECONDITION", "The data directory can't be used.", "Give one that you may write."
    ),
    "NEWER_STORE": _r(
        "FAILED_PRECONDITION", "The store was written by a newer version.", "Use that version or a later one."
    ),
    "CORRUPT_STORE": _r("DATA_LOSS", "The store fails its own check.", "Restore a backup."),
    # Backups
    "BAD_BACKUP": _r(
        "DATA_LOSS",
        "The file is not a backup, or it is damaged or cut short.",
        "Use another one; `aios backup verify` proves a backup.",
    ),
    "NEWER_BACKUP": _r(
        "FAILED_PRECONDITION",
        "The backup was made by a newer version.",
        "Use that version or a later one.",
    ),
    "NO_STORES": _r(
        "FAILED_PRECONDITION",
        "The stores are not in this data directory, or not all of them.",
        "Give the right --data-dir; see docs/how-to/backups.md for MongoDB.",
    ),
    "IN_USE": _r(
        "FAILED_PRECONDITION", "Something is in that place already.", "Give another place, or empty it first."
    ),
    "RESTORE_OPEN": _r(
        "FAILED_PRECONDITION",
        "Something that was under way before the restore has not ended.",
        "Decide or cancel what is open first.",
    ),
    "BUS_FAILED": _r("UNAVAILABLE", "The message bus did not start or went away.", "`aios doctor` says why."),
}
