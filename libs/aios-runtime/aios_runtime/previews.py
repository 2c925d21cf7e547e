"""What a step would change, asked before anybody decides on it: simulated, as a task that nobody handed out."""

from aios.task.v1.task_pb2 import MODE_SIMULATE, PreviewStepRequest, Task
from aios_core.ids import effect_key


def task_of(request: PreviewStepRequest) -> Task:
    """The task that is simulated."""
    return Task(
        workspace=request.workspace,
        run_id=request.run_id,
        step=request.step,
        task_id=effect_key(request.run_id, request.step, 0, 1),
        target=request.target,
        input=request.input,
        mode=MODE_SIMULATE,
    )
