"""Every method of the API: the scope that it needs and the function that answers it."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from aios_gateway.api import (
    approvals,
    budgets,
    events,
    failures,
    forks,
    memory,
    migrations,
    notify,
    plans,
    queues,
    resources,
    runs,
    schedules,
    system,
    tokens,
    undoing,
)
from aios_gateway.notify.book import Book
from aios_gateway.notify.notifier import Notifier
from aios_gateway.peers import Call
from aios_gateway.starter import Starter
from aios_gateway.tokens import Scope, Tokens
from aios_gateway.watch import Watches

Respond = Callable[[Call, Any], Awaitable[Any]]
Stream = Callable[[Call, Any], AsyncIterator[Any]]


@dataclass(frozen=True, slots=True)
class Unary:
    """One request, one answer."""

    scope: Scope
    respond: Respond


@dataclass(frozen=True, slots=True)
class Streaming:
    """One request, answers as they come."""

    scope: Scope
    stream: Stream


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What methods use besides the bus."""

    tokens: Tokens
    watches: Watches
    starter: Starter
    book: Book
    notifier: Notifier
    services: Sequence[str]
    version: str
    now_ms: Callable[[], int]


def methods(around: Surroundings) -> dict[str, Unary | Streaming]:
    """By `Service.Method`, as aios.api.v1 names them."""
    return {**_of_runs(around), **_others(around), **_of_notify(around)}


def _of_notify(around: Surroundings) -> dict[str, Unary | Streaming]:
    book, now_ms = around.book, around.now_ms
    return {
        "NotifyService.SetWebhook": Unary(
            Scope.ADMIN,
            lambda call, request: notify.set_webhook(call, request, book, around.notifier, now_ms()),
        ),
        "NotifyService.GetWebhook": Unary(
            Scope.ADMIN, lambda call, request: notify.get_webhook(call, request, book)
        ),
        "NotifyService.TestWebhook": Unary(
            Scope.ADMIN, lambda call, request: notify.try_webhook(call, request, book, now_ms())
        ),
        "NotifyService.RemoveWebhook": Unary(
            Scope.ADMIN, lambda call, request: notify.remove_webhook(call, request, book)
        ),
    }


def _of_runs(around: Surroundings) -> dict[str, Unary | Streaming]:
    return {
        "RunService.StartRun": Unary(
            Scope.RUN, lambda call, request: runs.start_run(call, request, around.starter)
        ),
        "RunService.StartRuns": Unary(
            Scope.RUN, lambda call, request: runs.start_runs(call, request, around.starter)
        ),
        "RunService.GetRun": Unary(Scope.READ, runs.get_run),
        "RunService.ListRuns": Unary(Scope.READ, runs.list_runs),
        "RunService.WatchRun": Streaming(
            Scope.READ, lambda call, request: runs.watch_run(call, request, around.watches)
        ),
        "RunService.CancelRun": Unary(Scope.RUN, runs.cancel_run),
        "RunService.UndoRun": Unary(Scope.RUN, undoing.undo_run),
        "RunService.PreviewUndo": Unary(Scope.READ, undoing.preview_undo),
        "RunService.RedoRun": Unary(Scope.RUN, undoing.redo_run),
        "RunService.CountEffects": Unary(
            Scope.READ, lambda call, request: undoing.count_effects(call, request, around.services)
        ),
        "RunService.SimulateRun": Unary(
            Scope.RUN, lambda call, request: runs.simulate_run(call, request, around.starter)
        ),
        "RunService.GetTimeline": Unary(Scope.READ, runs.get_timeline),
        "RunService.ForkRun": Unary(
            Scope.RUN, lambda call, request: forks.fork_run(call, request, around.starter)
        ),
        "RunService.DiffRuns": Unary(Scope.READ, forks.diff_runs),
        "RunService.MigrateRun": Unary(Scope.RUN, migrations.migrate_run),
        "RunService.ListPlans": Unary(Scope.READ, plans.list_plans),
    }


def _others(around: Surroundings) -> dict[str, Unary | Streaming]:
    return {
        "ApprovalService.ListApprovals": Unary(Scope.READ, approvals.list_approvals),
        "ApprovalService.GetApproval": Unary(Scope.READ, approvals.get_approval),
        "ApprovalService.DecideApproval": Unary(Scope.APPROVE, approvals.decide_approval),
        "ApprovalService.EditApproval": Unary(Scope.APPROVE, approvals.edit_approval),
        "ResourceService.ApplyResources": Unary(Scope.ADMIN, resources.apply_resources),
        "ResourceService.ListResources": Unary(Scope.READ, resources.list_resources),
        "ResourceService.GetResource": Unary(Scope.READ, resources.get_resource),
        "EventService.PublishEvent": Unary(
            Scope.EVENTS, lambda call, request: events.publish_event(call, request, around.now_ms())
        ),
        "EventService.ListResolutions": Unary(Scope.READ, events.list_resolutions),
        "MemoryService.GetArtifact": Streaming(Scope.READ, memory.get_artifact),
        "MemoryService.ListRecords": Unary(Scope.READ, memory.list_records),
        "MemoryService.GetRecord": Unary(Scope.READ, memory.get_record),
        "SystemService.GetStatus": Unary(
            Scope.READ,
            lambda call, request: system.get_status(
                call, around.services, around.version, around.now_ms(), around.book
            ),
        ),
        "SystemService.CloseRestore": Unary(
            Scope.ADMIN, lambda call, request: system.close_restore(call, request, around.services)
        ),
        "TokenService.CreateToken": Unary(
            Scope.ADMIN, lambda call, request: tokens.create_token(call, request, around.tokens)
        ),
        "TokenService.ListTokens": Unary(
            Scope.ADMIN, lambda call, request: tokens.list_tokens(call, request, around.tokens)
        ),
        "TokenService.RevokeToken": Unary(
            Scope.ADMIN, lambda call, request: tokens.revoke_token(call, request, around.tokens)
        ),
        "FailureService.ListFailures": Unary(Scope.READ, failures.list_failures),
        "FailureService.GetFailure": Unary(Scope.READ, failures.get_failure),
        "FailureService.RecoverRun": Unary(Scope.RUN, failures.recover_run),
        "QueueService.ShowQueues": Unary(Scope.READ, queues.show_queues),
        "BudgetService.ListAccounts": Unary(Scope.READ, budgets.list_accounts),
        "ScheduleService.ListSchedules": Unary(Scope.READ, schedules.list_schedules),
        "ScheduleService.PauseSchedule": Unary(Scope.RUN, schedules.pause_schedule),
        "ScheduleService.ResumeSchedule": Unary(Scope.RUN, schedules.resume_schedule),
        "ScheduleService.RunSchedule": Unary(Scope.RUN, schedules.run_schedule),
    }
