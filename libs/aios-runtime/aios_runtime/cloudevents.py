"""CloudEvents 1.0 from HTTP and from the bus: binary, structured and batched, checked and bounded. Pure."""

import base64
import binascii
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import unquote

from aios.event.v1.event_pb2 import ExternalEvent
from aios_core import json_values
from aios_core.errors import TerminalError
from aios_core.labels import outside
from aios_core.values import Plain, labeled

STRUCTURED: Final = "application/cloudevents+json"
BATCH: Final = "application/cloudevents-batch+json"
MAX_ATTRIBUTE_CHARS: Final = 1024

_REQUIRED: Final = ("id", "source", "type")
_DATE_CHARS: Final = 40


def from_http(headers: Mapping[str, str], body: bytes, max_batch: int) -> tuple[list[ExternalEvent], bool]:
    """The events of one request, and whether it was a batch. `headers` are in lower case.

    Raises INVALID_ARGUMENT that names the attribute, TOO_LARGE for a batch of more than `max_batch`.
    """
    media = headers.get("content-type", "").partition(";")[0].strip().lower()
    if media == BATCH:
        items = json_values.loads(body)
        if not isinstance(items, list):
            raise _wrong("body", "A batch of CloudEvents is a JSON array.")
        if len(items) > max_batch:
            raise TerminalError(
                "TOO_LARGE", f"The batch has {len(items)} events; at most {max_batch} are taken."
            )
        return [_structured(item, f"[{index}].") for index, item in enumerate(items)], True
    if media == STRUCTURED:
        return [_structured(json_values.loads(body), "")], False
    attributes = {name[3:]: unquote(text) for name, text in headers.items() if name.startswith("ce-")}
    if not attributes:
        raise _wrong(
            "content-type",
            f"This is not a CloudEvent: send ce-id, ce-source, ce-type and ce-specversion as headers, or {STRUCTURED}.",
        )
    return [_event(attributes, body, media, "")], False


def from_message(headers: Mapping[str, str], body: bytes) -> ExternalEvent:
    """The event of a message on the bus: attributes in `ce-` headers, or all of it as JSON. Workspace, sender and trace
    are left to who received it. Raises INVALID_ARGUMENT that names the attribute, TOO_DEEP."""
    lower = {name.lower(): text for name, text in headers.items()}
    if not any(name.startswith("ce-") for name in lower):
        lower["content-type"] = STRUCTURED  # the media type is optional where there is no other reading
    events, _ = from_http(lower, body, 1)
    return events[0]


def checked(event: ExternalEvent) -> ExternalEvent:
    """The event of a gRPC client, with the same checks. Raises INVALID_ARGUMENT, TOO_DEEP."""
    for name in _REQUIRED:
        _attribute(getattr(event, name), name, "event.", required=True)
    _attribute(event.subject, "subject", "event.", required=False)
    _check_data(event.data, event.data_content_type, "event.data")
    if event.time_ms < 0:
        raise _wrong("event.time_ms", "event.time_ms is before 1970.")
    return event


def _structured(item: Plain, prefix: str) -> ExternalEvent:
    if not isinstance(item, Mapping):
        raise _wrong(f"{prefix}body", f"{prefix or 'The body '}is not a JSON object.")
    if "data" in item and "data_base64" in item:
        raise _wrong(f"{prefix}data", f"{prefix}data and data_base64 exclude each other.")
    body = b""
    if "data_base64" in item:
        try:
            body = base64.b64decode(str(item["data_base64"]), validate=True)
        except (ValueError, binascii.Error):
            raise _wrong(f"{prefix}data_base64", f"{prefix}data_base64 is not base64.") from None
    elif "data" in item:
        body = json_values.dumps(item["data"])
    attributes: dict[str, str] = {}
    for name, text in item.items():
        if name in ("data", "data_base64") or text is None:
            continue
        if name in (*_REQUIRED, "specversion", "subject", "time", "datacontenttype") and not isinstance(
            text, str
        ):
            raise _wrong(f"{prefix}{name}", f"{prefix}{name} must be text.")
        attributes[name] = str(text)
    return _event(attributes, body, attributes.get("datacontenttype", ""), prefix)


def _event(attributes: Mapping[str, str], body: bytes, media: str, prefix: str) -> ExternalEvent:
    if attributes.get("specversion") != "1.0":
        given = attributes.get("specversion", "not there")[:40]
        raise _wrong(f"{prefix}specversion", f"{prefix}specversion is {given!r}; it must be 1.0.")
    for name in _REQUIRED:
        _attribute(attributes.get(name, ""), name, prefix, required=True)
    _attribute(attributes.get("subject", ""), "subject", prefix, required=False)
    _check_data(body, media, f"{prefix}data")
    return ExternalEvent(
        id=attributes["id"],
        source=attributes["source"],
        type=attributes["type"],
        subject=attributes.get("subject", ""),
        time_ms=_time_ms(attributes.get("time", ""), prefix),
        data=body,
        data_content_type=media or "application/json",
    )


def _attribute(text: str, name: str, prefix: str, *, required: bool) -> None:
    if required and not text:
        raise _wrong(f"{prefix}{name}", f"{prefix}{name} is missing; a CloudEvent needs it.")
    if len(text) > MAX_ATTRIBUTE_CHARS or (text and not text.isprintable()):
        raise _wrong(
            f"{prefix}{name}", f"{prefix}{name} must have at most {MAX_ATTRIBUTE_CHARS} printable characters."
        )


def _check_data(body: bytes, media: str, field: str) -> None:
    if not body:
        return
    kind = media.partition(";")[0].strip().lower()
    if kind and kind != "application/json" and not kind.endswith("+json"):
        raise _wrong(field, f"{field} is {kind[:80]}; events carry JSON (application/json).")
    try:
        labeled(json_values.loads(body), outside("event"))
    except TerminalError as error:
        raise TerminalError(error.code, f"{field}: {error.message}", field=field) from None


def _time_ms(text: str, prefix: str) -> int:
    if not text:
        return 0
    try:
        time = datetime.fromisoformat(text) if len(text) <= _DATE_CHARS else None
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise _wrong(f"{prefix}time", f"{prefix}time is not an RFC 3339 time with a zone.")
    return (time.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def _wrong(field: str, sentence: str) -> TerminalError:
    return TerminalError("INVALID_ARGUMENT", sentence, field=field)
