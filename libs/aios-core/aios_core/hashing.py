"""Hashes: of canonical arguments, of stored events in a chain, and of request contents."""

import hashlib
from typing import Final

GENESIS: Final = bytes(32)  # what the first event of a run has before it


def sha256(*parts: bytes) -> bytes:
    """SHA-256 over parts of any length; each is preceded by its length, so that no two lists of parts are alike."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()


def content_hash(data: bytes) -> str:
    """The plain SHA-256 of bytes in hex, as `sha256sum` prints it: the name of an artifact."""
    return hashlib.sha256(data).hexdigest()


def event_hash(stored: bytes) -> bytes:
    """The hash of one stored event, over its bytes exactly as stored; they contain the hash of the one before."""
    return hashlib.sha256(stored).digest()
