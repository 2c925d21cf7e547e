"""A run to and from its stored form: a bounded head, and the records `input`, `outputs`, `fork`, `step/…`,
`approval/…`, `plan/…` and `over/…`.

What a step with steps of its own goes over (`over/…`) lies apart from its record, which is written with each new round.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from immutables import Map

from aios.run.v1.state_pb2 import Approval, Fork, Limits, RunHead, RunPlan, StepHead, StepRecord, StepState
from aios.task.v1.task_pb2 import ApprovalBinding, Task
from aios_core.ids import partition_of
from aios_orchestrator.core import compensate
from aios_orchestrator.core.draft import target_of
from aios_orchestrator.core.limits import cut_of
from aios_orchestrator.core.undo import task_id, task_mode
from aios_orchestrator.due import earliest
from aios_orchestrator.model import Run, StepRun
from aios_orchestrator.progress import DONE_STEP, LIVE_STEP, Begun, rounds_of
from aios_orchestrator.workflow import Step, Workflow, path_of


def head_of(run: Run, names: Iterable[str] = ()) -> RunHead:
    """The bounded head, with the steps that are live; or with those that `names` names, pending ones as well."""
    rare: dict[str, Any] = {  # what most runs have nothing of: each keyword takes its time, whatever it says
        "open_approvals": [approval.approval_id for approval in run.open_approvals()],
        "error": run.error,
        "concurrency_key": run.concurrency_key,
        "parent_traceparent": run.parent_traceparent,
        "undo_queue": run.undo_queue,
        "superseded_by": run.superseded_by,
        "undo_group": run.undo_group,
        "failed_step": run.failed,
        "reopened": run.reopened,
        "redos": run.redos,
        "undo_chosen": run.undo_chosen,
        "ending": run.ending,
        "concurrency": run.concurrency,
        "customer": run.customer,
    }
    head = RunHead(
        workspace=run.workspace,
        run_id=run.run_id,
        slot=run.slot,
        state=run.state,
        workflow=run.workflow,
        workflow_version=run.workflow_version,
        mode=run.mode,
        create_time_ms=run.create_time,
        update_time_ms=run.update_time,
        sequence=run.sequence,
        last_hash=run.last_hash,
        steps=[_step_head(step, run) for step in (map(run.at, names) if names else run.lively())],
        cap_micros=run.cap,
        held_micros=run.held,
        settled_micros=run.settled,
        trigger=run.trigger,
        request=run.request,
        traceparent=run.traceparent,
        actor=run.actor,
        request_sha256=run.request_sha256,
        priority=run.priority,
        **{name: value for name, value in rare.items() if value},
    )
    if run.fork is not None:
        head.forked_from, head.fork_step = run.fork.run_id, run.fork.step
    if run.limits is not None:
        head.limits.CopyFrom(run.limits)
        head.overdue, head.late = run.overdue, run.late
    if run.plans:
        head.planned = True
    if run.late_time or run.undo_by or run.work_mode:
        head.late_time_ms, head.undo_by, head.work_mode = run.late_time, run.undo_by, run.work_mode
    return head


def _step_head(step: StepRun, run: Run) -> StepHead:
    head = StepHead(
        step=step.name,
        state=step.state,
        attempt=step.attempt,
        attempt_group=step.attempt_group,
        dispatch=step.dispatch,
        hold_micros=step.hold,
        cost_micros=step.cost,
        due_ms=step.due,
        start_time_ms=step.start,
        end_time_ms=step.end,
        effect_order=step.effect_order,
        charge=step.charge,
    )
    if step.error is not None:
        head.error.CopyFrom(step.error)
    if step.approval_id or step.awaits or step.keyed_as:
        head.approval_id, head.awaits, head.keyed_as = step.approval_id, step.awaits, step.keyed_as
    if step.undoable:
        head.undoable = True
    if step.unfunded:
        head.unfunded = True
    if step.undo_since:
        head.undo_since = step.undo_since
    if step.limits is not None:
        head.limits.CopyFrom(step.limits)
        head.overdue = step.overdue
    if step.late:
        head.late = True
    if step.compensates:
        head.compensates = True
    if step.work_mode:
        head.work_mode = step.work_mode
    if step.refused:
        head.refused = step.refused
    if step.cached is not None:
        head.cached.CopyFrom(step.cached)
    if step.body is not None:
        head.rounds, head.round_steps, head.rounds_begun = step.body.rounds, step.body.steps, step.body.begun
        rounds = run.rounds.get(step.name)
        if rounds is not None:
            head.rounds_ended, head.rounds_failed = rounds.ended, len(rounds.failed)
    return head


def records_of(run: Run, before: Run | None, changed: Iterable[str]) -> dict[str, bytes | None]:
    """The records in which `run` differs from what is stored as `before`; `changed` names the steps that changed."""
    records: dict[str, bytes | None] = {}
    if before is None or run.input != before.input:
        records["input"] = run.input
    if before is None and run.fork is not None:
        records["fork"] = run.fork.SerializeToString()
    if run.outputs != (before.outputs if before is not None else b""):
        records["outputs"] = run.outputs or None
    for name in changed:
        if name not in run.steps:  # it has another name now, or is left out
            records |= {f"step/{name}": None, f"over/{name}": None}
            continue
        step = run.steps[name]
        record = step_record(step)
        record.head.CopyFrom(_step_head(step, run))
        if step.body is not None and step.state == StepState.STEP_STATE_RUNNING:
            record.input = b""
            old = before.steps.get(name) if before is not None else None
            # One that was not under way may have begun and ended in one decision: it has no such record yet.
            if old is None or old.state != StepState.STEP_STATE_RUNNING or old.input is not step.input:
                records[f"over/{name}"] = step.input
        records[f"step/{name}"] = record.SerializeToString()
    for name in before.plans if before is not None else ():
        if name not in run.plans:  # the step has another name now
            records[f"plan/{name}"] = None
    for name, plan in run.plans.items():
        if before is None or before.plans.get(name) is not plan:
            records[f"plan/{name}"] = plan.SerializeToString(deterministic=True)
    for approval in changed_approvals(run, before):
        records[f"approval/{approval.approval_id}"] = approval.SerializeToString()
    return records


def changed_approvals(run: Run, before: Run | None) -> list[Approval]:
    """Approvals that are new or were decided since `before`."""
    known = before.approvals if before is not None else {}
    return [approval for key, approval in run.approvals.items() if known.get(key) is not approval]


def step_record(step: StepRun) -> StepRecord:
    """The values of one step."""
    record = StepRecord(
        input=step.input,
        output=step.output,
        undo_token=step.undo_token,
        summary=step.summary,
        changes=step.changes,
        usage=step.usage,
        edited=step.edited,
    )
    if step.compensation is not None:
        record.compensation.CopyFrom(step.compensation)
    if step.cache_key:
        record.cache_key, record.target_version = step.cache_key, step.target_version
    return record


def run_of(head: RunHead, records: Mapping[str, bytes]) -> Run:
    """The run of its stored form."""
    run = Run(
        head.workspace,
        head.run_id,
        head.slot,
        head.workflow,
        head.workflow_version,
        head.mode,
        state=head.state,
        create_time=head.create_time_ms,
        update_time=head.update_time_ms,
        sequence=head.sequence,
        last_hash=head.last_hash,
        cap=head.cap_micros,
        held=head.held_micros,
        settled=head.settled_micros,
        failed=head.failed_step,
        reopened=head.reopened,
        redos=head.redos,
        undo_chosen=head.undo_chosen,
        ending=head.ending if head.HasField("ending") else None,
        concurrency_key=head.concurrency_key,
        customer=head.customer,
        trigger=head.trigger,
        request=head.request,
        request_sha256=head.request_sha256,
        traceparent=head.traceparent,
        parent_traceparent=head.parent_traceparent,
        actor=head.actor,
        superseded_by=head.superseded_by,
        undo_queue=tuple(head.undo_queue),
        undo_group=head.undo_group,
        error=head.error if head.HasField("error") else None,
        input=records.get("input", b""),
        outputs=records.get("outputs", b""),
        limits=head.limits if head.HasField("limits") else None,
        overdue=head.overdue,
        late=head.late,
        late_time=head.late_time_ms,
        undo_by=head.undo_by,
        work_mode=head.work_mode,
        fork=Fork.FromString(records["fork"]) if "fork" in records else None,
        concurrency=head.concurrency if head.HasField("concurrency") else None,
        priority=head.priority if head.HasField("priority") else None,
    )
    _read_records(run, records)
    return run


def _read_records(run: Run, records: Mapping[str, bytes]) -> None:
    """The steps, approvals and plans of a run, and what is counted of them."""
    steps: dict[str, StepRun] = {}
    plans: dict[str, RunPlan] = {}
    for name, data in records.items():
        if name.startswith("step/"):
            step = _step_of(StepRecord.FromString(data))
            if step.body is not None and step.state == StepState.STEP_STATE_RUNNING:
                step.input = records[f"over/{step.name}"]
            steps[step.name] = step
        elif name.startswith("approval/"):
            run.approvals[name.removeprefix("approval/")] = Approval.FromString(data)
        elif name.startswith("plan/"):
            plans[name.removeprefix("plan/")] = RunPlan.FromString(data)
    run.steps, run.plans = Map(steps), plans
    run.live = Map({name: None for name, step in steps.items() if step.state in LIVE_STEP})
    run.done = sum(step.state in DONE_STEP and "." not in name for name, step in steps.items())
    run.rounds = rounds_of(steps)
    run.effects = max((step.effect_order for step in steps.values()), default=0)


def _step_of(record: StepRecord) -> StepRun:
    head = record.head
    return StepRun(
        head.step,
        state=head.state,
        attempt=head.attempt,
        attempt_group=head.attempt_group,
        dispatch=head.dispatch,
        hold=head.hold_micros,
        charge=head.charge,
        unfunded=head.unfunded,
        undo_since=head.undo_since,
        cost=head.cost_micros,
        due=head.due_ms,
        start=head.start_time_ms,
        end=head.end_time_ms,
        approval_id=head.approval_id,
        awaits=head.awaits,
        effect_order=head.effect_order,
        undoable=head.undoable,
        error=head.error if head.HasField("error") else None,
        input=record.input if head.undoable or head.state != StepState.STEP_STATE_SUCCEEDED else b"",
        output=record.output,
        undo_token=record.undo_token,
        summary=record.summary,
        changes=tuple(record.changes),
        usage=record.usage if record.HasField("usage") else None,
        body=Begun(head.rounds, head.round_steps, head.rounds_begun) if head.round_steps else None,
        edited=record.edited,
        keyed_as=head.keyed_as,
        limits=head.limits if head.HasField("limits") else None,
        overdue=head.overdue,
        late=head.late,
        compensates=head.compensates,
        cached=head.cached if head.HasField("cached") else None,
        work_mode=head.work_mode,
        cache_key=record.cache_key,
        target_version=record.target_version,
        refused=head.refused,
        compensation=record.compensation if record.HasField("compensation") else None,
    )


def priority_of(run: Run, workflow: Workflow, step: Step) -> int:
    """How urgent the tasks of a step are: what the start said goes before the step, and that before the workflow."""
    if run.priority is not None:
        return run.priority
    return step.priority if step.priority is not None else workflow.priority


def task_of(run: Run, workflow: Workflow, name: str, approval: Approval | None, traceparent: str) -> Task:
    """The task of a step that is handed out, derived from committed state alone."""
    step, definition = run.at(name), workflow.at(name)
    undoing = bool(run.undo_queue)
    task = Task(
        workspace=run.workspace,
        run_id=run.run_id,
        task_id=task_id(run, step),
        dispatch=step.dispatch,
        attempt=step.attempt,
        step=name,
        target=target_of(run, definition),
        mode=task_mode(run),
        input=step.input,
        hold_micros=step.hold,
        undo_token=step.undo_token if undoing else b"",
        priority=priority_of(run, workflow, definition),
        traceparent=traceparent,
        partition=partition_of(run.slot),
        timeout_ms=definition.timeout_ms,
    )
    task.work_mode = definition.mode
    task.cacheable = bool(step.cache_key) and not undoing
    compensation = compensate.running(step)
    if compensation is not None:
        compensate.bind(task, run, step, compensation)
    if step.limits is not None and not undoing:
        _bound(task, run, step.limits, definition)
    change = run.change_of(path_of(name))
    if change is not None:
        task.model, task.prompt = change.model, change.prompt
    if approval is not None and not undoing:
        shown = next(item for item in approval.proposed if item.step == name)
        task.approval.CopyFrom(
            ApprovalBinding(
                approval_id=approval.approval_id,
                arguments_sha256=shown.arguments_sha256,
                policy_version=approval.policy_version,
                expire_time_ms=approval.expire_time_ms,
                nonce=approval.nonce,
                approver=", ".join(assent.approver for assent in approval.assents) or approval.decided_by,
                run_id=run.run_id,
                step=name,
            )
        )
    return task


def _bound(task: Task, run: Run, limits: Limits, step: Step) -> None:
    """What a worker has to know of the time that it has. A change is not cut off at a deadline, only not begun after
    it; memory finds out by itself what it has written, and is not told when to begin."""
    deadlines = [] if step.effect else [cut_of(limits, False), cut_of(run.limits, run.overdue)]
    if not (step.effect and step.kind == "memory"):
        task.deadline_ms = earliest(limits.total_ms, *deadlines)
    task.start_by_ms = limits.start_by_ms
    task.due_ms = earliest(limits.deadline_ms, run.limits.deadline_ms if run.limits is not None else 0)
