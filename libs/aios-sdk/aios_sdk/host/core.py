"""What to do next about an effect, from what its ledger says. Pure: time comes in, nothing goes out.

nothing in the ledger ──▶ Begin ──▶ INTENT ──▶ (the effect) ──▶ OUTCOME ──▶ Replay for ever
INTENT found after a crash: A: Resume with the key · B: LookUp, then Resume or settle · C: Park as UNKNOWN
a backup's ledger, until a person closes the restore: in the place of Begin: Rediscover, then Begin or settle · Park
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, TypeAlias

from aios.effect.v1.effect_pb2 import STATE_INTENT, LedgerEntry
from aios.task.v1.task_pb2 import (
    MODE_REDO,
    MODE_UNDO,
    STATUS_CONFLICT,
    STATUS_FAILED,
    STATUS_SUCCEEDED,
    STATUS_UNKNOWN,
    ApprovalBinding,
    Outcome,
)
from aios_core.errors import RetryableError, TerminalError
from aios_core.labels import Trust
from aios_core.values import Value, label_of
from aios_sdk.connector.answers import CannotTell, NotDone
from aios_sdk.connector.effects import Idempotency, Inverse, Key, Lookup


@dataclass(frozen=True, slots=True)
class Replay:
    """It is settled: the same outcome again, no second effect."""

    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Begin:
    """Nothing was done: capture, commit INTENT, perform."""


@dataclass(frozen=True, slots=True)
class LookUp:
    """An INTENT stands: ask the outside world first, once the call's lag is surely over. How long it has been is not
    asked of the wall clock, which may have been put forward since: the full lag is waited."""


@dataclass(frozen=True, slots=True)
class Resume:
    """An INTENT stands, and calling again can't do it twice. `surely_open`: it is known not to have happened."""

    surely_open: bool


@dataclass(frozen=True, slots=True)
class Park:
    """Nobody can tell: settle as UNKNOWN and ask a person."""

    why: str


@dataclass(frozen=True, slots=True)
class Rediscover:
    """The ledger is a backup's: ask the outside world whether it happened after the backup was made."""


@dataclass(frozen=True, slots=True)
class Restored:
    """The ledger is a backup's, and nobody has closed the restore: what it doesn't know may have happened since.

    `can_rediscover`: the action can tell from what stands outside. `asked`: the attempt before this one was parked in
    this restore, so a person has looked since, and has started this one.
    """

    restore_id: str
    can_rediscover: bool = False
    asked: bool = False


@dataclass(frozen=True, slots=True)
class NothingToUndo:
    """The effect never happened, or was taken back before."""

    why: str


ANOTHERS_MS: Final = 3_000
"""For so long an INTENT of another worker is left to it."""
REDO: Final = "redo"
UNDO: Final = "undo"
Move: TypeAlias = Replay | Begin | LookUp | Resume | Park | Rediscover

_NO_KEY = (
    "The process ended while the call was under way, and the other side can't be asked whether it happened."
)
_TOO_LATE = "The call was interrupted, and the other side has forgotten its key by now."
_STILL_ACTING = "The call was interrupted, and another worker that may still be acting can't be ruled out."
_FROM_BACKUP: Final = (
    "AIOS was restored from a backup that is older than this step, so the change may have been made already. "
    "Look whether it was."
)


def next_move(
    entry: LedgerEntry | None,
    arguments_sha256: bytes,
    dispatch: int,
    idempotency: Idempotency,
    now_ms: int,
    *,
    can_look_up: bool,
    restored: Restored | None = None,
    sole_owner: bool = True,
) -> Move:
    """The next move for an effect. Raises REQUEST_ID_REUSED when the key was used with other arguments, LEASE_LOST
    (retryable) while another worker may be at it."""
    if entry is None:
        return _first_look(None, restored)
    if entry.arguments_sha256 != arguments_sha256:
        raise TerminalError(
            "REQUEST_ID_REUSED",
            f"The effect key {entry.effect_key} was used with other arguments; nothing was done.",
            field="task_id",
        )
    if entry.state != STATE_INTENT:
        settled = _settled(entry, dispatch)
        return settled if isinstance(settled, Replay) else _first_look(entry, restored)
    elapsed = now_ms - entry.intent_time_ms
    if not sole_owner:
        leave_to_another(entry, now_ms)
    if isinstance(idempotency, Key):
        if 0 <= elapsed < idempotency.remembers_ms:
            return Resume(surely_open=False)
        return LookUp() if can_look_up else Park(_TOO_LATE)
    if isinstance(idempotency, Lookup):
        return LookUp()
    return Park(_NO_KEY)


