"""A library that keeps a cache in the home directory from its import on, as some do."""

from pathlib import Path

cache = Path.home() / ".cache" / "library"
cache.mkdir(parents=True)
(cache / "index").write_text("x")
