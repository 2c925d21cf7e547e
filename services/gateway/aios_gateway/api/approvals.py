"""ApprovalService: what waits for a person, and what they decide."""

from aios.api.v1 import api_pb2
from aios.run.v1 import commands_pb2, queries_pb2
from aios.run.v1.state_pb2 import Approval, ApprovalState
from aios_core.errors import TerminalError
from aios_core.ids import check_request_id
from aios_gateway import values
from aios_gateway.api.arguments import check_edited
from aios_gateway.api.previews import add_previews
from aios_gateway.peers import Call

MAX_NOTE_CHARS = 2000
_DECISIONS = (
    ApprovalState.APPROVAL_STATE_APPROVED,
    ApprovalState.APPROVAL_STATE_REJECTED,
    ApprovalState.APPROVAL_STATE_ANSWERED,
)


async def list_approvals(call: Call, request: api_pb2.ListApprovalsRequest) -> api_pb2.ListApprovalsResponse:
    answer = await call.ask(
        "run",
        "list_approvals",
        queries_pb2.ListApprovalsRequest(
            workspace=call.workspace,
            open_only=request.open_only,
            page_size=request.page_size,
            page_token=request.page_token,
        ),
        queries_pb2.ListApprovalsResponse,
    )
    return api_pb2.ListApprovalsResponse(approvals=answer.approvals, next_page_token=answer.next_page_token)


async def get_approval(call: Call, request: api_pb2.GetApprovalRequest) -> api_pb2.GetApprovalResponse:
    approval = await _read(call, request.approval_id)
    if request.preview:
        await add_previews(call, approval)
    return api_pb2.GetApprovalResponse(approval=approval)


async def decide_approval(
    call: Call, request: api_pb2.DecideApprovalRequest
) -> api_pb2.DecideApprovalResponse:
    """Passes the decision on with what the person saw; whether it counts is the orchestrator's to say."""
    if request.decision not in _DECISIONS:
        raise TerminalError(
            "INVALID_ARGUMENT", "decision must be approved, rejected or answered.", field="decision"
        )
    if len(request.note) > MAX_NOTE_CHARS:
        raise TerminalError(
            "INVALID_ARGUMENT", f"note has more than {MAX_NOTE_CHARS} characters.", field="note"
        )
    check_request_id(request.request_id)
    approval = await _read(call, request.approval_id)
    command = commands_pb2.DecideApprovalRequest(
        workspace=call.workspace,
        request_id=request.request_id,
        approval_id=request.approval_id,
        actor=call.identity.actor,
        decision=request.decision,
        note=request.note,
        answers=values.canonical(request.answers, "answers") if request.HasField("answers") else b"",
        arguments_sha256=request.arguments_sha256,
        run_id=approval.run_id,
    )
    answer = await call.command_run(
        "decide_approval", approval.run_id, command, commands_pb2.DecideApprovalResponse
    )
    return api_pb2.DecideApprovalResponse(approval=answer.approval)


async def edit_approval(call: Call, request: api_pb2.EditApprovalRequest) -> api_pb2.EditApprovalResponse:
    """Passes an edit on with what the person saw; the answer is the approval of what would run now."""
    if len(request.note) > MAX_NOTE_CHARS:
        raise TerminalError(
            "INVALID_ARGUMENT", f"note has more than {MAX_NOTE_CHARS} characters.", field="note"
        )
    if not request.HasField("arguments"):
        raise TerminalError("INVALID_ARGUMENT", "arguments is missing.", field="arguments")
    check_request_id(request.request_id)
    approval = await _read(call, request.approval_id)
    given = values.canonical(request.arguments, "arguments")
    unchecked = await check_edited(call, approval, request.step, given)
    command = commands_pb2.EditApprovalRequest(
        workspace=call.workspace,
        request_id=request.request_id,
        approval_id=request.approval_id,
        actor=call.identity.actor,
        run_id=approval.run_id,
        step=request.step,
        input=given,
        arguments_sha256=request.arguments_sha256,
        note=request.note,
    )
    answer = await call.command_run(
        "edit_approval", approval.run_id, command, commands_pb2.EditApprovalResponse
    )
    return api_pb2.EditApprovalResponse(approval=answer.approval, unchecked=unchecked)


async def _read(call: Call, approval_id: str) -> Approval:
    if not approval_id:
        raise TerminalError("INVALID_ARGUMENT", "approval_id is missing.", field="approval_id")
    request = queries_pb2.GetApprovalRequest(workspace=call.workspace, approval_id=approval_id)
    answer = await call.ask("run", "get_approval", request, queries_pb2.GetApprovalResponse)
    return answer.approval
