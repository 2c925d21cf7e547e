"""Random documents of workflows with every kind of step, and other versions of them."""

import copy
import json
import re
from typing import Any

from hypothesis import strategies as st

from aios_orchestrator.definition import KINDS
from aios_orchestrator.document import Document, parse_documents

Data = st.DataObject
Step = dict[str, Any]


def steps_of(data: Data, prefix: str, depth: int, seen: list[str]) -> list[Step]:
    """A list of steps that read what stands before them, mostly; `seen` are the names that they see."""
    steps: list[Step] = []
    own: list[str] = []
    for at in range(data.draw(st.integers(1, 4 if depth else 5))):
        name = f"{prefix}{at}"
        kinds = [kind for kind in KINDS if kind not in ("map", "repeat", "workflow") or depth < 2]
        if depth:
            kinds.remove("plan")
        kind = data.draw(st.sampled_from(kinds))
        step: Step = {"name": name, **_of_kind(data, kind, name, depth, [*seen, *own], own)}
        if data.draw(st.integers(0, 4)) == 0:
            step["when"] = data.draw(st.sampled_from(["inputs.n > 0", "inputs.n > 5", *_conditions(own)]))
        if own and data.draw(st.integers(0, 4)) == 0:
            step["needs"] = data.draw(st.lists(st.sampled_from(own), unique=True, max_size=3))
        if data.draw(st.integers(0, 9)) == 0:
            ends = data.draw(st.sampled_from([{}, {"on_deadline": "note"}, {"service_level": "1h"}]))
            step |= {"deadline": "1h", **ends}
        if kind == "gate":
            steps.append(step)
            own.append(name)
            name = f"{name}-act"
            step = {
                "name": name,
                "connector": "files.write",
                "effect": data.draw(st.sampled_from(["write", "write", "irreversible", "payment"])),
                "input": {"n": 1},
                **({"when": step["when"]} if "when" in step else {}),
            }
        steps.append(step)
        own.append(name)
    return steps


def _conditions(names: list[str]) -> list[str]:
    return [f"steps.{name} == null" for name in names]


def _value(data: Data, seen: list[str]) -> Any:
    """What a step is given: of the input, of a step before it, or of one that is not there."""
    kind = data.draw(st.sampled_from(["input", "step", "step", "constant", "missing"]))
    if kind == "step" and seen:
        return {"n": 2, "of": f"${{steps.{data.draw(st.sampled_from(seen))}}}"}
    if kind == "missing" and data.draw(st.integers(0, 9)) == 0:
        return {"n": "${steps.nowhere.n}"}
    return {"n": "${inputs.n}"} if kind == "input" else {"n": 7}


def _of_kind(data: Data, kind: str, name: str, depth: int, seen: list[str], own: list[str]) -> Step:
    if kind == "agent":
        more = [{}, {"deadline": "1h"}, {"timeout": {"total": "10m"}}, {"budget": "0.10"}, {"budget": "0.10"}]
        times: Step = data.draw(st.sampled_from(more))
        return {"agent": "x", "input": _value(data, seen), "retry": {"limit": 2, "backoff": "1s"}, **times}
    if kind == "connector":
        effect = data.draw(st.sampled_from(["read", "write", "write", "irreversible"]))
        step: Step = {"connector": "files.act", "effect": effect, "input": _value(data, seen)}
        if effect == "write" and data.draw(st.booleans()):
            step["compensate"] = {"connector": "files.other", "input": {"n": 3}}
        return step
    if kind == "memory":
        return {"memory": data.draw(st.sampled_from(["read", "write"])), "input": _value(data, seen)}
    if kind == "gate":
        signed = {"approvers": {"of": ["owner", "ada"], "need": 2}}
        later = {"remind": ["10s", "20m"], "escalate": {"after": "30m", "to": "cy"}}
        more = data.draw(st.sampled_from([{}, {}, {}, {"fails": "open"}, signed, {**signed, **later}]))
        return {"gate": {"title": "Go on", "approves": [f"{name}-act"], "expires": "2h", **more}}
    if kind == "ask":
        return {
            "ask": {"title": "Which?", "questions": [{"id": "q", "text": "Which?", "options": ["a", "b"]}]}
        }
    if kind == "branch":
        return {"branch": {"cases": {"one": "inputs.n == 1", "two": "inputs.n > 5"}, "otherwise": "none"}}
    if kind == "transform":
        return {"transform": _value(data, seen)}
    if kind == "wait":
        lenient = {"event": "it.came", "timeout": "10m", "on_timeout": "go-on"}
        return {"wait": data.draw(st.sampled_from(["3s", {"until": "1970-01-01T00:00:30Z"}, *[lenient] * 3]))}
    if kind == "plan":
        may = {"agents": ["x"], "actions": {"files.act": "write", "files.other": "write"}}
        return {"plan": {"agent": "x", "goal": "It", "input": {"n": "${inputs.n}"}, "may": may, "steps": 9}}
    if kind == "workflow":
        return {"workflow": "child@v", "input": {"n": 1}}
    inner = steps_of(data, f"{name}-", depth + 1, [*seen, *own])
    if kind == "map":
        collect = data.draw(st.sampled_from(["fail", "collect"]))
        return {"map": {"over": [1, 2], "at_once": 2, "on_failure": collect, "steps": inner}}
    return {"repeat": {"limit": 2, "at_limit": "go-on", "until": "index == 1", "steps": inner}}


