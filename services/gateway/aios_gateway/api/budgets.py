"""BudgetService: what is held and was spent, by account."""

from aios.api.v1 import api_pb2
from aios.run.v1 import budget_pb2
from aios_gateway.peers import Call


async def list_accounts(call: Call, request: api_pb2.ListAccountsRequest) -> api_pb2.ListAccountsResponse:
    question = budget_pb2.ListAccountsRequest(
        workspace=call.workspace,
        prefix=request.prefix,
        page_size=request.page_size,
        page_token=request.page_token,
    )
    answer = await call.ask("run", "list_accounts", question, budget_pb2.ListAccountsResponse)
    return api_pb2.ListAccountsResponse(accounts=answer.accounts, next_page_token=answer.next_page_token)
