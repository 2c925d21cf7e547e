"""Names of the steps of a run: `each[3].write` is the step `write` in round 3 of `each`."""

import re
from collections.abc import Mapping
from typing import Final

_PARTS: Final = re.compile(r"[.\[\]]+")


def home_of(name: str) -> tuple[str, int]:
    """The step that a step of a body belongs to, and the number of the round: `each[3].write` is in round 3 of
    `each`."""
    home = name[: max(name.rfind("."), 0)]
    if home.endswith("]"):
        owner, _, index = home[:-1].rpartition("[")
        return owner, int(index)
    return home, 0


def is_inside(name: str, owner: str) -> bool:
    """Whether a step is in the rounds of another one."""
    return name.startswith(owner) and name[len(owner) : len(owner) + 1] in (".", "[")


def renamed(name: str, names: Mapping[str, str]) -> str:
    """What a step of a run is called when steps of the document, by their paths, have other names of the same scope:
    `each[3].keep` is `each[3].write` after `each[].keep` became `each[].write`."""
    parts, path = [], ""
    for part in name.split("."):
        bare, bracket, index = part.partition("[")
        whole = names.get(path + bare)
        parts.append((whole[whole.rfind(".") + 1 :] if whole else bare) + bracket + index)
        path += bare + ("[]." if bracket else ".")
    return ".".join(parts)


def by_round(name: str) -> list[tuple[int, str]]:
    """What steps of a run are sorted by: `each[10].write` comes after `each[9].write`."""
    return [(int(part) if part.isdigit() else -1, part) for part in _PARTS.split(name)]
