"""TokenService: who may call."""

from aios.api.v1 import api_pb2
from aios_core.errors import TerminalError
from aios_core.ids import check_name, check_request_id
from aios_gateway.peers import Call
from aios_gateway.tokens import OWNER, PERSON, Scope, TokenRecord, Tokens


async def create_token(
    call: Call, request: api_pb2.CreateTokenRequest, tokens: Tokens
) -> api_pb2.CreateTokenResponse:
    """Nobody makes a token that opens more than their own."""
    for scope in request.scopes:
        if scope in Scope.__members__.values() and scope not in call.identity.scopes:
            call.identity.require(Scope(scope))
    record = await tokens.create(
        request.request_id,
        request.name,
        request.scopes,
        request.expire_time_ms,
        request.secret_sha256,
        _actor(call, request.user),
    )
    return api_pb2.CreateTokenResponse(token=_message(record))


def _actor(call: Call, user: str) -> str:
    """Who acts with a new token. Only the owner makes tokens for others: approvers are told apart by them."""
    own = call.identity.actor
    actor = PERSON + check_name(user, "user") if user else own
    if actor != own and own != OWNER:
        raise TerminalError("PERMISSION_DENIED", f"Only the owner makes tokens for others; you are {own}.")
    return actor


async def list_tokens(_: Call, __: api_pb2.ListTokensRequest, tokens: Tokens) -> api_pb2.ListTokensResponse:
    return api_pb2.ListTokensResponse(tokens=[_message(record) for record in await tokens.list()])


async def revoke_token(
    _: Call, request: api_pb2.RevokeTokenRequest, tokens: Tokens
) -> api_pb2.RevokeTokenResponse:
    check_request_id(request.request_id)
    return api_pb2.RevokeTokenResponse(token=_message(await tokens.revoke(request.token_id)))


def _message(record: TokenRecord) -> api_pb2.Token:
    return api_pb2.Token(
        token_id=record.token_id,
        name=record.name,
        scopes=record.scopes,
        actor=record.actor,
        create_time_ms=record.create_time_ms,
        expire_time_ms=record.expire_time_ms,
        revoked=record.revoked,
    )
