"""What the simulated installation is asked to do: workflows that touch every kind of step, and one person."""

from typing import Final

from aios_testing.sim import composed

_HEAD: Final = """apiVersion: aios/v1
kind: Workflow
metadata: {{name: {name}}}
spec:
  inputs: {{type: object, properties: {{n: {{type: integer}}}}, required: [n]}}
  budget: {{cap: "{cap}"}}
{head}  outputs: {{n: "${{inputs.n}}"}}
  steps:
"""


def _workflow(name: str, steps: str, cap: str = "0.40", head: str = "") -> str:
    return _HEAD.format(name=name, cap=cap, head=head) + steps.strip("\n") + "\n"


_PAY: Final = """
  - {name: look, agent: echo, timeout: 10s, budget: "0.10", input: {n: "${inputs.n}"}}
  - name: ok
    gate: {title: "Pay ${steps.look.n}", why: "asked", risk: "money", approves: [charge, place], expires: 2m}
  - name: charge
    connector: pay.charge
    effect: write
    timeout: 8s
    input: {n: "${steps.look.n}"}
  - {name: place, connector: book.place, effect: write, timeout: 20s, input: {n: "${inputs.n}"}}
  - name: note
    memory: write
    input:
      writes:
        - kind: fact
          key: "paid/${inputs.n}"
          expect: any
          value: {n: "${inputs.n}"}
          note: "paid"
"""
_MAIL: Final = """
  - {name: draft, agent: echo, timeout: 10s, budget: "0.10", input: {n: "${inputs.n}"}}
  - name: ok
    gate: {title: "Send ${steps.draft.n}", why: "asked", risk: "words", approves: [send], expires: 90s}
  - {name: send, connector: mail.send, effect: write, timeout: 8s, input: {n: "${steps.draft.n}"}}
  - {name: pause, wait: 3s}
  - {name: book, connector: book.book, effect: write, timeout: 20s, input: {n: "${inputs.n}"}}
"""
_FAN: Final = """
  - {name: a, agent: echo, needs: [], timeout: 10s, budget: "0.10", retry: {limit: 8, backoff: 500ms}, input: {n: 1}}
  - {name: b, agent: echo, needs: [], timeout: 10s, budget: "0.10", retry: {limit: 8, backoff: 500ms}, input: {n: 2}}
  - {name: sum, needs: [a, b], transform: {n: "${steps.a.n + steps.b.n}"}}
  - name: fork
    branch: {cases: {even: "inputs.n % 2 == 0"}, otherwise: odd}
  - name: ask
    when: "steps.fork.case == 'even'"
    ask: {title: "Which?", questions: [{id: q, text: "Which one?", options: [x, y]}], expires: 2m}
  - {name: keep, connector: book.book, effect: write, timeout: 20s, input: {n: "${steps.sum.n}"}}
  - {name: end, agent: echo, timeout: 10s, budget: "0.10", input: {n: "${inputs.n}"}}
"""
_TWICE: Final = """
  - {name: one, connector: book.place, effect: write, timeout: 20s, input: {n: "${inputs.n}"}}
  - {name: two, connector: book.book, effect: write, timeout: 20s, input: {n: "${inputs.n}"}}
  - {name: three, connector: book.place, effect: write, timeout: 20s, input: {n: "${inputs.n}"}}
"""
_CHAIN: Final = """
  - {name: a, agent: echo, timeout: 10s, input: {n: "${inputs.n}"}}
  - {name: b, agent: echo, timeout: 10s, input: {n: "${steps.a.n}", from: "${steps.a}"}}
  - {name: c, agent: echo, timeout: 10s, input: ["${steps.b}", "${steps.a.n}"]}
  - {name: keep, connector: book.book, effect: write, timeout: 20s, input: {n: "${inputs.n}"}}
  - {name: d, agent: echo, timeout: 10s, input: "${steps.c}"}
  - {name: e, agent: echo, timeout: 10s, input: {d: "${steps.d}"}}
"""
_EACH: Final = """
  - {name: list, agent: echo, timeout: 10s, input: {of: ["${inputs.n}", 7, 8]}}
  - name: all
    map:
      over: "${steps.list.of}"
      at_once: 2
      on_failure: collect
      steps:
        - {name: ok, needs: [], gate: {title: "Send ${item}", approves: [send], expires: 90s}}
        - {name: sure, needs: [], agent: echo, timeout: 10s, budget: "0.10", input: {n: "${item}"}}
        - {name: send, needs: [ok, sure], connector: mail.send, effect: write, timeout: 8s, input: {n: "${item}"}}
  - {name: keep, connector: book.book, effect: write, timeout: 20s, input: {failed: "${steps.all.failed}"}}
"""
_TURNS: Final = """
  - name: turns
    repeat:
      limit: 3
      until: "index == 1"
      steps:
        - {name: a, agent: echo, timeout: 10s, input: {before: "${previous}", at: "${index}"}}
        - {name: put, connector: book.place, effect: write, timeout: 20s, input: {n: "${steps.a.at}"}}
        - {name: pause, wait: 1s}
      result: "${steps.a.at}"
  - {name: sub, workflow: chain, input: {n: "${inputs.n}"}}
  - name: both
    map:
      over: [[1], [2, 3]]
      steps:
        - name: one
          map:
            over: "${item}"
            steps: [{name: hold, connector: pay.charge, effect: write, timeout: 8s, input: {n: "${item}"}}]
"""
_HEAR: Final = """
  - {name: look, agent: echo, timeout: 10s, input: {n: "${inputs.n}"}}
  - name: maybe
    wait: {event: sim.replied, match: "event.data.n == inputs.n", timeout: 20s, on_timeout: go-on}
  - name: reply
    wait: {event: sim.replied, match: "event.data.sent > 0 && steps.look.n == event.data.n"}
  - {name: keep, connector: book.book, effect: write, timeout: 20s, input: {n: "${inputs.n}"}}
"""
_SIGNED: Final = """
  - {name: draft, agent: echo, timeout: 10s, input: {n: "${inputs.n}", sure: "${inputs.n % 2 == 0 ? '0.99' : '0.5'}"}}
  - name: ok
    gate:
      title: "Sign ${steps.draft.n}"
      approves: [send]
      expires: 90s
      remind: [20s, 40s]
      escalate: {after: 30s, to: cy}
      approvers: {of: [owner, ada], need: 2}
  - {name: send, connector: mail.send, effect: write, timeout: 8s, input: {n: "${steps.draft.n}"}}
  - name: sure
    gate:
      title: "Charge"
      approves: [charge]
      expires: 60s
      fails: open
      confidence: {of: "${steps.draft.sure}", at_least: 0.95}
  - {name: charge, connector: pay.charge, effect: write, timeout: 8s, input: {n: "${inputs.n}"}}
"""
_PLANNED: Final = """
  - name: work
    plan:
      agent: planner
      goal: "Do ${inputs.n}"
      input: {n: "${inputs.n}"}
      may: {agents: [echo], actions: {book.place: write, book.book: write, mail.send: write}}
      expires: 80s
    budget: "0.05"
    timeout: 10s
  - {name: end, connector: book.place, effect: write, timeout: 20s, input: {n: "${inputs.n}"}}
"""
_TICK: Final = """
  - {name: book, connector: book.book, effect: write, timeout: 20s, input: {n: "${inputs.n}"}}
"""
SCHEDULE: Final = (
    _workflow("tick", _TICK)
    + """---
apiVersion: aios/v1
kind: Schedule
metadata: {name: tick}
spec: {every: 15s, workflow: tick, input: {n: 7}, missed: run-all, concurrency: queue, start: "%s", end: "%s"}
"""
)
_TIMED: Final = """
  - name: look
    agent: echo
    budget: "0.05"
    timeout: {queued: 6s, running: 10s, total: 45s}
    input: {n: "${inputs.n}"}
  - name: place
    connector: book.place
    effect: write
    timeout: {queued: 15s, running: 8s, total: 90s}
    service_level: 20s
    input: {n: "${steps.look.n}"}
  - name: all
    deadline: 80s
    map:
      over: [1, 2, 3]
      at_once: 2
      steps:
        - {name: sure, agent: echo, timeout: 10s, input: {n: "${item}"}}
        - {name: ok, gate: {title: "Keep ${item}", approves: [keep], expires: 3m}}
        - {name: keep, connector: book.book, effect: write, timeout: 20s, input: {n: "${item}"}}
  - {name: end, agent: echo, timeout: 10s, input: {n: "${inputs.n}"}, deadline: 1m, on_deadline: note}
"""
_AMENDS: Final = """
  - {name: same, agent: echo, cache: 20s, timeout: 10s, input: {n: 1}}
  - {name: one, connector: book.place, effect: write, timeout: 20s, input: {n: "${inputs.n}"}}
  - name: two
    connector: book.book
    effect: write
    timeout: 20s
    input: {n: "${inputs.n}"}
    compensate: {connector: book.place, input: {n: "${steps.two.version}"}}
  - name: three
    connector: book.place
    effect: write
    timeout: 20s
    input: {n: "${inputs.n}"}
    compensate: {connector: pay.charge, input: {n: "${inputs.n}"}}
  - {name: never, agent: echo, when: "inputs.n % 2 == 0", deadline: "2001-01-01T00:00:00Z"}
"""
_LINE: Final = """
  - {name: work, agent: echo, timeout: 10s, input: {n: "${inputs.n}"}, priority: 8}
  - {name: book, connector: book.book, effect: write, timeout: 20s, input: {n: "${inputs.n}"}}
  - name: each
    map:
      over: [1, 2, 3, 4]
      steps: [{name: place, connector: book.place, effect: write, timeout: 20s, input: {n: "${item}"}}]
"""
_LIMITS: Final = """---
apiVersion: aios/v1
kind: Limit
metadata: {name: book}
spec: {connector: book, in_flight: 3, rate: 4/s}
---
apiVersion: aios/v1
kind: Limit
metadata: {name: line}
spec: {workflow: line, in_flight: 2}
---
apiVersion: aios/v1
kind: Limit
metadata: {name: everybody}
spec: {customer: "*", in_flight: 2, weight: 3}
"""
CROWD: Final = (
    _workflow(
        "line",
        _LINE,
        head='  concurrency: {policy: queue, limit: 2}\n  priority: 2\n  customer: "${string(inputs.n % 2)}"\n',
    )
    + "---\n"
    + _workflow("lone", _TICK, head='  concurrency: {policy: skip, key: "x"}\n')
    + _LIMITS
)
_INTENT: Final = """apiVersion: aios/v1
kind: Intent
metadata: {name: wanted, title: Wanted}
spec:
  workflow: fan
  parameters: {type: object, properties: {n: {type: integer}}, required: [n]}
  rules:
    - {name: asked, event: sim.wanted, parameters: {n: "${event.data.n}"}}
"""
CAPS: Final = {"everything": "0.80", "each-flow": "0.30", "dear": "0.10"}
_SCOPES: Final = {
    "everything": "per: total",
    "each-flow": "scope: workflow, per: day",
    "dear": "scope: workflow, of: dear",
}


