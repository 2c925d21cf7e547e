"""Bytes of a file to text: UTF-8 and UTF-16 with and without a byte order mark, Latin-1 (as Windows-1252)."""

import codecs
from dataclasses import dataclass

from aios_agent_runner.agents.monthly_report.reasons import ReasonCode

SAMPLE_BYTES = 64 * 1024
"""How much of a file is looked at to tell text from a binary file."""

MAX_CONTROL_SHARE = 0.01
"""A text may hold a few stray control characters; a larger share of them means it is not text."""

MIN_ZERO_SHARE = 0.3
"""Of the high bytes of UTF-16 without a mark; digits, delimiters and line ends alone make more of them zero."""

_MAGIC = (
    (b"%PDF", "a PDF"),
    (b"PK\x03\x04", "a spreadsheet or zip archive"),
    (b"\xd0\xcf\x11\xe0", "an old Office document"),
    (b"\x89PNG", "an image"),
    (b"\xff\xd8\xff", "an image"),
    (b"GIF8", "an image"),
    (b"\x1f\x8b", "a compressed file"),
    (b"7z\xbc\xaf", "a compressed file"),
    (b"Rar!", "a compressed file"),
    (b"\xfd7zXZ", "a compressed file"),
    (b"SQLite format 3", "a database"),
)
_TEXT_CONTROLS = frozenset("\t\n\r\v\f\x1a\x1b")


@dataclass(frozen=True, slots=True)
class Text:
    """Decoded text without its byte order mark, and the encoding it was read as."""

    content: str
    encoding: str


@dataclass(frozen=True, slots=True)
class NotText:
    """Why the bytes are not text: BINARY_FILE or UNREADABLE_TEXT, with the sentence's fields."""

    code: ReasonCode
    fields: dict[str, str]


def decode(data: bytes) -> Text | NotText:
    """By byte order mark, then UTF-16 by its zero bytes, then UTF-8, then Windows-1252, then Latin-1."""
    for magic, what in _MAGIC:
        if data.startswith(magic):
            return NotText(ReasonCode.BINARY_FILE, {"what": what})
    for mark, codec, name in (
        (codecs.BOM_UTF8, "utf-8", "UTF-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le", "UTF-16"),
        (codecs.BOM_UTF16_BE, "utf-16-be", "UTF-16"),
    ):
        if data.startswith(mark):
            return _marked(data[len(mark) :], codec, name)
    guessed = _utf16_byte_order(data[:SAMPLE_BYTES])
    if guessed is not None and len(data) % 2 == 0:
        return _marked(data, guessed, "UTF-16")
    if b"\0" in data:
        return NotText(ReasonCode.BINARY_FILE, {"what": "it holds zero bytes"})
    return _unmarked(data)


def _marked(data: bytes, codec: str, name: str) -> Text | NotText:
    try:
        return _checked(data.decode(codec), name)
    except UnicodeDecodeError:
        if name == "UTF-8":  # a mark in front of text in another encoding: two exports put together
            return _unmarked(data)
        return NotText(ReasonCode.UNREADABLE_TEXT, {"encoding": name})


def _unmarked(data: bytes) -> Text | NotText:
    for codec, name in (("utf-8", "UTF-8"), ("cp1252", "Windows-1252")):
        try:
            return _checked(data.decode(codec), name)
        except UnicodeDecodeError:
            continue
    return _checked(data.decode("latin-1"), "Latin-1")


def _checked(text: str, encoding: str) -> Text | NotText:
    if "\0" in text:
        return NotText(ReasonCode.BINARY_FILE, {"what": "it holds zero bytes"})
    sample = text[:SAMPLE_BYTES]
    controls = sum(1 for char in sample if char < " " and char not in _TEXT_CONTROLS)
    if controls > max(1.0, MAX_CONTROL_SHARE * len(sample)):
        return NotText(ReasonCode.BINARY_FILE, {"what": "it holds control characters"})
    return Text(text.lstrip("\ufeff").rstrip("\x1a"), encoding)


def _utf16_byte_order(sample: bytes) -> str | None:
    """The UTF-16 codec whose high bytes are often zero and whose low bytes never are, as in any table."""
    pairs = len(sample) // 2
    if pairs < 2:
        return None
    even, odd = sample[: pairs * 2 : 2].count(0), sample[1 : pairs * 2 : 2].count(0)
    if even == 0 and odd >= pairs * MIN_ZERO_SHARE:
        codec = "utf-16-le"
    elif odd == 0 and even >= pairs * MIN_ZERO_SHARE:
        codec = "utf-16-be"
    else:
        return None
    read = sample[: pairs * 2].decode(codec, "replace")
    return None if any(char < " " and char not in _TEXT_CONTROLS for char in read) else codec
