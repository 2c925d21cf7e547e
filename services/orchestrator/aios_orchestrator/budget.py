"""Budgets: how much may be spent in a period, by all, by one workflow or customer, or by each of them. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

from aios_core.errors import TerminalError
from aios_core.money import usd
from aios_orchestrator.core.money import Cap, Charge
from aios_orchestrator.core.spike import Spike
from aios_orchestrator.document import Document

SCOPES: Final = ("workspace", "workflow", "customer")
PERIODS: Final = ("month", "day", "total")
MAX_CUSTOMER_CHARS: Final = 100
DEFAULT_TIMES: Final = 3
MAX_TIMES: Final = 100
_FIELDS: Final = ("scope", "of", "per", "timezone", "cap", "description")


@dataclass(frozen=True, slots=True)
class Budget:
    """A compiled Budget document. `of` names the workflow or customer that it is for; empty: each has one of its
    own. `cap` is in micro-dollars."""

    name: str
    version: str
    scope: str
    of: str
    per: str
    zone: ZoneInfo
    cap: int

    def account(self, workflow: str, customer: str, now_ms: int) -> str:
        """The account that what is spent now for a workflow and a customer counts in; '' where it does not count."""
        who = {"workspace": "all", "workflow": workflow, "customer": customer}[self.scope]
        if not who or self.of not in ("", who):
            return ""
        local = datetime.fromtimestamp(now_ms / 1000, self.zone)
        period = {"month": f"{local:%Y-%m}", "day": f"{local:%Y-%m-%d}", "total": "total"}[self.per]
        return f"budget/{self.name}/{period}/{who}"


def compile_budget(document: Document) -> Budget:
    """Compile and check a Budget document. Raises UNKNOWN_FIELD and BAD_RESOURCE with the place."""
    spec = document.known("spec", document.spec, _FIELDS)

    def wrong(name: str, message: str) -> TerminalError:
        return document.error("BAD_RESOURCE", f"spec.{name}", message)

    for name, words in (("scope", SCOPES), ("per", PERIODS)):
        if spec.get(name, words[0]) not in words:
            raise wrong(name, f"must be one of {', '.join(words)}.")
    scope, of = str(spec.get("scope", SCOPES[0])), str(spec.get("of", ""))
    if of and scope == "workspace":
        raise wrong("of", "a budget of the workspace is for all of it; leave `of` out, or choose a scope.")
    if "cap" not in spec:
        raise wrong("cap", "is missing: how many US dollars may be spent.")
    zone = str(spec.get("timezone", "UTC"))
    try:
        found = ZoneInfo(zone)
    except (KeyError, ValueError, OSError):
        raise wrong("timezone", f"there is no time zone {zone[:60]!r}; one is Europe/Berlin.") from None
    try:
        cap = usd(spec["cap"])
    except (TerminalError, TypeError, ValueError):
        raise wrong("cap", 'must be an amount in US dollars, such as "50.00".') from None
    per = str(spec.get("per", PERIODS[0]))
    return Budget(document.name, document.version(), scope, of, per, found, cap)


def compile_spike(document: Document, data: Any) -> Spike | None:
    """A workflow's `spike`, if it has one. Raises UNKNOWN_FIELD and BAD_RESOURCE with the place."""
    if data is None:
        return None
    fields = document.known("spec.spike", data, ("times", "at_least"))
    times = fields.get("times", DEFAULT_TIMES)
    if not isinstance(times, int) or not 1 <= times <= MAX_TIMES:
        raise document.error("BAD_RESOURCE", "spec.spike.times", f"must be a number from 1 to {MAX_TIMES}.")
    try:
        return Spike(times, usd(str(fields.get("at_least", "0.50"))))
    except TerminalError as error:
        raise document.error("BAD_RESOURCE", "spec.spike.at_least", error.message) from None


def charge_of(workflow: str, customer: str, budgets: Iterable[Budget], now_ms: int) -> Charge:
    """The accounts that what a run spends now counts in, and the caps of those that have one."""
    month = f"month/{datetime.fromtimestamp(now_ms / 1000, UTC):%Y-%m}"
    meters = [f"{month}/workspace", f"{month}/workflow/{workflow}"]
    meters += [f"{month}/customer/{customer}"] if customer else []
    caps = tuple(
        Cap(account, budget.name, budget.cap)
        for budget in budgets
        if (account := budget.account(workflow, customer, now_ms))
    )
    return Charge((*meters, *(cap.account for cap in caps)), caps)