def _budgets(**caps: str) -> str:
    return "---\n".join(
        f'apiVersion: aios/v1\nkind: Budget\nmetadata: {{name: {name}}}\nspec: {{{_SCOPES[name]}, cap: "{cap}"}}\n'
        for name, cap in caps.items()
    )


_DEAR: Final = """
  - {name: one, agent: echo, timeout: 10s, budget: "0.10", input: {n: "${inputs.n}"}}
  - {name: two, agent: echo, timeout: 10s, budget: "0.10", input: {n: "${steps.one.n}"}}
"""
DEAR: Final = _workflow("dear", _DEAR) + "---\n" + _budgets(dear=CAPS["dear"])
RAISED: Final = (
    _budgets(dear="0.30"),
    _budgets(**{"dear": "9.00", "each-flow": "9.00", "everything": "30.00"}),
)
WORKFLOWS: Final = ("pay", "mail", "fan", "twice", "tight", "only", "chain", "each", "turns")
ASIDE: Final = ("timed", "amends")  # started apart from the others
DOCUMENTS: Final = {
    "pay.yaml": _workflow("pay", _PAY),
    "mail.yaml": _workflow("mail", _MAIL),
    "fan.yaml": _workflow("fan", _FAN),
    "twice.yaml": _workflow("twice", _TWICE),
    "tight.yaml": _workflow("tight", _FAN, cap="0.25"),
    "only.yaml": _workflow("only", _MAIL, head='  concurrency: {key: "same", policy: replace}\n'),
    "chain.yaml": _workflow("chain", _CHAIN),
    "each.yaml": _workflow("each", _EACH),
    "turns.yaml": _workflow("turns", _TURNS),
    "timed.yaml": _workflow("timed", _TIMED, head="  deadline: 3m\n  service_level: 40s\n"),
    "amends.yaml": _workflow("amends", _AMENDS, head="  on_failure: undo\n"),
    "wanted.yaml": _INTENT,
    "budgets.yaml": _budgets(**{name: CAPS[name] for name in ("everything", "each-flow")}),
    "hear.yaml": _workflow("hear", _HEAR),
    "signed.yaml": _workflow("signed", _SIGNED),
    "planned.yaml": _workflow("planned", _PLANNED),
}
# What needs a gate, and which.
GATES: Final = {
    ("pay", "charge"): "ok",
    ("pay", "place"): "ok",
    ("pay", "charged"): "ok",
    ("mail", "send"): "ok",
    ("mail", "sent"): "ok",
    ("only", "send"): "ok",
    ("each", "all[].send"): "ok",
    ("signed", "send"): "ok",
    ("signed", "charge"): "sure",
    ("planned", "work.plan.send"): "ok",
}
# The steps that change the world, by their paths.
EFFECTS: Final = {
    ("pay", "charge"),
    ("pay", "place"),
    ("pay", "charged"),
    ("mail", "send"),
    ("mail", "sent"),
    ("mail", "book"),
    ("only", "send"),
    ("only", "book"),
    ("fan", "keep"),
    ("tight", "keep"),
    ("twice", "one"),
    ("twice", "two"),
    ("twice", "three"),
    ("chain", "keep"),
    ("each", "all[].send"),
    ("each", "keep"),
    ("turns", "turns[].put"),
    ("turns", "sub.keep"),
    ("turns", "both[].one[].hold"),
    ("timed", "place"),
    ("amends", "one"),
    ("amends", "two"),
    ("amends", "three"),
    ("timed", "all[].keep"),
    ("hear", "keep"),
    ("signed", "send"),
    ("signed", "charge"),
    ("tick", "book"),
    ("line", "book"),
    ("line", "each[].place"),
    ("lone", "book"),
    ("planned", "work.plan.put"),
    ("planned", "work.plan.send"),
    ("planned", "work.plan.each[].add"),
    ("planned", "end"),
}
assert {name for name, _ in EFFECTS} == {
    *WORKFLOWS,
    *ASIDE,
    "hear",
    "signed",
    "tick",
    "line",
    "lone",
    "planned",
}


def changes(workflow: str, path: str) -> bool:
    """Whether a step, by its path, changes the world."""
    if workflow.startswith(composed.PREFIX):
        return composed.changes(path) or ("planned", path) in EFFECTS  # the plans are the same
    return (workflow, path) in EFFECTS


def gate_of(workflow: str, path: str) -> str | None:
    """The gate that a step needs, by its name in the same scope."""
    if workflow.startswith(composed.PREFIX):
        return composed.gate_of(path) or GATES.get(("planned", path))
    return GATES.get((workflow, path))
