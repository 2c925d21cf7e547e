"""Random documents of workflows with every kind of step, and other versions of them."""

import copy
import json
import re
from typing import Any

from aios_orchestrator.definition import KINDS
from aios_orchestrator.document import Document, parse_documents
from tests.orchestrator.draws import Draws

Step = dict[str, Any]


def steps_of(draws: Draws, prefix: str, depth: int, seen: list[str]) -> list[Step]:
    """A list of steps that read what stands before them, mostly; `seen` are the names that they see."""
    steps: list[Step] = []
    own: list[str] = []
    for at in range(draws.number(1, 4 if depth else 5)):
        name = f"{prefix}{at}"
        kinds = [kind for kind in KINDS if kind not in ("map", "repeat", "workflow") or depth < 2]
        if depth:
            kinds.remove("plan")
        kind = draws.one_of(kinds)
        step: Step = {"name": name, **_of_kind(draws, kind, name, depth, [*seen, *own], own)}
        if draws.once_in(5):
            step["when"] = draws.one_of(["inputs.n > 0", "inputs.n > 5", *_conditions(own)])
        if own and draws.once_in(5):
            step["needs"] = draws.some_of(own, 3)
        if draws.once_in(10 if kind not in ("branch", "transform") else 100):
            ends = draws.one_of([{}, {"on_deadline": "note"}, {"service_level": "30m"}])
            step |= {"deadline": "1h", **ends}
        if kind == "gate":
            steps.append(step)
            own.append(name)
            name = f"{name}-act"
            step = {
                "name": name,
                "connector": "files.write",
                "effect": draws.one_of(["write", "write", "irreversible", "payment"]),
                "input": {"n": 1},
                **({"when": step["when"]} if "when" in step else {}),
            }
        steps.append(step)
        own.append(name)
    return steps


def _conditions(names: list[str]) -> list[str]:
    return [f"steps.{name} == null" for name in names]


def _value(draws: Draws, seen: list[str]) -> Any:
    """What a step is given: of the input, of a step before it, or of one that is not there."""
    kind = draws.one_of(["input", "step", "step", "constant", "missing"])
    if kind == "step" and seen:
        return {"n": 2, "of": f"${{steps.{draws.one_of(seen)}}}"}
    if kind == "missing" and draws.once_in(10):
        return {"n": "${steps.nowhere.n}"}
    return {"n": "${inputs.n}"} if kind == "input" else {"n": 7}


def _read(draws: Draws, seen: list[str]) -> list[str]:
    return [f"${{steps.{draws.one_of(seen)}}}"] if seen else []


def _terms(draws: Draws, seen: list[str]) -> Step:
    """How an agent works, how often, for how much and how long."""
    terms: Step = {"retry": {"limit": 2, "backoff": "1s", "never": ["NEVER"]}}
    for likely, some in (
        (4, [{"budget": "0.10"}]),
        (
            2,
            [
                {"deadline": "1h"},
                {"timeout": {"total": "10m"}},
                {"timeout": {"queued": "20s", "total": "5m"}},
            ],
        ),
        (2, [{"cache": "1h"}, {"cache": {"ttl": "1h", "key": "${inputs.n}"}}]),
        (1, [{"gives": {"type": "object", "properties": {"n": {"type": "integer"}}}}]),
        (1, [{"mode": "deterministic"}, {"priority": 3}]),
    ):
        if draws.number(0, 5) < likely:
            terms |= draws.one_of(some)
    return terms


