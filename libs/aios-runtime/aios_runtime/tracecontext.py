"""The W3C trace context of what runs now: carried in message headers, so that one trace spans every service."""

from contextvars import ContextVar
from typing import Final

current: Final[ContextVar[str]] = ContextVar("aios_traceparent", default="")
