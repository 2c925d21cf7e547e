"""Workflows put together at random: every kind of step within every other, some of it failing, most of it changing
something.

What a step is called says what it is: `…-act` changes the world behind the gate `…`, `…-put` without one; `work` is
planned.
"""

import json
from random import Random
from typing import Any, Final

PREFIX: Final = "composed-"
DEPTH: Final = 2  # of bodies within bodies
MOST: Final = (4, 3, 2)  # steps of a workflow, of a body, of a body within it
ROUNDS: Final = 2  # of a map or a repeat
_ACT, _PUT, _PLANNED = "-act", "-put", "work"
_KINDS: Final = (
    *("agent", "put", "act") * 3,
    *("map", "repeat", "fail") * 2,
    *("workflow", "branch", "transform", "ask", "wait", "memory", "plan"),
)
_OUTERMOST: Final = frozenset({"workflow", "plan"})
_DEEPEST: Final = tuple(kind for kind in _KINDS if kind not in {"map", "repeat", *_OUTERMOST})
_HEADS: Final[tuple[dict[str, Any], ...]] = (
    *({},) * 5,
    *({"on_failure": "undo"},) * 3,
    {"deadline": "3m"},
    {"service_level": "40s"},
)
_ASKED: Final[tuple[dict[str, Any], ...]] = (
    *({},) * 4,
    {"fails": "open"},
    {"approvers": {"of": ["owner"]}, "remind": ["20s"], "escalate": {"after": "30s", "to": "cy"}},
)
_BOOKS: Final = ("book.place", "book.book")
_INPUTS: Final = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}

Step = dict[str, Any]


def composed(rng: Random, name: str) -> str:
    """The documents of a workflow of a name, and of another one that it may use."""
    child = f"{name}-child"
    documents = [
        _workflow(rng, child, _steps(rng, "c", DEPTH - 1, [], ""), {}),
        _workflow(rng, name, _steps(rng, "s", 0, [], child), rng.choice(_HEADS)),
    ]
    return "\n---\n".join(json.dumps(document) for document in documents)


def _workflow(rng: Random, name: str, steps: list[Step], head: Step) -> Step:
    spec = {"inputs": _INPUTS, "budget": {"cap": rng.choice(["0.40", "0.40", "0.15"])}, **head}
    spec |= {"outputs": {"n": "${inputs.n}"}, "steps": steps}
    return {"apiVersion": "aios/v1", "kind": "Workflow", "metadata": {"name": name}, "spec": spec}


def _steps(rng: Random, prefix: str, depth: int, seen: list[str], child: str) -> list[Step]:
    """A list of steps; `seen` are the names outside of it that they may read."""
    steps: list[Step] = []
    come_before: dict[str, set[str]] = {}
    for at in range(rng.randint(1, MOST[depth])):
        kind = rng.choice(_KINDS if depth < DEPTH else _DEEPEST)
        if kind in _OUTERMOST and (depth or not child or _PLANNED in come_before):
            kind = "put"
        name = _PLANNED if kind == "plan" else f"{prefix}{at}{_PUT if kind == 'put' else ''}"
        own, needs = list(come_before), list(come_before)[-1:]
        more: Step = {}
        if rng.random() < 0.3:
            needs = more["needs"] = sorted(rng.sample(own, rng.randint(0, min(2, len(own)))))
        before = {*needs}.union(*(come_before[other] for other in needs))
        if rng.random() < 0.2:
            left_out = [f"steps['{other}'] == null" for other in sorted(before)]
            more["when"] = rng.choice(["inputs.n % 2 == 0", *left_out])
        come_before[name] = before
        if kind == "act":
            gate = {"title": f"Do {name}", "approves": [name + _ACT], "expires": "90s"}
            steps.append({"name": name, "gate": gate | rng.choice(_ASKED), **more})
            more["needs"], before = [*needs, name], {*before, name}
            name += _ACT
            come_before[name] = before
        read = [*seen, *sorted(before)]
        steps.append({"name": name, **_of_kind(rng, kind, name, depth, read, child), **more})
    return steps


