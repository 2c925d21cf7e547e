"""The service's own settings: options from file, environment (`AIOS_MEMORY_<NAME>`) and command line."""

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aios_core.errors import TerminalError
from aios_memory import cache


class Settings(BaseModel):
    """`rebuild_episodes` drops the episode log at start and tells it again from the events."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    slots: int = Field(default=64, ge=1, le=1024)  # tasks that are worked on at once
    batch: int = Field(default=16, ge=1, le=256)  # messages that are taken at once
    cache_entries: int = Field(default=cache.MAX_ENTRIES, ge=0, le=1_000_000)
    cache_bytes: int = Field(default=cache.MAX_BYTES, ge=0)
    cache_age_days: int = Field(default=30, ge=0, le=3650)
    rebuild_episodes: bool = False


def parse(options: Mapping[str, str]) -> Settings:
    """The settings. Raises INVALID_ARGUMENT that names the option."""
    try:
        return Settings.model_validate(dict(options))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        option = ".".join(str(part) for part in first["loc"])
        raise TerminalError(
            "INVALID_ARGUMENT", f"The option {option} of memory: {first['msg']}.", field=f"memory.{option}"
        ) from None
