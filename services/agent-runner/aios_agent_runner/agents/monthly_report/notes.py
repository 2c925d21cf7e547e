"""The notes files: what stands under “For the client” goes into the client's report, all else stays.

A Markdown heading (`## For the client`, or underlined with === or ---) opens a section that ends at the next
heading of the same or a higher level. Where the words stand alone on a line without being a heading (as in
plain text, or in bold), nothing marks an end, so the section ends at the first blank line after its text, or
at a short line that ends with a colon. Comments (`<!-- -->`) are not part of it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

MAX_NOTES_BYTES: Final = 1024 * 1024
MAX_SECTION_CHARS: Final = 20_000
"""Of the text for the client, over all notes files."""

MAX_LABEL_WORDS: Final = 4

_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_ATX = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*")
_UNDERLINE = re.compile(r" {0,3}(=+|-+)[ \t]*")
_FENCE = re.compile(r" {0,3}(```|~~~)")
_BULLET = re.compile(r"[ \t]*(?:[-*+•]|\d{1,3}[.)])[ \t]+(.*)")
_DECORATION = " \t*_:"
_WANTED: Final = "for the client"
_PLAIN_LEVEL: Final = 0


@dataclass(frozen=True, slots=True)
class Block:
    """A piece of text: a `paragraph`, an `item` of a list or a `heading`."""

    kind: str
    text: str


@dataclass(slots=True)
class _Lines:
    """Lines, and the level of those that are headings: 1 to 6, 0 for the wanted words without markup."""

    text: list[str] = field(default_factory=list)
    level: list[int | None] = field(default_factory=list)
    title: list[str] = field(default_factory=list)

    def add(self, text: str, level: int | None = None, title: str = "") -> None:
        self.text.append(text)
        self.level.append(level)
        self.title.append(title)


def client_section(text: str) -> tuple[list[Block], bool]:
    """The blocks for the client, and whether the notes hold anything else."""
    lines = _marked(_COMMENT.sub("", text))
    taken = dict.fromkeys(_section_lines(lines))
    rest = any(line.strip() for index, line in enumerate(lines.text) if index not in taken)
    inner = [index for index in taken if not _opens(lines, index)]
    blocks = _blocks(
        [(lines.text[index], lines.title[index] if lines.level[index] else None) for index in inner]
    )
    return blocks, rest or bool(_COMMENT.search(text))


def _marked(text: str) -> _Lines:
    raw = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    lines, fence, index = _Lines(), "", 0
    while index < len(raw):
        line = raw[index]
        following = raw[index + 1] if index + 1 < len(raw) else ""
        if found := _FENCE.match(line):
            fence = "" if fence == found[1] else fence or found[1]
            lines.add(line)
        elif found := _ATX.fullmatch(line):
            # Inside a code fence it opens nothing, but ends a section: rather too little than too much.
            title = "" if fence else (found[2] or "")
            lines.add(line, len(found[1]), title)
        elif (
            line.strip()
            and not fence
            and (under := _UNDERLINE.fullmatch(following))
            and not _BULLET.fullmatch(line)
        ):
            lines.add(line, 1 if under[1][0] == "=" else 2, line.strip())
            index += 1
        elif not fence and _is_wanted(line) and (index == 0 or not raw[index - 1].strip()):
            lines.add(line, _PLAIN_LEVEL, line)
        else:
            lines.add(line)
        index += 1
    return lines


def _is_wanted(title: str) -> bool:
    return " ".join(title.strip(_DECORATION).casefold().split()) == _WANTED


def _opens(lines: _Lines, index: int) -> bool:
    return lines.level[index] is not None and _is_wanted(lines.title[index])


def _section_lines(lines: _Lines) -> Iterator[int]:
    open_level: int | None = None
    has_text = False
    for index, level in enumerate(lines.level):
        if _opens(lines, index):
            open_level, has_text = level, False
        elif open_level is None:
            continue
        elif (level is not None and (level <= open_level or open_level == _PLAIN_LEVEL)) or (
            open_level == _PLAIN_LEVEL and has_text and _ends_plain(lines.text[index])
        ):
            open_level = None
            continue
        else:
            has_text = has_text or bool(lines.text[index].strip())
        yield index


def _ends_plain(line: str) -> bool:
    """A blank line, or a few words and a colon, which name something else (`Internal:`)."""
    line = line.rstrip(_DECORATION.replace(":", ""))
    return not line or (line.endswith(":") and len(line.split()) <= MAX_LABEL_WORDS)


def _blocks(lines: list[tuple[str, str | None]]) -> list[Block]:
    blocks: list[Block] = []
    paragraph: list[str] = []

    def flush() -> None:
        if paragraph:
            blocks.append(Block("paragraph", " ".join(paragraph)))
            paragraph.clear()

    for line, title in lines:
        bullet = _BULLET.fullmatch(line)
        if title is not None:
            flush()
            blocks.append(Block("heading", " ".join(title.split())))
        elif not line.strip() or _FENCE.match(line):
            flush()
        elif bullet:
            flush()
            blocks.append(Block("item", " ".join(bullet[1].split())))
        elif blocks and blocks[-1].kind == "item" and not paragraph and line[:1] in " \t":
            blocks[-1] = Block("item", f"{blocks[-1].text} {' '.join(line.split())}")
        else:
            paragraph.append(" ".join(line.split()))
    flush()
    return [block for block in blocks if block.text]
