"""Every subject and stream name, and how they are built. No other module spells a subject.

Tokens have fixed places: kind, domain, version, name, workspace, then the key.
"""

from typing import Final

STREAM_CMD: Final = "AIOS_CMD"  # work queue
STREAM_EVT: Final = "AIOS_EVT"  # limits
STREAM_IN: Final = "AIOS_IN"  # limits
STREAM_DLQ: Final = "AIOS_DLQ"  # limits
INBOXES: Final = "aios.inbox."
HEADER_REPLY: Final = "Aios-Reply-To"
HEADER_PARTS: Final = "Aios-Parts"  # of a question: how many parts its answer may come in
HEADER_PART: Final = "Aios-Part"  # of an answer: which one of how many, such as `3f2a/0/4`
HEADER_CORRELATION: Final = "Aios-Correlation-Id"
HEADER_CAUSATION: Final = "Aios-Causation-Id"
HEADER_TRACE: Final = "traceparent"

LANE_AGENT: Final = "agent"
LANE_MEMORY: Final = "memory"
PRIORITY_NORMAL: Final = 5


def connector_lane(connector: str) -> str:
    """The lane of a connector: `connector-files` for `files`."""
    return f"connector-{connector}"


def perform(workspace: str, lane: str, priority: int = PRIORITY_NORMAL) -> str:
    """Tasks for a lane (aios.task.v1.PerformTasks)."""
    return f"aios.cmd.task.v1.perform.{workspace}.{lane}.{priority}"


def report_outcomes(workspace: str, partition: int) -> str:
    """Outcomes of tasks, to the orchestrator (aios.task.v1.ReportOutcomes)."""
    return f"aios.cmd.run.v1.report_outcomes.{workspace}.{partition}"


def run_command(name: str, workspace: str, partition: int) -> str:
    """`start_run`, `start_runs`, `cancel_run`, `undo_run`, `redo_run`, `recover_run`, `migrate_run`,
    `decide_approval`, `edit_approval`."""
    return f"aios.cmd.run.v1.{name}.{workspace}.{partition}"


def resource_command(name: str, workspace: str) -> str:
    """`apply_resources`."""
    return f"aios.cmd.resource.v1.{name}.{workspace}.0"


def run_events(workspace: str, partition: int | str) -> str:
    """What commits filed (aios.bus.v1.EventsFiled), under the partition of the first; others may be in the message too.
    To hear all: `run_events("*", "*")`."""
    return f"aios.evt.run.v1.filed.{workspace}.{partition}"


def query(domain: str, name: str, workspace: str) -> str:
    """A question by request and reply, such as `query("run", "get_run", "main")`."""
    return f"aios.qry.{domain}.v1.{name}.{workspace}"


def passed_on(name: str, workspace: str, replica: str) -> str:
    """A command, or `report_outcomes`, that one replica of the orchestrator asks another one to carry out."""
    return f"aios.own.v1.{name}.{workspace}.{replica}"


def external(workspace: str, source: str, event_type: str) -> str:
    """Events from outside, bare: as durable as the broker."""
    return f"aios.in.{workspace}.{source}.{event_type}"


def accept(workspace: str) -> str:
    """Events from outside by request and reply: answered after the commit (aios.event.v1.AcceptEventRequest)."""
    return f"aios.accept.{workspace}"


def dead_letter(service: str, handler: str) -> str:
    """Where what can't be handled is kept (aios.bus.v1.DeadLetter)."""
    return f"aios.dlq.{service}.{handler}"


def consumer(service: str, handler: str) -> str:
    """The name of a durable consumer."""
    return f"{service}__{handler}"


def inbox(service: str) -> str:
    """The prefix under which a service, and nobody else, may listen for answers."""
    return INBOXES + service


def template(subject: str) -> str:
    """A subject without what varies, for span names and metrics: `aios.cmd.run.v1.start_run`, `aios.in`."""
    tokens = subject.split(".")
    return ".".join(tokens[: 5 if tokens[1:2] in (["cmd"], ["evt"], ["qry"]) else 2])
