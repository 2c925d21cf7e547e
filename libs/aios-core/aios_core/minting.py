"""What makes random ids and reads the clock; apart from the types, so that cores can import those and not this."""

import secrets
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def mint(prefix: str) -> str:
    """A new id: `prefix_`, 9 characters of the time in ms (so that ids sort by time), 16 random ones (80 bits)."""
    number = (now_ms() << 80) | secrets.randbits(80)
    return prefix + "_" + "".join(_ALPHABET[number >> shift & 31] for shift in range(120, -1, -5))


def now_ms() -> int:
    """Wall clock, milliseconds since 1970 in UTC."""
    return time.time_ns() // 1_000_000