@st.composite
def documents(draw: st.DrawFn) -> Document:
    data = draw(st.data())
    spec: Step = {
        "inputs": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]},
        "steps": steps_of(data, "s", 0, []),
    }
    spec |= draw(st.sampled_from([{}, {"on_failure": "undo"}, {"deadline": "3h"}]))
    return _parsed({"apiVersion": "aios/v1", "kind": "Workflow", "metadata": {"name": "w"}, "spec": spec})


def _parsed(data: Step) -> Document:
    return parse_documents(json.dumps(data).encode(), "w.yaml")[0]


def other_version(data: Data, document: Document) -> tuple[Document, dict[str, str]]:
    """The same workflow with a few changes, and the names that steps of it have now, by the paths of those before."""
    text = copy.deepcopy(document.data)
    names: dict[str, str] = {}
    for _ in range(data.draw(st.integers(1, 3))):
        lists = [("", text["spec"]["steps"]), *_bodies("", text["spec"]["steps"])]
        scope, steps = data.draw(st.sampled_from(lists))
        at = data.draw(st.integers(0, len(steps) - 1))
        step = steps[at]
        what = data.draw(
            st.sampled_from(["add", "add", "drop", "rename", "rename", "input", "limits", "head"])
        )
        if what == "add":
            name = f"new{data.draw(st.integers(0, 99))}"
            kind = data.draw(st.sampled_from([{"agent": "x"}, {"connector": "files.act", "effect": "write"}]))
            steps.insert(
                data.draw(st.sampled_from([at, len(steps)])), {"name": name, **kind, "input": {"n": 1}}
            )
        elif what == "drop" and len(steps) > 1:
            steps.remove(step)
        elif what == "rename" and scope + step["name"] not in names.values():
            to = f"{step['name']}x"
            names[scope + step["name"]] = scope + to
            spoken = rf"\b{re.escape(step['name'])}(?![\w-])"
            text = json.loads(re.sub(spoken, to, json.dumps(text)))
        elif what == "input" and "input" in step:
            step["input"] = {"n": 9}
        elif what == "limits":
            step |= data.draw(st.sampled_from([{"deadline": "2h"}, {"when": "inputs.n > 0"}, {"needs": []}]))
        elif what == "head":
            text["spec"]["on_failure"] = data.draw(st.sampled_from(["undo", "keep"]))
    return _parsed(text), names


def _bodies(scope: str, steps: list[Step]) -> list[tuple[str, list[Step]]]:
    found: list[tuple[str, list[Step]]] = []
    for step in steps:
        for kind in ("map", "repeat"):
            if kind in step:
                inner = f"{scope}{step['name']}[]."
                found += [(inner, step[kind]["steps"]), *_bodies(inner, step[kind]["steps"])]
    return found