def leave_to_another(entry: LedgerEntry, now_ms: int) -> None:
    """Raises LEASE_LOST (retryable) for an INTENT that is so young that another worker may well be at it: a task comes
    to a second worker whenever its orchestrator is replaced, and the first one mostly lives."""
    if abs(now_ms - entry.intent_time_ms) < ANOTHERS_MS:
        raise RetryableError(
            "LEASE_LOST", f"Another worker may be at {entry.effect_key} just now.", retry_after=1.0
        )


def after_lookup(found: NotDone | CannotTell, idempotency: Idempotency, *, sole_owner: bool) -> Resume | Park:
    """What a look-up that did not find it done leads to. `sole_owner`: no other process can act now."""
    if isinstance(found, CannotTell):
        return Park(found.why)
    conditional = isinstance(idempotency, Lookup) and idempotency.conditional
    return Resume(surely_open=True) if sole_owner or conditional else Park(_STILL_ACTING)


def next_undo(
    effect: LedgerEntry | None,
    undos: Iterable[LedgerEntry],
    undo_key: str,
    dispatch: int,
    inverse: Inverse,
    now_ms: int,
    restored: Restored | None = None,
    sole_owner: bool = True,
) -> Move | NothingToUndo:
    """The next move for taking an effect back. `undos` are the ledger's entries of its undos so far.

    Raises NOT_FOUND when the ledger doesn't know the effect, UNAVAILABLE (retryable) while it is under way, LEASE_LOST
    (retryable) while another worker may be at the undo.
    """
    if effect is None:
        raise TerminalError(
            "NOT_FOUND", "This connector's ledger does not know the change, so it can't take it back."
        )
    if effect.state == STATE_INTENT:
        raise RetryableError("UNAVAILABLE", "The change itself is still under way.", retry_after=1.0)
    if effect.outcome.status == STATUS_FAILED:
        return NothingToUndo("The change had not been made.")
    entries = list(undos)
    own = next((entry for entry in entries if entry.effect_key == undo_key), None)
    later = any(_turn(entry.effect_key) > _turn(undo_key) for entry in entries)
    if own is None and later:
        return NothingToUndo("What came after it was carried out already.")
    if own is not None:
        if own.state != STATE_INTENT:
            settled = Replay(own.outcome) if later else _settled(own, dispatch)
            return settled if isinstance(settled, Replay) else _undo_again(own, inverse, restored)
        if not sole_owner:
            leave_to_another(own, now_ms)
        if not inverse.repeatable:
            return Park(_NO_KEY)
        elapsed = now_ms - own.intent_time_ms
        known = not inverse.remembers_ms or 0 <= elapsed < inverse.remembers_ms
        return Resume(surely_open=False) if known else Park(_TOO_LATE)
    back = way_of(undo_key)[0] == REDO
    if stands(entries, surely_undone=not back) == back:
        return NothingToUndo("It stands already." if back else "It had been taken back before.")
    return _undo_again(None, inverse, restored)


def way_of(key: str) -> tuple[str, int]:
    """Of a ledger key of an undo: `undo` or `redo`, and how often what was undone had been put back before, this one
    too: `…/undo/1` is (`undo`, 0), `…/redo-1/1` (`redo`, 1), `…/undo-1/1` (`undo`, 1)."""
    way, _, number = key.rpartition("/")[0].rpartition("/")[2].partition("-")
    return way, int(number) if number.isdigit() else 0


def _turn(key: str) -> tuple[int, bool]:
    """What comes after what: undo, redo-1, undo-1, redo-2."""
    way, number = way_of(key)
    return number, way == UNDO


def stands(undos: Iterable[LedgerEntry], *, surely_undone: bool) -> bool:
    """Whether an effect stands after its undos and what put it back. One of which nobody knows whether it happened
    counts as what makes way for the next: an undo only if `surely_undone` is not asked for."""
    put, taken = 0, -1
    for entry in undos:
        way, number = way_of(entry.effect_key)
        sure = entry.outcome.status == STATUS_SUCCEEDED
        maybe = entry.state == STATE_INTENT or entry.outcome.status == STATUS_UNKNOWN
        if way == REDO and (sure or (maybe and surely_undone)):
            put = max(put, number)
        if way == UNDO and (sure or (maybe and not surely_undone)):
            taken = max(taken, number)
    return put > taken


def undo_key(effect_key: str, task_id: str) -> str:
    """The ledger key of an undo, `<effect key>/undo/<n>`: the task's own id when it looks so. Otherwise n counts the
    attempt groups since the effect's own, of which a person starts the next by saying that an undo did not happen. A
    task id that ends in `/redo-<m>` or `/undo-<m>` has its own n, the attempt group: `<effect key>/redo-<m>/<n>`."""
    before, _, way = task_id.rpartition("/")
    if way.isdigit() and before.startswith((f"{effect_key}/{UNDO}", f"{effect_key}/{REDO}")):
        return task_id
    if way.startswith((f"{REDO}-", f"{UNDO}-")):
        return f"{effect_key}/{way}/{before.rpartition('/')[2]}"
    step, _, group = effect_key.rpartition("/")
    later, _, now = task_id.rpartition("/")
    same = step == later and group.isdigit() and now.isdigit()
    return f"{effect_key}/undo/{max(int(now) - int(group), 0) + 1 if same else 1}"


