"""What could come out otherwise on a way through a workflow, what has to do with what, and what that costs."""

from typing import Any

import pytest

from aios.api.v1 import api_pb2
from aios.run.v1.state_pb2 import Supposed, SupposedEnd
from aios.value.v1.value_pb2 import Value
from aios_cli.decisions import Decision, Seen, ends, groups, stops
from aios_cli.exploring import Proof, Report, Way, _Search
from aios_core.encoding import encode
from aios_core.labels import OWNER
from aios_core.values import labeled
from aios_orchestrator.workflow import Workflow
from tests.orchestrator.runs import workflow

pytestmark = pytest.mark.feature("D10")

STEPS = """
- {name: look, agent: x}
- {name: first, branch: {cases: {a: "steps.look.n > 1", b: "steps.look.n > 0"}, otherwise: c}}
- {name: twice, transform: {n: "${inputs.n * 2}", of: "${steps.first.case}"}}
- name: second
  branch:
    cases:
      one: "steps.first.case == 'a' && steps.look.m"
      two: "steps.twice.n == 4 || steps.look.m"
      three: "steps.look.k"
    otherwise: none
- {name: put, when: "!(steps.second.case == 'two')", agent: x, input: {n: 1}}
- {name: other, when: "steps.look.z", agent: x, input: {n: 1}}
- {name: ask, gate: {title: "Go on?", approves: [sent]}}
- {name: sent, connector: mail.send, effect: write, input: {n: 1}}
- name: each
  map:
    over: [1, 2]
    on_failure: collect
    steps:
      - {name: read, agent: x, input: {n: "${item}"}}
      - {name: kind, branch: {cases: {odd: "item % 2 == 1", even: "steps.read.n > 0"}}}
      - {name: keep, when: "steps.kind.case == 'odd'", agent: x, input: {n: "${item}"}}
- {name: told, transform: {n: "${steps.look.n}"}}
- {name: late, when: "steps.told.n > 5", agent: x, input: {n: 1}}
- {name: sorry, when: "steps.each.failed > 0", agent: x, input: {n: 1}}
"""
OF = workflow(STEPS)


def seen(n: int = 1, first: str = "a", second: str = "one", **given: Any) -> Seen:
    chosen = {"first": first, "second": second, "each[0].kind": "odd", **given.get("chosen", {})}
    gave = {"told": {"n": 7}, "twice": {"n": n * 2, "of": first}, "each": {"failed": 2}}
    left_out, supposed = frozenset(given.get("left_out", ())), frozenset(given.get("supposed", ()))
    return Seen(OF, {"n": n}, chosen, gave, left_out, supposed)


def cases(of: Seen, step: str) -> list[str]:
    return [
        one.take or Supposed.Name(one.supposed).removeprefix("SUPPOSED_").lower() for one in of.branches(step)
    ]


@pytest.mark.parametrize(
    ("way", "step", "could"),
    [
        (seen(), "first", ["a", "b", "c"]),
        (seen(), "second", ["one", "two", "three", "none"]),
        (seen(first="b"), "second", ["two", "three", "none"]),
        (seen(n=2, first="b"), "second", ["two"]),
        (seen(n=2), "second", ["one", "two"]),
        (seen(second="two"), "put", ["fails"]),
        (seen(), "put", ["holds"]),
        (seen(), "other", ["holds", "fails"]),
        (seen(), "late", ["holds", "fails"]),
        (seen(), "each[0].kind", ["odd", "even"]),
        (seen(), "each[0].keep", ["holds"]),
        (seen(chosen={"each[0].kind": "even"}), "each[0].keep", ["fails"]),
        (seen(), "sorry", ["holds", "fails"]),
        (seen(supposed=["each"]), "sorry", ["holds"]),
        (seen(left_out=["put"]), "put", ["holds"]),
    ],
)  # fmt: skip
def test_what_follows_from_the_way_itself_does_not_come_out_otherwise(
    way: Seen, step: str, could: list[str]
) -> None:
    assert cases(way, step) == could


def test_a_step_that_was_left_out_takes_no_case() -> None:
    both = workflow(
        '- {name: a, agent: x}\n- {name: b, when: "steps.a.n", branch: {cases: {c: "steps.a.m"}}}'
    )
    way = Seen(both, {"n": 1}, {}, {}, frozenset({"b"}), frozenset())
    assert cases(way, "b") == ["holds", "fails"]