def _order(rng: Random) -> Step:
    """What a connector takes, or now and then does not."""
    return {"n": rng.choice(["none"] if rng.random() < 0.05 else [1, "${inputs.n}"])}


def _value(rng: Random, read: list[str]) -> Any:
    """What a step is given: of the input, or of a step before it, which may have been left out."""
    if not read or rng.random() < 0.4:
        return {"n": "${inputs.n}"}
    if rng.random() < 0.05:
        return {"n": "${1 % (inputs.n - inputs.n)}"}  # it fails when it is worked out
    return {"n": 2, "of": f"${{steps['{rng.choice(read)}']}}"}


def _of_kind(rng: Random, kind: str, name: str, depth: int, read: list[str], child: str) -> Step:
    if kind == "agent":
        spends = rng.choice([{}, {"budget": "0.05"}, {"budget": "0.10"}, {"cache": "20s"}])
        more: Step = rng.choice([{}, {}, {"retry": {"limit": 2, "backoff": "500ms"}}, {"deadline": "50s"}])
        return {"agent": "echo", "timeout": "10s", "input": _value(rng, read), **spends, **more}
    if kind == "put":
        step: Step = {
            "connector": rng.choice(_BOOKS),
            "effect": "write",
            "timeout": "20s",
            "input": _order(rng),
        }
        if rng.random() < 0.3:
            step["compensate"] = {"connector": rng.choice(["book.place", "pay.charge"]), "input": {"n": 3}}
        return step
    if kind == "act":
        connector = rng.choice(["mail.send", "pay.charge", "book.place"])
        return {"connector": connector, "effect": "write", "timeout": "20s", "input": _order(rng)}
    if kind == "memory":
        fact = {
            "kind": "fact",
            "key": f"composed/{name}",
            "expect": "any",
            "value": {"n": 1},
            "note": "known",
        }
        return {"memory": "write", "input": {"writes": [fact]}}
    if kind == "ask":
        question = {"id": "q", "text": "Which one?", "options": ["x", "y"]}
        return {"ask": {"title": "Which?", "questions": [question], "expires": "2m"}}
    if kind == "branch":
        return {"branch": {"cases": {"even": "inputs.n % 2 == 0"}, "otherwise": "odd"}}
    if kind == "wait":
        heard = {"event": "sim.replied", "match": "event.data.n == inputs.n"}
        return {"wait": rng.choice(["2s", {**heard, "timeout": "6s", "on_timeout": "go-on"}])}
    if kind == "fail":  # a planner that is told nothing says so
        return {"agent": "planner", "timeout": "10s", "input": {"n": 1}}
    if kind == "plan":
        actions = {"book.place": "write", "book.book": "write", "mail.send": "write"}
        may = {"agents": ["echo"], "actions": actions}
        inputs = {"n": rng.randrange(10)}
        plan = {"agent": "planner", "goal": "Do it", "input": inputs, "may": may, "expires": "80s"}
        return {"plan": plan, "budget": "0.05", "timeout": "10s"}
    if kind == "workflow":
        return {"workflow": child, "input": {"n": "${inputs.n}"}}
    if kind == "transform":
        return {"transform": _value(rng, read)}
    inner = _steps(rng, f"{name}-", depth + 1, read, child)
    if kind == "map":
        over = list(range(ROUNDS))
        fails = rng.choice(["fail", "collect"])
        return {"map": {"over": over, "at_once": rng.randint(1, ROUNDS), "on_failure": fails, "steps": inner}}
    return {"repeat": {"limit": ROUNDS, "at_limit": "go-on", "until": "index == 1", "steps": inner}}


def changes(path: str) -> bool:
    """Whether a step of such a workflow, by its path, changes the world; but for what is planned."""
    return path.endswith((_ACT, _PUT))


def gate_of(path: str) -> str | None:
    """The gate in front of a step of such a workflow, by its name in the same scope; but for what is planned."""
    return path.removesuffix(_ACT).rpartition(".")[2] if path.endswith(_ACT) else None