def _of_kind(draws: Draws, kind: str, name: str, depth: int, seen: list[str], own: list[str]) -> Step:
    if kind == "agent":
        return {"agent": "x", "input": _value(draws, seen), **_terms(draws, seen)}
    if kind == "connector":
        effect = draws.one_of(["read", *["write"] * 8, "irreversible"])
        step: Step = {"connector": "files.act", "effect": effect, "input": _value(draws, seen)}
        step |= draws.one_of([{}, {"timeout": {"queued": "20s", "total": "10m"}}])
        if effect == "write" and draws.coin():
            step["compensate"] = {
                "connector": "files.other",
                "input": draws.one_of([{"n": 3}, *[{"n": f"${{steps.{name}.n}}"}] * 2]),
            }
        return step
    if kind == "memory":
        return {"memory": draws.one_of(["read", "write"]), "input": _value(draws, seen)}
    if kind == "gate":
        signed = {"approvers": {"of": ["owner", "ada"], "need": 2}}
        later = {"remind": ["10s", "20m"], "escalate": {"after": "30m", "to": "cy"}}
        more = draws.one_of([{}, {}, {}, {"fails": "open"}, signed, {**signed, **later}])
        if draws.once_in(4):
            sure = draws.one_of(["${inputs.n}", "0.4", *_read(draws, seen)])
            more = {**more, "confidence": {"of": sure, "at_least": 0.9}}
        title = draws.one_of(["Go on", *_read(draws, seen)])
        return {"gate": {"title": title, "approves": [f"{name}-act"], "expires": "2h", **more}}
    if kind == "ask":
        answers: list[Step] = [{"options": ["a", "b"]}, {}, {"pattern": "[0-9]+"}]
        question = {"id": "q", "text": "Which?", **draws.one_of(answers)}
        expires = draws.one_of(["1h", "30d"])
        return {"ask": {"title": "Which?", "questions": [question], "expires": expires}}
    if kind == "branch":
        return {"branch": {"cases": {"one": "inputs.n == 1", "two": "inputs.n > 5"}, "otherwise": "none"}}
    if kind == "transform":
        return {"transform": _value(draws, seen)}
    if kind == "wait":
        comes = {
            "event": "it.came",
            "timeout": "10m",
            "on_timeout": draws.one_of(["go-on", "fail"]),
        }
        if draws.coin():
            comes["match"] = draws.one_of(["event.data.n == inputs.n", "event.data.n == 3"])
        return {"wait": draws.one_of(["3s", {"until": "1970-01-01T00:00:30Z"}, *[comes] * 3])}
    if kind == "plan":
        may = {"agents": ["x"], "actions": {"files.act": "write", "files.other": "write"}}
        return {"plan": {"agent": "x", "goal": "It", "input": {"n": "${inputs.n}"}, "may": may, "steps": 9}}
    if kind == "workflow":
        return {"workflow": "child@v", "input": {"n": 1}}
    inner = steps_of(draws, f"{name}-", depth + 1, [*seen, *own])
    if kind == "map":
        collect = draws.one_of(["fail", "collect"])
        return {"map": {"over": [1, 2], "at_once": 2, "on_failure": collect, "steps": inner}}
    return {"repeat": {"limit": 2, "at_limit": "go-on", "until": "index == 1", "steps": inner}}


def document(draws: Draws) -> Document:
    """A workflow, mostly one that is accepted."""
    spec: Step = {
        "inputs": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]},
        "steps": steps_of(draws, "s", 0, []),
    }
    spec |= draws.one_of([{}, {"on_failure": "undo"}, {"deadline": "3h"}])
    spec |= draws.one_of([{}, {}, {"budget": {"cap": "0.25"}}, {"mode": "exploratory"}])
    spec |= draws.one_of([{}, *[{"spike": {"times": 1, "at_least": "0.01"}}] * 2, {"service_level": "10m"}])
    return _parsed({"apiVersion": "aios/v1", "kind": "Workflow", "metadata": {"name": "w"}, "spec": spec})


def _parsed(data: Step) -> Document:
    return parse_documents(json.dumps(data, default=float).encode(), "w.yaml")[0]


def other_version(draws: Draws, document: Document) -> tuple[Document, dict[str, str]]:
    """The same workflow with a few changes, and the names that steps of it have now, by the paths of those before."""
    text = copy.deepcopy(document.data)
    names: dict[str, str] = {}
    for _ in range(draws.number(1, 3)):
        lists = [("", text["spec"]["steps"]), *_bodies("", text["spec"]["steps"])]
        scope, steps = draws.one_of(lists)
        at = draws.number(0, len(steps) - 1)
        step = steps[at]
        what = draws.one_of(["add", "add", "drop", "rename", "rename", "input", "limits", "head"])
        if what == "add":
            name = f"new{draws.number(0, 99)}"
            kind = draws.one_of([{"agent": "x"}, {"connector": "files.act", "effect": "write"}])
            steps.insert(draws.one_of([at, len(steps)]), {"name": name, **kind, "input": {"n": 1}})
        elif what == "drop" and len(steps) > 1:
            steps.remove(step)
        elif what == "rename" and scope + step["name"] not in names.values():
            to = f"{step['name']}x"
            names[scope + step["name"]] = scope + to
            spoken = rf"\b{re.escape(step['name'])}(?![\w-])"
            text = json.loads(re.sub(spoken, to, json.dumps(text, default=float)))
        elif what == "input" and "input" in step:
            step["input"] = {"n": 9}
        elif what == "limits":
            step |= draws.one_of([{"deadline": "2h"}, {"when": "inputs.n > 0"}, {"needs": []}])
        elif what == "head":
            text["spec"]["on_failure"] = draws.one_of(["undo", "stay"])
    return _parsed(text), names


def _bodies(scope: str, steps: list[Step]) -> list[tuple[str, list[Step]]]:
    found: list[tuple[str, list[Step]]] = []
    for step in steps:
        for kind in ("map", "repeat"):
            if kind in step:
                inner = f"{scope}{step['name']}[]."
                found += [(inner, step[kind]["steps"]), *_bodies(inner, step[kind]["steps"])]
    return found
