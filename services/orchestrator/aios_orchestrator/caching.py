"""From what a document says of keeping a step's answers to what the core goes by."""

from collections.abc import Mapping
from typing import Any

from aios_orchestrator.timing import Place, wrong
from aios_orchestrator.workflow import Cache


def compile_cache(place: Place, fields: Mapping[str, Any]) -> Cache | None:
    """Compile a step's `cache: 7d`, or `cache: {key, ttl}`. Raises UNKNOWN_FIELD, BAD_RESOURCE, BAD_EXPRESSION."""
    if "cache" not in fields:
        return None
    if fields.get("effect", "read") != "read" or fields.get("memory") == "write":
        raise wrong(place, "cache", "the step changes something, which no earlier answer does in its place.")
    data = fields["cache"]
    if not isinstance(data, dict):
        return Cache(place.duration(data, "cache"))
    known = place.document.known(f"{place.path}.cache", data, ("key", "ttl"))
    if "ttl" not in known:
        raise wrong(place, "cache.ttl", "is missing: how long an answer may be given again.")
    key = place.mapping(known["key"], "cache.key") if "key" in known else None
    return Cache(place.duration(known["ttl"], "cache.ttl"), key)
