"""NotifyService: where what needs a person is told outside."""

from contextlib import suppress

from aios.api.v1 import api_pb2
from aios_core.errors import AiosError, RetryableError, TerminalError
from aios_core.ids import check_request_id
from aios_gateway.notify import sending
from aios_gateway.notify.book import Book, Webhook
from aios_gateway.notify.notifier import Notifier
from aios_gateway.peers import Call

MAX_UNTOLD = 100
TEST_TITLE = "A test: nothing needs you because of this."


async def set_webhook(
    call: Call, request: api_pb2.SetWebhookRequest, book: Book, notifier: Notifier, now_ms: int
) -> api_pb2.SetWebhookResponse:
    check_request_id(request.request_id)
    if not request.secret:
        raise TerminalError("INVALID_ARGUMENT", "secret is missing.", field="secret")
    with suppress(RetryableError):  # its name may be known later
        await sending.address_of(request.url, allow_private=request.allow_private)
    webhook = Webhook(
        url=request.url,
        secret=sending.check_secret(request.secret),
        allow_private=request.allow_private,
        set_by=call.identity.actor,
        set_time_ms=now_ms,
    )
    await book.set(webhook)
    await book.again()
    notifier.hint()
    return api_pb2.SetWebhookResponse(webhook=await shown_webhook(book))


async def get_webhook(_: Call, __: api_pb2.GetWebhookRequest, book: Book) -> api_pb2.GetWebhookResponse:
    return api_pb2.GetWebhookResponse(webhook=await shown_webhook(book))


async def try_webhook(
    _: Call, request: api_pb2.TestWebhookRequest, book: Book, now_ms: int
) -> api_pb2.TestWebhookResponse:
    """Answers with what became of it: a webhook that fails is no failure of the call."""
    check_request_id(request.request_id)
    webhook = await book.webhook()
    if webhook is None:
        raise TerminalError("NOT_FOUND", "No webhook is set; `aios notify set URL` sets one.")
    name = f"test.{request.request_id}"
    need = {"id": name, "kind": "test", "title": TEST_TITLE, "run_id": "", "workflow": "", "command": "aios"}
    try:
        await sending.post(webhook, name, sending.body_of(need, now_ms, "test"), now_ms)
    except AiosError as error:
        return api_pb2.TestWebhookResponse(delivered=False, error=error.message)
    return api_pb2.TestWebhookResponse(delivered=True)


async def remove_webhook(
    _: Call, request: api_pb2.RemoveWebhookRequest, book: Book
) -> api_pb2.RemoveWebhookResponse:
    check_request_id(request.request_id)
    await book.set(None)
    return api_pb2.RemoveWebhookResponse()


async def shown_webhook(book: Book) -> api_pb2.Webhook | None:
    """The webhook without its secret, and what it did not take; None when there is none."""
    webhook = await book.webhook()
    if webhook is None:
        return None
    shown = api_pb2.Webhook(
        url=webhook.url,
        allow_private=webhook.allow_private,
        set_by=webhook.set_by,
        set_time_ms=webhook.set_time_ms,
    )
    known = await book.all()
    for name, (_, told) in sorted(known.items(), key=lambda item: item[1][1].begin_time_ms):
        if told.state == "delivered":
            shown.delivered += 1
        elif len(shown.untold) < MAX_UNTOLD:
            shown.untold.add(
                id=name,
                kind=told.need["kind"],
                title=told.need["title"],
                run_id=told.need["run_id"],
                begin_time_ms=told.begin_time_ms,
                attempts=told.attempts,
                last_error=told.last_error,
                given_up=told.state == "undeliverable",
            )
    return shown
