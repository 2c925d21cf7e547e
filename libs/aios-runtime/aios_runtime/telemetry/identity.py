"""Which service the running code belongs to; several of them may live in one process."""

from contextvars import ContextVar
from typing import Final

service: Final[ContextVar[str]] = ContextVar("aios_service", default="aios")
