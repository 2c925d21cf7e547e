"""What a task carries is small: on each way that a value enters one, more is refused and the way out is said."""

import pytest

from aios.event.v1.event_pb2 import ExternalEvent
from aios.run.v1 import state_pb2 as st
from aios_core.encoding import encode
from aios_core.errors import TerminalError
from aios_core.labels import OWNER
from aios_core.values import MAX_VALUE_BYTES, Pointer, labeled
from aios_orchestrator.document import parse_documents
from aios_orchestrator.resolve import OUTCOME_QUESTION, compile_intent, resolve
from tests.orchestrator.runs import Driver, workflow

pytestmark = pytest.mark.feature("D5")

HALF = "x" * (MAX_VALUE_BYTES * 2 // 3)  # one fits, two do not
HALF_OUTPUT = encode(labeled({"text": HALF}, OWNER))


def refused(error: object) -> None:
    assert getattr(error, "code", "") == "TOO_LARGE"
    assert "artifact" in getattr(error, "message", "")


def test_a_value_past_the_limit_has_no_encoding_and_a_pointer_to_it_is_small() -> None:
    with pytest.raises(TerminalError) as caught:
        encode(labeled({"n": 1, "text": "x" * MAX_VALUE_BYTES}, OWNER))
    refused(caught.value)
    assert len(encode(labeled({"text": Pointer("ab" * 32, 10**12)}, OWNER))) < 200


def test_a_result_past_the_limit_fails_its_step_whoever_made_it() -> None:
    run = Driver(workflow("- {name: a, agent: echo}"))
    run.settle("a", output=b"x" * (MAX_VALUE_BYTES + 1))
    assert run.run.at("a").state == st.STEP_STATE_FAILED and run.run.state == st.RUN_STATE_FAILED
    refused(run.run.error)


def test_an_input_put_together_past_the_limit_is_not_handed_out() -> None:
    steps = (
        "- {name: a, agent: echo}\n- {name: b, agent: echo}\n"
        '- {name: c, agent: echo, input: {one: "${steps.a.text}", two: "${steps.b.text}"}}'
    )
    run = Driver(workflow(steps))
    run.settle("a", output=HALF_OUTPUT)
    run.settle("b", output=HALF_OUTPUT)
    assert "c" not in run.last.dispatched and run.run.state == st.RUN_STATE_FAILED
    refused(run.run.error)


def test_items_of_a_map_past_the_limit_are_refused_and_so_is_what_they_gave() -> None:
    steps = "- {name: a, agent: echo}\n- {name: b, agent: echo}\n- {name: all, map: {over: %s, steps: [%s]}}"
    one = '{name: one, agent: echo, input: {n: "${item}"}}'
    run = Driver(workflow(steps % ('["${steps.a.text}", "${steps.b.text}"]', one)))
    run.settle("a", output=HALF_OUTPUT)
    run.settle("b", output=HALF_OUTPUT)
    assert run.run.state == st.RUN_STATE_FAILED and not run.last.dispatched
    refused(run.run.error)
    run = Driver(workflow(steps % ("[1, 2]", one)))
    run.settle("a")
    run.settle("b")
    run.settle("all[0].one", output=HALF_OUTPUT)
    run.settle("all[1].one", output=HALF_OUTPUT)
    assert run.run.error is not None and run.run.error.code == "TOO_LARGE"
    assert "have `result` give less of each" in run.run.error.message


def test_outputs_of_a_run_put_together_past_the_limit_fail_it() -> None:
    head = '  outputs: {one: "${steps.a.text}", two: "${steps.b.text}"}\n'
    run = Driver(workflow("- {name: a, agent: echo}\n- {name: b, agent: echo}", head=head))
    run.settle("a", output=HALF_OUTPUT)
    run.settle("b", output=HALF_OUTPUT)
    assert run.run.state == st.RUN_STATE_FAILED
    refused(run.run.error)


INTENT = """
apiVersion: aios/v1
kind: Intent
metadata: {name: take, title: Take it}
spec:
  workflow: w
  parameters: {type: object}
  rules:
    - {name: came, event: it.came, parameters: {one: "${event.data.text}", two: "${event.data.text}"}}
"""


def test_an_event_whose_parameters_are_past_the_limit_starts_nothing_and_asks() -> None:
    intent = compile_intent(parse_documents(INTENT.encode(), "i.yaml")[0])
    data = b'{"text": "%s"}' % HALF.encode()
    found = resolve(ExternalEvent(id="1", source="s", type="it.came", data=data, workspace="main"), [intent])
    assert found.outcome == OUTCOME_QUESTION and not found.parameters
    assert "Store it as an artifact" in found.question
