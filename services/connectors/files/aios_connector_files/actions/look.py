"""files.look: which versions stand at some paths now, so that a person approves replacing exactly those."""

import asyncio
from typing import Final

from pydantic import BaseModel, field_validator

from aios_connector_files.actions.target import Target
from aios_connector_files.paths import check_path
from aios_connector_files.root import Root
from aios_sdk.connector import Action, Arguments, Call, Done, Effect, Result, action

ABSENT: Final = "absent"
MAX_PATHS: Final = 50


class Look(Arguments):
    """`paths` are relative to the root, at most `MAX_PATHS`."""

    paths: list[str]

    @field_validator("paths")
    @classmethod
    def _paths(cls, paths: list[str]) -> list[str]:
        if not 0 < len(paths) <= MAX_PATHS:
            raise ValueError(f"must name 1 to {MAX_PATHS} files")
        for path in paths:
            check_path(path)
        return paths


class Found(Result):
    """`version` is the SHA-256 in hex of the file that stands at `path`, or `absent`."""

    path: str
    version: str


class Looked(Result):
    """In the order of the paths."""

    found: list[Found]


@action("look", input=Look, output=Looked, effect=Effect.READ)
class LookAction(Action[Look, BaseModel, Looked]):
    """Hashes what stands at the paths; keeps none of it."""

    def __init__(self, root: Root) -> None:
        self._root = root

    async def perform(self, input: Look, captured: BaseModel | None, call: Call) -> Done[Looked]:
        found = [await asyncio.to_thread(self._one, path) for path in input.paths]
        there = sum(one.version != ABSENT for one in found)
        return Done(Looked(found=found), (), f"{there} of {len(found)} files stand there already")

    def _one(self, path: str) -> Found:
        seen = Target(self._root, check_path(path)).see()
        return Found(path=path, version=seen.before or ABSENT)
