"""The service's own settings: options from file, environment (`AIOS_CONNECTOR_FILES_<NAME>`) and command line."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aios_core.errors import TerminalError


class Settings(BaseModel):
    """`root` is the folder of the clients' folders. `initial` says what the months are that are there when a root is
    first seen: `baseline` (known, no event) or `all` (each one an event). `approval` `optional` lets changes happen
    that no gate has approved. Times in seconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    root: Path
    settle_seconds: float = Field(default=5.0, ge=0.05, le=3600)
    rescan_seconds: float = Field(default=60.0, ge=0.5, le=86_400)
    initial: Literal["baseline", "all"] = "baseline"
    approval: Literal["required", "optional"] = "required"
    watch: bool = True
    slots: int = Field(default=8, ge=1, le=256)  # tasks that are worked on at once


def parse(options: Mapping[str, str]) -> Settings:
    """The settings. Raises INVALID_ARGUMENT that names the option."""
    try:
        return Settings.model_validate(dict(options))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        option = ".".join(str(part) for part in first["loc"])
        raise TerminalError(
            "INVALID_ARGUMENT",
            f"The option {option} of connector-files: {first['msg']}.",
            field=f"connector-files.{option}",
        ) from None
