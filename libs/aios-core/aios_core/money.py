"""Money that AIOS spends: integer micro-dollars, never a float."""

from decimal import ROUND_CEILING, Decimal
from typing import NewType

from aios_core.errors import TerminalError

Micros = NewType("Micros", int)
"""Millionths of a US dollar."""

MAX_MICROS = 10**15


def usd(text: str | int | Decimal) -> Micros:
    """`usd("0.25")` is 250,000 micro-dollars; a fraction of one is rounded up, so that a price is never too low."""
    try:
        amount = Decimal(text)
    except ArithmeticError:
        raise TerminalError("INVALID_ARGUMENT", f"{text!r} is not an amount in US dollars.") from None
    if not amount.is_finite() or amount < 0 or amount * 10**6 > MAX_MICROS:
        raise TerminalError(
            "INVALID_ARGUMENT", f"{text} is not an amount between 0 and {MAX_MICROS // 10**6} US dollars."
        )
    return Micros(int((amount * 10**6).to_integral_value(ROUND_CEILING)))


def format_usd(amount: int) -> str:
    """`$0.00` for nothing, two decimals as a rule, more where a smaller amount would vanish."""
    dollars = Decimal(amount) / 10**6
    if amount % 10_000 == 0:
        return f"${dollars:.2f}"
    return "$" + format(dollars.normalize(), "f")