def test_who_says_no_and_what_fails_leads_another_way() -> None:
    rejected, failed = SupposedEnd.SUPPOSED_END_REJECTED, SupposedEnd.SUPPOSED_END_FAILED
    assert list(ends(OF, "ask")) == [Decision("ask", ends=rejected)] and stops(
        OF, Decision("ask", ends=rejected)
    )
    assert list(ends(OF, "each[].read")) == [Decision("each[].read", ends=failed)]
    assert not stops(OF, Decision("each[].read", ends=failed)), "the map goes on without the item"
    assert not [*ends(OF, "each[].keep"), *ends(OF, "look"), *ends(OF, "first")]
    quiet = workflow(STEPS.replace("steps.each.failed > 0", "inputs.n > 0"))
    assert not list(ends(quiet, "each[].read")), "nothing goes by what the map gives"


def test_decisions_are_of_one_group_if_something_uses_what_comes_of_both() -> None:
    found = groups(OF)
    assert found["first"] == found["second"] == found["put"] != found["other"]
    assert found["each[].kind"] == found["each[].read"] == found["sorry"] != found["first"]
    joined = groups(
        workflow(STEPS + '- {name: end, agent: x, input: {a: "${steps.put}", b: "${steps.other}"}}')
    )
    assert joined["first"] == joined["other"] != joined["sorry"]


def way(cost: int, *decisions: Decision) -> Way:
    return Way(decisions, api_pb2.Run(), costs={"look": cost})


def report(of: Workflow, *ways: Way, history: tuple[int, ...] = ()) -> Report:
    return Report(of, list(ways), [], {}, 0, [], list(history), Proof((), ()))


def test_the_cost_is_the_least_and_the_most_of_all_ways() -> None:
    """What differs by one group adds to what differs by another, though their combinations were not walked."""
    dear = workflow(STEPS.replace("{name: look, agent: x}", '{name: look, agent: x, budget: "0.80"}'))
    base = way(100)
    base.done["look"] = True
    a, b = Decision("first", take="a"), Decision("first", take="b")
    both = (a, Decision("second", take="two"))
    other = Decision("other", supposed=Supposed.SUPPOSED_HOLDS)
    walked = (base, way(130, a), way(90, b), way(150, *both), way(120, other))
    for one in walked:
        one.done["look"] = True
    assert report(dear, *walked).cost == (90, 170)
    assert report(dear, *walked, history=(40, 500)).cost == (40, 500)
    rejected = way(10, other, Decision("ask", ends=SupposedEnd.SUPPOSED_END_REJECTED))
    assert report(dear, *walked, rejected).cost == (10, 170), "who says no early pays for what came before"
    assert report(dear, base).cost == (100, 100)


ROW = """
- {name: look, agent: x}
- {name: first, branch: {cases: {a: "steps.look.n > 1", b: "steps.look.n > 0"}, otherwise: c}}
- {name: second, branch: {cases: {one: "steps.first.case == 'b' && steps.look.m", two: steps.look.k}, otherwise: none}}
"""


def walked(search: _Search, number: int) -> list[str]:
    """The names of the ways that come next, each going as it would after its last decision."""
    names = []
    for _ in range(number):
        following = search.following()
        if following is None:
            break
        from_, one = following
        chosen = {**from_.chosen, one.path: one.take}
        found = Way((*from_.decisions, one), api_pb2.Run(), done=from_.done, chosen=chosen)
        found.run.input.CopyFrom(from_.run.input)
        names.append(found.name.replace(" takes ", "="))
        search.met(found)
    return names


def test_decisions_that_no_way_has_taken_come_before_combinations_and_each_way_comes_once() -> None:
    base = Way((), api_pb2.Run(), chosen={"first": "c", "second": "none"})
    base.done = {"look": True, "first": True, "second": True}
    base.run.input.CopyFrom(Value.FromString(encode(labeled({"n": 1}, OWNER))))
    search = _Search(workflow(ROW), base, every=True)
    names = walked(search, 100)
    single = ["first=a", "first=b", "second=two", "first=b, second=one"]
    assert names == [*single, "first=a, second=two", "first=b, second=two"], "one is new where first is b"
    assert search.combinations() == 0 and all(search.taken.values())


def test_what_a_limit_leaves_out_is_counted() -> None:
    base = Way((), api_pb2.Run(), chosen={"first": "c", "second": "none"})
    base.done = {"look": True, "first": True, "second": True}
    base.run.input.CopyFrom(Value.FromString(encode(labeled({"n": 1}, OWNER))))
    search = _Search(workflow(ROW), base, every=True)
    walked(search, 2)
    assert search.combinations() == 2, "first=a and first=b, each with two"
    untaken = [one.words() for one, times in search.taken.items() if not times]
    assert untaken == ["second takes two", "second takes one"]
