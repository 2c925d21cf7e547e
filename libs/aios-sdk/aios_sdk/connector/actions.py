"""One class an action: what it declares, and what it does forward and back, side by side."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, ConfigDict

from aios_sdk.connector.answers import CannotTell, Conflict, Done, Looked, Predicted, Standing, Traced, Undone
from aios_sdk.connector.artifacts import Artifacts
from aios_sdk.connector.dry import for_real
from aios_sdk.connector.effects import Effect, Idempotency, Inverse, Key, Lookup, Nothing


class Arguments(BaseModel):
    """Base of an action's input: no unknown field, no conversion between types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Result(BaseModel):
    """Base of an action's output: text, int, Decimal, bool, bytes, time, Pointer, lists and maps of them."""

    model_config = ConfigDict(extra="forbid", frozen=True)


I = TypeVar("I", bound=Arguments)  # noqa: E741 - input, captured, result: the three types of an action
C = TypeVar("C", bound=BaseModel)
R = TypeVar("R", bound=Result)


@dataclass(frozen=True, slots=True)
class Call:
    """What the host gives with each call. `key` is the same for every retry of it; `effect_key` is that of the effect
    itself, and differs from `key` only when the effect is taken back. `now_ms` is wall clock."""

    key: str
    effect_key: str
    workspace: str
    artifacts: Artifacts
    now_ms: int
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class Spec:
    """What an action declares. `steering` are the input fields that choose where or on whom it acts: they must not
    come from untrusted data unless a person approved exactly them. `needs_person`: it pays, or binds the company, so
    that nothing but a person's approval will do, whatever a workflow calls it."""

    name: str
    input: type[Arguments]
    output: type[Result]
    effect: Effect
    captured: type[BaseModel] | None
    inverse: Inverse | None
    idempotency: Idempotency
    steering: tuple[str, ...]
    needs_person: bool = False

    @property
    def changes_something(self) -> bool:
        """Whether it needs a ledger and an approval."""
        return self.effect is not Effect.READ


class Action(Generic[I, C, R]):
    """An action of a connector. A READ needs `perform` alone; the others what their declaration promises.

    Every method may raise TerminalError or RetryableError, and that means: nothing was changed. Whatever else `perform`
    raises means that nobody knows, and the host looks it up or asks a person.
    """

    spec: ClassVar[Spec]

    async def simulate(self, input: I, call: Call) -> Predicted[R]:
        """What `perform` would change and answer now. Reads, never writes."""
        raise NotImplementedError

    async def capture(self, input: I, call: Call) -> C:
        """Read what look-up and undo need. It is durable before `perform` is called; it must not change the world."""
        raise NotImplementedError

    async def perform(self, input: I, captured: C, call: Call) -> Done[R]:
        """Do it. Called again with the same key and the same `captured` when a crash left it open."""
        raise NotImplementedError

    async def lookup(self, input: I, captured: C, call: Call) -> Looked[R]:
        """Whether a call that was interrupted has happened; cleans up what it left lying about."""
        raise NotImplementedError

    async def rediscover(self, input: I, call: Call) -> Traced[C, R]:
        """After a restore from a backup: whether the effect under `call.key` has happened, though the ledger knows
        nothing of it. What was captured before it is lost, so it must be told from what stands outside alone; NotDone
        means that it is done now. An action without it has a person asked instead."""
        raise NotImplementedError

    async def undo(self, input: I, captured: C, result: R | None, call: Call) -> Undone | Conflict:
        """Take it back, if it still stands as it was left. `result` is None when a person said that it happened."""
        raise NotImplementedError

    async def redo(self, input: I, captured: C, result: R | None, call: Call) -> Done[R] | Conflict:
        """Put back what `undo` took away, if what that left still stands. An action without it can't be put back. It
        may be called again after a crash exactly where the inverse says so of `undo`."""
        raise NotImplementedError

    async def stands(self, input: I, captured: C, result: R | None, call: Call, *, undone: bool) -> Standing:
        """Whether what the effect has left (`undone`: what its undo has left) is as it was left. Reads, never writes;
        it is asked of many at once before an undo, so it looks at nothing else."""
        return CannotTell("this action can't tell before it is tried")

    @classmethod
    def can_redo(cls) -> bool:
        """Whether what was taken back can be put back."""
        return cls.redo is not Action.redo


A = TypeVar("A", bound="type[Action[Any, Any, Any]]")


def action(
    name: str,
    *,
    input: type[Arguments],
    output: type[Result],
    effect: Effect,
    captured: type[BaseModel] | None = None,
    inverse: Inverse | None = None,
    idempotency: Idempotency | None = None,
    steering: tuple[str, ...] = (),
    needs_person: bool = False,
) -> Callable[[A], A]:
    """Declare an action. Raises TypeError at import when the class lacks what the declaration promises."""
    spec = Spec(
        name, input, output, effect, captured, inverse, idempotency or Nothing(), steering, needs_person
    )

    def declare(cls: A) -> A:
        _check(cls, spec)
        cls.spec = spec
        for method in ("perform", "undo", "redo") if spec.changes_something else ():
            if getattr(cls, method) is not getattr(Action, method):
                setattr(cls, method, for_real(f"{name}.{method}", getattr(cls, method)))
        return cls

    return declare


def _check(cls: type[Action[Any, Any, Any]], spec: Spec) -> None:
    needs = ["perform"]
    if spec.effect is not Effect.READ:
        needs += ["simulate", "capture"]
        if spec.captured is None:
            raise TypeError(
                f"Action {spec.name} has an effect; declare the model `captured` of what it captures."
            )
        if isinstance(spec.idempotency, Lookup):
            needs.append("lookup")
        elif isinstance(spec.idempotency, Key) and spec.idempotency.remembers_ms <= 0:
            raise TypeError(
                f"Action {spec.name}: remembers_ms must be above 0; use Nothing() if no key is remembered."
            )
    if spec.effect in (Effect.REVERSIBLE, Effect.COMPENSABLE):
        needs.append("undo")
        if spec.inverse is None:
            raise TypeError(f"Action {spec.name} is {spec.effect}; declare its inverse.")
    elif spec.inverse is not None:
        raise TypeError(f"Action {spec.name} is {spec.effect} and can't have an inverse.")
    for method in needs:
        if getattr(cls, method) is getattr(Action, method):
            raise TypeError(f"Action {spec.name} ({cls.__name__}) must define {method}().")
    unknown = [field for field in spec.steering if field not in spec.input.model_fields]
    if unknown:
        raise TypeError(f"Action {spec.name}: no such input field: {', '.join(unknown)}.")
