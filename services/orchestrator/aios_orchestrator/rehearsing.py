"""A workflow's decisions tried against declared results: the core that runs decide too, in virtual time, with nobody
to wait for and nothing done."""

import heapq
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

from aios.error.v1.error_pb2 import Error
from aios.run.v1 import state_pb2 as st
from aios.run.v1.commands_pb2 import DecideApprovalRequest
from aios.run.v1.events_pb2 import RunEvent
from aios.run.v1.state_pb2 import Approval
from aios.task.v1.task_pb2 import MODE_EXECUTE, Outcome, Status
from aios_core.encoding import decode, encode
from aios_core.ids import effect_key
from aios_core.json_values import from_json, to_json
from aios_core.labels import OWNER, outside
from aios_core.values import labeled, plain
from aios_orchestrator import undo_plan
from aios_orchestrator.cases import Case, Rehearsed, Undoing, compared
from aios_orchestrator.core.decide import Decide, Hear, Input, Settle, Start, Tick, decide
from aios_orchestrator.declared import check_names
from aios_orchestrator.due import next_due
from aios_orchestrator.model import Run, StepRun
from aios_orchestrator.workflow import Workflow, path_of

MAX_DECISIONS: Final = 100_000
EXPIRE: Final = "expire"  # declared of what is asked: nobody decides in its time
BEGINS: Final = 1_767_225_600_000  # 2026-01-01T00:00:00Z, in ms since 1970: every rehearsal begins then


def rehearse(workflow: Workflow, case: Case) -> Rehearsed:
    """Run one case to its end, or to where it waits for what is not declared. Raises INVALID_ARGUMENT for an input that
    the workflow does not take, and for a step that it does not have."""
    check_names(workflow, case.results, case.no_inverse)
    stage = _Stage(workflow, case)
    stage.play()
    return stage.told()


def _next_approver(approval: Approval) -> str:
    """Of those who may decide somebody who has not."""
    assented = {assent.approver for assent in approval.assents}
    return next((name for name in approval.approvers if name not in assented), "person:test")


_STAYS: Final = (st.UNDO_VERDICT_IMPOSSIBLE, st.UNDO_VERDICT_UNKNOWN)


