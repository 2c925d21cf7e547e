"""The launcher: which services a target starts, on what, and how they stop. `serve` is what `aios serve` calls."""

from aios_cli.launcher.settings import ServeSettings

__all__ = ["ServeSettings"]
