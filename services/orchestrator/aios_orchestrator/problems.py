"""All that is wrong with documents, gathered: a person corrects it in one go."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from aios_core.errors import MORE, TerminalError

MAX_PROBLEMS: Final = 50  # told of at once
MAX_MORE_CHARS: Final = 3000  # of those after the first, as they go over the wire


class Problems:
    """Gathers errors, each once; at most `MAX_PROBLEMS`."""

    def __init__(self) -> None:
        self.errors: list[TerminalError] = []
        self._seen: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self.errors)

    def add(self, error: TerminalError) -> None:
        """Keep an error, unless it is known or there are too many."""
        if error.message not in self._seen and len(self.errors) < MAX_PROBLEMS:
            self._seen.add(error.message)
            self.errors.append(error)

    def extend(self, errors: Sequence[TerminalError]) -> None:
        """Keep several."""
        for error in errors:
            self.add(error)

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Keep what is raised inside, and go on after it."""
        try:
            yield
        except TerminalError as error:
            self.add(error)

    def in_order(self) -> list[TerminalError]:
        """The errors as they stand in their files."""
        return sorted(self.errors, key=_place)

    def check(self) -> None:
        """Raise the first error, which has the others in its detail `more`."""
        if not self.errors:
            return
        first, *more = self.in_order()
        if more:
            told: list[list[str]] = []
            left = MAX_MORE_CHARS
            for error in more:
                row = [
                    error.code,
                    error.message,
                    *(error.details.get(n, "") for n in ("field", "line", "column")),
                ]
                left -= len(json.dumps(row))
                if left < 0:
                    break
                told.append(row)
            first = TerminalError(
                first.code,
                first.message,
                **{**first.details, "problems": str(len(self.errors)), MORE: json.dumps(told)},
            )
        raise first


def _place(error: TerminalError) -> tuple[str, int, int]:
    details = error.details
    return details.get("file", ""), int(details.get("line", "0")), int(details.get("column", "0"))