class _Stage:
    """One run, its time, and the results that are declared for it."""

    def __init__(self, workflow: Workflow, case: Case) -> None:
        self.workflow, self.case = replace(workflow, undo_on_failure=False), case  # it is told, not done
        self.undoes = workflow.undo_on_failure
        self.now, self.left = BEGINS, MAX_DECISIONS
        self.run = Run("main", "run_rehearsed", 1, workflow.name, workflow.version, MODE_EXECUTE)
        self.order: dict[str, None] = {}
        self.missing: list[str] = []
        self.ranks = {name: rank for rank, name in enumerate(case.results)}
        # A heap of what waits and is declared: rank, since when, step.
        self.agenda: list[tuple[int, int, str]] = []
        self.enlisted = 0
        self.tasks: dict[str, None] = {}
        self.heard: set[str] = set()

    def play(self) -> None:
        value = self.workflow.check_input(labeled(from_json(dict(self.case.input)), OWNER))
        self.give(Start(encode(value), ""))
        while not self.run.closed and not self.missing and self.left:
            if self.agenda:
                self.next(heapq.heappop(self.agenda)[-1])
            elif self.tasks:
                self.work(next(iter(self.tasks)))
            elif approvals := self.run.open_approvals():
                self.person(approvals[0])
            elif not self.pass_time():
                waiting = [step.name for step in self.run.lively() if step.awaits]
                self.missing += [
                    f"no event for {name} is declared under `results`: $event" for name in waiting
                ]
                break

    def next(self, step: str) -> None:
        """What is declared of a step comes, if it still waits for it."""
        state = self.run.steps.get(step)
        if state is None:
            return
        approval = self.run.approvals.get(state.approval_id)
        if step in self.tasks:
            self.work(step)
        elif approval is not None and approval.state == st.APPROVAL_STATE_OPEN:
            self.person(approval)
            if self.run.approvals[approval.approval_id].state == st.APPROVAL_STATE_OPEN:
                self.enlist(step)  # it takes another person, or has not expired yet
        elif self.declares_event(state):
            self.event(state)

    def pass_time(self) -> bool:
        """Time passes until something is due; False when nothing ever is."""
        due = next_due(self.run)
        if due is not None:
            self.now = max(due, self.now)
            self.give(Tick())
        return due is not None

    def enlist(self, step: str) -> None:
        """A step waits for what is declared of it, if anything is: it comes in the order of the declarations."""
        rank = self.ranks.get(step, self.ranks.get(path_of(step)))
        if rank is not None:
            self.enlisted += 1
            heapq.heappush(self.agenda, (rank, self.enlisted, step))

    def give(self, what: Input) -> None:
        self.left -= 1
        decision = decide(self.run, self.workflow, what, self.now, "person:test")
        self.run, self.workflow = decision.run, decision.workflow or self.workflow
        if decision.refusal is not None:
            self.missing.append(decision.refusal.message)
        self.tasks.update(dict.fromkeys(decision.dispatched))
        for stored in decision.events:
            event = RunEvent.FromString(stored)
            kind = event.WhichOneof("body") or ""
            step = getattr(getattr(event, kind, None), "step", "")
            if step:
                self.order.setdefault(step)
            if kind in ("approval_requested", "wait_started"):
                self.enlist(step)
        for step in decision.dispatched:
            self.enlist(step)

    def declared(self, step: str) -> Any:
        """What is declared of a step, by its name in the run or in the document. Raises KeyError."""
        results = self.case.results
        return results[step] if step in results else results[path_of(step)]

    def work(self, step: str) -> None:
        del self.tasks[step]
        state = self.run.at(step)
        try:
            result = self.declared(step)
        except KeyError:
            target = self.workflow.at(step).target
            self.missing.append(f"no result of {step} ({target}) is declared under `results`")
            return
        if isinstance(result, dict) and set(result) == {"$attempts"}:
            attempts = result["$attempts"]
            result = attempts[min(state.attempt, len(attempts)) - 1]
        outcome = Outcome(
            run_id=self.run.run_id,
            task_id=effect_key(self.run.run_id, step, 0, state.attempt_group),
            dispatch=state.dispatch,
            step=step,
            worker="test",
            mode=MODE_EXECUTE,
            undo_token=b"test" if self.inverse(step) else b"",
        )
        if isinstance(result, dict) and set(result) == {"$error"}:
            error = result["$error"]
            outcome.status = Status.STATUS_FAILED
            outcome.error.CopyFrom(
                Error(
                    code=str(error.get("code", "ACTION_FAILED")),
                    message=str(error.get("message", "It failed.")),
                    retryable=error.get("retryable") is True,
                )
            )
        else:
            outcome.status = Status.STATUS_SUCCEEDED
            outcome.output = encode(labeled(from_json(result), OWNER))
        self.give(Settle(outcome))

    def inverse(self, step: str) -> bool:
        """Whether a step changes something that its connector can take back, as far as the case says otherwise."""
        told, known = self.case.no_inverse, self.workflow.at(step)
        able = known.effect and known.grade not in undo_plan.FINAL
        return able and step not in told and path_of(step) not in told

    def undoing(self) -> Iterator[Undoing]:
        """What the undo that begins when the run fails would do."""
        if not self.undoes or self.run.state != st.RUN_STATE_FAILED:
            return
        for planned in undo_plan.plan(self.run, self.workflow, (), redo=False):
            item = planned.item
            given = to_json(plain(decode(item.instead_input))) if item.instead else None
            stays = item.verdict in _STAYS
            yield Undoing(item.step, item.target, stays, item.why, item.instead, given)

    def declares_event(self, step: StepRun) -> bool:
        """Whether a step waits for an event that is declared for it and was not told yet."""
        if not step.awaits or step.name in self.heard:
            return False
        try:
            declared = self.declared(step.name)
        except KeyError:
            return False
        return isinstance(declared, dict) and set(declared) == {"$event"}

    def event(self, step: StepRun) -> None:
        self.heard.add(step.name)
        event = dict(self.declared(step.name)["$event"] or {})
        hears = self.workflow.at(step.name).hears
        assert hears is not None, "only a wait for an event awaits one"
        seen = {
            "type": hears.event_type,
            **{name: str(event.get(name, "test")) for name in ("source", "id", "subject")},
            "data": from_json(event.get("data")),
        }
        if event.get("type", hears.event_type) == hears.event_type:
            self.give(Hear(labeled(seen, outside("event:test")), frozenset({step.awaits})))
        if self.run.at(step.name).state == st.STEP_STATE_WAITING:
            self.missing.append(
                f"the event that is declared for {step.name} is not the one that it waits for"
            )

    def person(self, approval: Approval) -> None:
        question = approval.kind == st.APPROVAL_KIND_QUESTION
        may = f"{'the answers' if question else '`approve`'}, `reject` or `{EXPIRE}`"
        try:
            said = self.declared(approval.step)
        except KeyError:
            self.missing.append(f"no decision on {approval.step} is declared under `results`: {may}")
            return
        if said == EXPIRE:
            if not self.pass_time():
                self.missing.append(f"{approval.step}: it never expires")
            return
        answers = labeled(from_json(said), OWNER) if question and isinstance(said, dict) else None
        rejected = said == "reject"
        agreed = st.APPROVAL_STATE_ANSWERED if question else st.APPROVAL_STATE_APPROVED
        request = DecideApprovalRequest(
            approval_id=approval.approval_id,
            actor=_next_approver(approval),
            decision=st.APPROVAL_STATE_REJECTED if rejected else agreed,
            arguments_sha256=approval.arguments_sha256,
        )
        if answers is None and not rejected and said != "approve":
            self.missing.append(f"{approval.step}: {str(said)[:40]!r} is no decision; say {may}")
            return
        self.give(Decide(request, answers))

    def told(self) -> Rehearsed:
        run = self.run
        state = st.RunState.Name(run.state).removeprefix("RUN_STATE_").lower()
        outputs = to_json(plain(decode(run.outputs))) if run.outputs else None
        told = Rehearsed(self.case.name, state, outputs, virtual_ms=self.now - BEGINS)
        if run.error is not None:
            told.error = f"{run.error.message} [{run.error.code}]"
        for name in self.order:
            step = run.at(name)
            gave = to_json(plain(decode(step.output))) if step.output else None
            told.steps[name] = {
                "state": st.StepState.Name(step.state).removeprefix("STEP_STATE_").lower(),
                "gave": gave,
            }
        told.undo = sorted(self.undoing(), key=lambda item: item.stays)
        told.problems += self.missing
        if not self.left:
            told.problems.append(f"it took more than {MAX_DECISIONS:,} decisions")
        told.problems += [] if self.missing else compared(self.case.expect, told)
        return told