def attempt_before(key: str) -> str | None:
    """The key of the attempt before that of an effect or undo, after which a person was asked: that of the attempt
    group before; of a compensation, which counts in the place before its group, `…/1/1` before `…/2/1`. None for the
    first of an effect."""
    step, _, group = key.rpartition("/")
    effect, _, number = step.rpartition("/")
    if group.isdigit() and number.isdigit() and int(number) > 1:
        return f"{effect}/{int(number) - 1}/{group}"
    return f"{step}/{int(group) - 1}" if group.isdigit() and int(group) > 0 else None


def _first_look(entry: LedgerEntry | None, restored: Restored | None) -> Begin | Rediscover | Park:
    """What to do where a ledger that has seen everything would let it begin."""
    if restored is None or restored.asked:
        return Begin()
    if entry is not None and entry.restore_id == restored.restore_id:
        return Begin()  # it was written after the restore, and a look came before it
    return Rediscover() if restored.can_rediscover else Park(_FROM_BACKUP)


def _undo_again(entry: LedgerEntry | None, inverse: Inverse, restored: Restored | None) -> Begin | Park:
    """An undo that looks at what stands may begin whatever was done after the backup; any other one may not."""
    looks = inverse.repeatable and not inverse.remembers_ms
    if restored is None or looks or restored.asked:
        return Begin()
    return Begin() if entry is not None and entry.restore_id == restored.restore_id else Park(_FROM_BACKUP)


def _settled(entry: LedgerEntry, dispatch: int) -> Replay | Begin:
    """The recorded outcome; or another try, when nothing was changed and the orchestrator has decided to try again."""
    outcome = entry.outcome
    untouched = outcome.status == STATUS_FAILED and outcome.error.retryable
    if entry.mode in (
        MODE_UNDO,
        MODE_REDO,
    ):  # an undo has no attempt groups: each dispatch may look at what stands now
        untouched = outcome.status in (STATUS_FAILED, STATUS_CONFLICT)
    return Begin() if untouched and dispatch > outcome.dispatch else Replay(outcome)


def admit(
    target: str,
    steering: Iterable[str],
    value: Value,
    arguments_sha256: bytes,
    approval: ApprovalBinding | None,
    now_ms: int,
    *,
    needs_approval: bool,
    place: tuple[str, str] = ("", ""),
    needs_person: bool = False,
) -> None:
    """The connector's own check of what the orchestrator has checked before; `place` are the task's run and step.

    Raises APPROVAL_STALE, APPROVAL_EXPIRED, UNTRUSTED_FIELD, APPROVAL_REQUIRED; nothing was done then.
    """
    if approval is not None:
        if approval.arguments_sha256 != arguments_sha256:
            raise TerminalError(
                "APPROVAL_STALE",
                f"Approval {approval.approval_id} is for other arguments than {target} has now; nothing was done. "
                "Look at the new proposal and decide again.",
                field="approval.arguments_sha256",
            )
        if (approval.run_id or approval.step) and (approval.run_id, approval.step) != place:
            raise TerminalError(
                "APPROVAL_STALE",
                f"Approval {approval.approval_id} is for step {approval.step} of run {approval.run_id}, not for this "
                f"one of {target}; nothing was done.",
                field="approval.run_id",
            )
        if needs_person and not approval.approver.startswith("person:"):
            raise TerminalError(
                "APPROVAL_REQUIRED",
                f"{target} needs a person's approval, and {approval.approver or 'nobody'} gave it; nothing was done.",
                field="approval.approver",
            )
        if approval.expire_time_ms and now_ms > approval.expire_time_ms:
            raise TerminalError(
                "APPROVAL_EXPIRED",
                f"Approval {approval.approval_id} expired before {target} could run; nothing was done. Ask again.",
                field="approval.expire_time_ms",
            )
        return
    for field in steering:
        leaf = value.get(field) if isinstance(value, dict) else None
        if leaf is not None and label_of(leaf).trust <= Trust.UNTRUSTED:
            origins = ", ".join(label_of(leaf).origins)
            raise TerminalError(
                "UNTRUSTED_FIELD",
                f"{field} of {target} comes from untrusted data ({origins}) and nobody approved it; nothing was done.",
                field=field,
            )
    if needs_approval:
        raise TerminalError(
            "APPROVAL_REQUIRED",
            f"{target} changes something and has no approval; nothing was done.",
            field="approval",
        )
