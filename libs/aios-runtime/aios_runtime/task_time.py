"""Whether there is still time for a task that a worker has taken. Pure."""

from aios.task.v1.task_pb2 import MODE_UNDO, Task
from aios_core.errors import AiosError, RetryableError


def too_late(task: Task, now_ms: int) -> AiosError | None:
    """Why a task that has not begun must not begin any more; None: it may. What takes a change back is never late."""
    if task.mode == MODE_UNDO:
        return None
    if task.deadline_ms and now_ms >= task.deadline_ms:
        return RetryableError("STEP_TIMEOUT", "The task came after its time was over; nothing was done.")
    if task.start_by_ms and now_ms >= task.start_by_ms:
        return RetryableError(
            "QUEUE_TIMEOUT",
            f"{task.target} could not begin in the time that its task may wait; nothing was done.",
        )
    return None
