"""A run as clients see it, from the head that the orchestrator keeps. Pure."""

from collections.abc import Iterable

from aios.api.v1 import api_pb2
from aios.run.v1.events_pb2 import RunEvent
from aios.run.v1.queries_pb2 import RunView
from aios.run.v1.state_pb2 import RunHead
from aios.task.v1.task_pb2 import Change
from aios.value.v1.value_pb2 import Value


def run_of(head: RunHead) -> api_pb2.Run:
    """The head alone, as listings show it."""
    return api_pb2.Run(
        run_id=head.run_id,
        workflow=head.workflow,
        workflow_version=head.workflow_version,
        state=head.state,
        mode=head.mode,
        create_time_ms=head.create_time_ms,
        update_time_ms=head.update_time_ms,
        cost_micros=head.settled_micros,
        cap_micros=head.cap_micros,
        held_micros=head.held_micros,
        trace_id=head.traceparent[3:35],
        pending_approvals=head.open_approvals,
        error_code=head.error.code,
        error_message=head.error.message,
        steps=head.steps,
        trigger=head.trigger,
        actor=head.actor,
        superseded_by=head.superseded_by,
        sequence=head.sequence,
        concurrency_key=head.concurrency_key,
        customer=head.customer,
        forked_from=head.forked_from,
        fork_step=head.fork_step,
        limits=head.limits if head.HasField("limits") else None,
        overdue=head.overdue,
        late_time_ms=head.late_time_ms,
        work_mode=head.work_mode,
        queue_place=head.queue_place,
        priority=head.priority if head.HasField("priority") else None,
    )


def run_in_full(view: RunView, predicted: Iterable[Change] = ()) -> api_pb2.Run:
    """With its input, its outputs once there are any, and for a simulation what it would change."""
    run = run_of(view.head)
    if view.input:
        run.input.CopyFrom(Value.FromString(view.input))
    if view.outputs:
        run.outputs.CopyFrom(Value.FromString(view.outputs))
    run.predicted.extend(predicted)
    return run


def predicted_changes(events: Iterable[RunEvent]) -> list[Change]:
    """What the steps of a simulation would change, in their order."""
    return [change for event in events for change in event.step_succeeded.changes]
