"""The gRPC client of the command line: calls with the token and a deadline, errors as AiosError."""

import socket
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from aios.api.v1 import api_pb2_grpc
from aios_cli.discovery import Place
from aios_cli.exits import NoServerError
from aios_cli.options import DEFAULT_TIMEOUT_S
from aios_core.errors import AiosError, RetryableError, TerminalError

DETAILS_KEY: Final = "grpc-status-details-bin"
CONNECT_SECONDS: Final = 3.0

Answer = TypeVar("Answer")
_OPTIONS: Final = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
    ("grpc.min_reconnect_backoff_ms", int(CONNECT_SECONDS * 1000)),  # how long one attempt may take
)


class Client:
    """A connection to one server. The stubs are those of aios.api.v1."""

    def __init__(self, place: Place, timeout: float = DEFAULT_TIMEOUT_S) -> None:
        self.place = place
        self._timeout = timeout
        self._metadata = (("authorization", f"Bearer {place.token}"),)
        self._channel = grpc.insecure_channel(place.grpc, options=_OPTIONS)
        self.runs = api_pb2_grpc.RunServiceStub(self._channel)
        self.approvals = api_pb2_grpc.ApprovalServiceStub(self._channel)
        self.resources = api_pb2_grpc.ResourceServiceStub(self._channel)
        self.events = api_pb2_grpc.EventServiceStub(self._channel)
        self.memory = api_pb2_grpc.MemoryServiceStub(self._channel)
        self.system = api_pb2_grpc.SystemServiceStub(self._channel)
        self.tokens = api_pb2_grpc.TokenServiceStub(self._channel)
        self.notify = api_pb2_grpc.NotifyServiceStub(self._channel)
        self.failures = api_pb2_grpc.FailureServiceStub(self._channel)
        self.queues = api_pb2_grpc.QueueServiceStub(self._channel)
        self.budgets = api_pb2_grpc.BudgetServiceStub(self._channel)
        self.schedules = api_pb2_grpc.ScheduleServiceStub(self._channel)

    def __enter__(self) -> Self:
        if _listens(self.place.grpc):
            return self
        try:
            grpc.channel_ready_future(self._channel).result(timeout=CONNECT_SECONDS)
        except grpc.FutureTimeoutError:
            self._channel.close()
            raise NoServerError(
                f"No AIOS answers at {self.place.grpc}; start it with `aios serve`."
            ) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()

    def call(self, method: Callable[..., Answer], request: Message, timeout: float | None = None) -> Answer:
        """One request, one answer. Raises AiosError."""
        try:
            return method(request, timeout=timeout or self._timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            raise problem_of(error, self.place) from None

    def each(self, method: Callable[..., Any], request: Any, items: str) -> Iterator[Any]:
        """What a listing has, page by page: one has less than was asked for where what is listed is large."""
        while True:
            page = self.call(method, request)
            yield from getattr(page, items)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def stream(
        self, method: Callable[..., Iterator[Answer]], request: Message, timeout: float | None = None
    ) -> Iterator[Answer]:
        """Answers as they come; without `timeout` for as long as it takes. Raises AiosError."""
        try:
            yield from method(request, timeout=timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            raise problem_of(error, self.place) from None


def _listens(address: str) -> bool:
    """Whether somebody takes connections there, found at once. To wait for a channel that is ready costs a fifth of a
    second when the channel is closed, which each command would take longer; so that is for who isn't there yet."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except (OSError, ValueError, OverflowError):
        return False
    return True


def problem_of(error: grpc.RpcError, place: Place) -> AiosError:
    """The error that the server named, or the one that the connection had."""
    call: Any = error
    details = {key: text for key, text in call.trailing_metadata() or () if key == DETAILS_KEY}
    if DETAILS_KEY in details:
        named = _named(status_pb2.Status.FromString(details[DETAILS_KEY]))
        if named is not None:
            return named
    code, sentence = call.code(), call.details() or "no details"
    if code == grpc.StatusCode.UNAVAILABLE:
        return NoServerError(
            f"AIOS at {place.grpc} does not answer ({sentence}); start it with `aios serve`."
        )
    if code == grpc.StatusCode.DEADLINE_EXCEEDED:
        return RetryableError(
            "DEADLINE_EXCEEDED", "AIOS did not answer in time; the same command again is safe."
        )
    if code == grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in sentence:
        return TerminalError("TOO_LARGE", "That is more than AIOS takes at once.")
    if code == grpc.StatusCode.RESOURCE_EXHAUSTED:
        return RetryableError("UNAVAILABLE", f"AIOS has too much to do just now ({sentence}).")
    if code == grpc.StatusCode.UNIMPLEMENTED:
        return TerminalError("NOT_FOUND", "The server is of an older version that can't do this.")
    return TerminalError("INTERNAL", f"The call failed: {sentence}.")


def _named(status: status_pb2.Status) -> AiosError | None:
    info, delay = error_details_pb2.ErrorInfo(), None
    for detail in status.details:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            detail.Unpack(info)
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            retry = error_details_pb2.RetryInfo()
            detail.Unpack(retry)
            delay = retry.retry_delay.ToMilliseconds() / 1000
    if not info.reason:
        return None
    metadata = {
        key: text for key, text in info.metadata.items() if key not in ("code", "message", "retry_after")
    }
    if delay is not None:
        return RetryableError(info.reason, status.message, retry_after=delay, **metadata)
    return TerminalError(info.reason, status.message, **metadata)
