"""The agent that plans in the simulator."""

from typing import Any, Final

from aios_core.errors import TerminalError

MORE: Final = {"name": "more", "agent": "echo", "timeout": "10s", "input": {"n": 1}}


def planner(request: Any) -> Any:
    """The planner: what it gives follows from what it is told alone. Some first answers are no plan; asked for the
    impossible it leaves out what has begun."""
    if "inputs" not in request:  # a person gave its step another input
        raise TerminalError("INVALID_ARGUMENT", "inputs is missing.", field="inputs")
    n = int(request["inputs"]["n"])
    if n % 4 == 1 and "problems" not in request:
        return {"steps": [{"name": "a", "agent": "root"}]}
    if "parent" not in request:
        return {"why": "first", "steps": _first(n), "outputs": {}}
    steps, note = request["parent"]["steps"], request["note"]
    if note == "impossible":
        return {"steps": [{"name": "else", "agent": "echo"}]}
    begun = {item["step"].partition("[")[0] for item in request["done"] if item["state"] != "pending"}
    kept = [step for step in steps if step["name"] in begun]
    if note == "longer":
        kept = steps
    elif note == "other":
        kept = [*kept, *(step for step in _first(n) if step["name"] not in begun and step["name"] != "put")]
    return {"why": note, "steps": [*kept, {**MORE, "name": f"more-{len(steps)}-{len(kept)}"}], "outputs": {}}


def _first(n: int) -> list[dict[str, Any]]:
    each = {"name": "add", "connector": "book.book", "timeout": "20s", "input": {"n": "${item}"}}
    return [
        {"name": "put", "connector": "book.place", "timeout": "20s", "input": {"n": "${inputs.n}"}},
        {"name": "pause", "wait": "4s"},
        {"name": "ok", "gate": {"title": "Send it", "approves": ["send"], "expires": "90s"}},
        {"name": "send", "connector": "mail.send", "timeout": "8s", "input": {"n": n}},
        {"name": "each", "map": {"over": [1, 2, 3], "at_once": 1, "steps": [each]}},
    ]
