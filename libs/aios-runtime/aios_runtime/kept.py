"""A worker's side of answers that were kept: it gives again what its own version has given, and nothing else."""

from collections.abc import Callable

from aios.task.v1.task_pb2 import STATUS_SUCCEEDED, Outcome, Task, Usage

VersionOf = Callable[[Task], str]
"""The version of what carries a task out here; empty where it does not say."""


def kept_answer(task: Task, version_of: VersionOf | None) -> Outcome | None:
    """The outcome of a task whose answer was kept; None: it is to be worked on."""
    if version_of is None or not task.HasField("cached"):
        return None
    cached = task.cached
    if not cached.target_version or version_of(task) != cached.target_version:
        return None
    return Outcome(
        status=STATUS_SUCCEEDED,
        output=cached.output,
        summary=f"the answer of run {cached.origin.run_id[-6:]} again, free",
        usage=Usage(cached=True),
        target_version=cached.target_version,
        cached=cached.origin,
    )
