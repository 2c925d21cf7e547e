"""A workflow drawn: what a person should see of it is there, in each form, and hostile names do no harm."""

from collections.abc import Callable
from xml.etree import ElementTree

import pytest

from aios_orchestrator import drawing
from aios_orchestrator.workflow import Workflow
from tests.orchestrator.runs import workflow

BILL = workflow(
    """
- {name: ok, gate: {title: Bill, approves: [write]}}
- {name: write, connector: files.write, effect: write, input: {n: "${inputs.n}"}}
""",
    name="bill",
)
MONTH = workflow(
    """
- {name: list, connector: files.list}
- {name: weather, needs: [], agent: weather}
- name: each
  needs: [list, weather]
  map:
    over: "${steps.list.items}"
    on_failure: collect
    steps:
      - {name: words, agent: writer, input: {c: "${item}"}}
      - {name: bill, workflow: bill@v, when: "item.n < 5 && item.n > 1", input: {n: "${item.n}"}}
- {name: refine, repeat: {limit: 3, until: "${index == 2}", steps: [{name: again, agent: writer}]}}
- {name: pause, wait: 90m, needs: [each]}
- {name: end, needs: [pause, refine], transform: 1}
""",
    name="month",
    uses={"bill@v": BILL},
)


@pytest.mark.feature("D1")
def test_the_outline_says_what_each_step_is_and_what_it_needs_where_that_is_not_plain() -> None:
    lines = drawing.outline(MONTH).splitlines()
    assert lines[0] == f"month  {MONTH.version}"
    assert [" ".join(line.split()) for line in lines[1:]] == [
        "list files.list",
        "weather agent weather needs nothing",
        "each for each item, 10 at once, goes on without what fails needs list, weather",
        "words agent writer",
        "bill workflow bill when item.n < 5 && item.n > 1",
        "ok a person approves write",
        "write files.write, changes something",
        "refine until index == 2, at most 3 times",
        "again agent writer",
        "pause waits 90m needs each",
        "end transform needs pause, refine",
    ]
    assert lines[6].startswith("      ok"), "a body is indented"


@pytest.mark.feature("D1")
def test_mermaid_has_a_subgraph_for_each_body_and_an_arrow_for_each_need() -> None:
    text = drawing.mermaid(MONTH)
    assert text.startswith("flowchart TD\n")
    assert text.count("subgraph ") == text.count("end\n") == 3
    assert text.count("-->") == sum(len(step.needs) for step in MONTH.ordered) - 1 and text.count("-.->") == 1


@pytest.mark.feature("D1")
def test_svg_has_every_step_in_its_place_and_escapes_what_a_document_says() -> None:
    root = ElementTree.fromstring(drawing.svg(MONTH))
    space = "{http://www.w3.org/2000/svg}"
    texts = [text.findtext(f"{space}tspan") or text.text for text in root.iter(f"{space}text")]
    for step in MONTH.ordered:
        assert step.local in texts and drawing.about(step) in texts
    assert "when item.n < 5 && item.n > 1" in texts
    boxes = [
        tuple(float(rect.attrib[name]) for name in ("x", "y", "width", "height"))
        for rect in root.iter(f"{space}rect")
        if "x" in rect.attrib
    ]
    assert len(boxes) == len(MONTH.ordered)
    wide, high = float(root.attrib["width"]), float(root.attrib["height"])
    for at, (x, y, w, h) in enumerate(boxes):
        assert x >= 0 and y >= 0 and x + w <= wide and y + h <= high
        for a, b, c, d in boxes[at + 1 :]:
            apart = x + w <= a or a + c <= x or y + h <= b or b + d <= y
            within = (x <= a and a + c <= x + w and y <= b and b + d <= y + h) or (
                a <= x and x + w <= a + c and b <= y and y + h <= b + d
            )
            assert apart or within, "boxes stand apart, or one in the other"


@pytest.mark.parametrize(
    ("ms", "said"), [(0, "0ms"), (1500, "1500ms"), (90_000, "90s"), (7_200_000, "2h"), (86_400_000, "1d")]
)
def test_a_duration_is_said_as_a_document_says_it(ms: int, said: str) -> None:
    assert drawing.words_of(ms) == said


@pytest.mark.feature("C3", "D1")
@pytest.mark.parametrize("draw", [drawing.outline, drawing.mermaid, drawing.svg])
def test_a_plan_that_is_not_made_yet_is_drawn_as_one_step(draw: Callable[[Workflow], str]) -> None:
    planned = workflow(
        "- {name: work, plan: {agent: planner, goal: Do it, input: {}, may: {agents: [x]}, steps: 3}}\n"
        "- {name: end, transform: 1}"
    )
    text = draw(planned)
    assert text.count("the steps of the plan") == 1 and "end" in text
