"""From an event to one intent, or to a question: never a guess, always the same."""

import pytest

from aios.event.v1.event_pb2 import ExternalEvent
from aios_core.encoding import decode
from aios_core.labels import Trust
from aios_core.values import label_of, plain
from aios_orchestrator.document import parse_documents
from aios_orchestrator.resolve import Intent, compile_intent, event_key, resolve, rules_version


def intent(name: str, when: str = "", month: str = "${event.data.month}") -> Intent:
    condition = f'      when: "{when}"\n' if when else ""
    text = f"""\
apiVersion: aios/v1
kind: Intent
metadata: {{name: {name}, title: "Title of {name}"}}
spec:
  workflow: w
  parameters:
    type: object
    properties: {{month: {{type: string, pattern: "^[0-9]{{4}}-[0-9]{{2}}$"}}}}
    required: [month]
  rules:
    - name: r
      event: folder.settled
{condition}      parameters: {{month: "{month}"}}
"""
    return compile_intent(parse_documents(text.encode(), "i.yaml")[0])


def event(data: bytes = b'{"month": "2026-10", "client": "acme"}', **fields: str) -> ExternalEvent:
    base = {"workspace": "main", "id": "1", "source": "files", "type": "folder.settled"}
    return ExternalEvent(data=data, **{**base, **fields})


@pytest.mark.feature("A2")
def test_an_event_that_one_rule_fits_becomes_its_intent_with_typed_parameters() -> None:
    resolution = resolve(event(), [intent("report")])
    assert (resolution.outcome, resolution.intent) == ("intent", "report")
    parameters = decode(resolution.parameters)
    assert plain(parameters) == {"month": "2026-10"}
    assert label_of(parameters).trust == Trust.UNTRUSTED


@pytest.mark.feature("A2")
@pytest.mark.parametrize(
    ("intents", "data", "says"),
    [
        (
            [intent("one"), intent("two")],
            b'{"month": "2026-10"}',
            "Which of these is meant: Title of one, Title of two",
        ),
        ([intent("one")], b'{"month": "October"}', "parameters.month"),
        ([intent("one")], b"{}", "No rule fits"),
        (
            [intent("one", when="event.data.client == 'other'")],
            b'{"client": "acme"}',
            "condition does not hold",
        ),
        ([intent("one")], b"{", "can't be read"),
        ([intent("one")], b"[" * 500, "can't be read"),
    ],
)
def test_what_is_not_clear_becomes_a_question(intents: list[Intent], data: bytes, says: str) -> None:
    resolution = resolve(event(data), intents)
    assert resolution.outcome == "question"
    assert says in resolution.question
    assert not resolution.intent


def test_an_event_that_no_rule_is_about_is_recorded_and_starts_nothing() -> None:
    resolution = resolve(event(type="mail.received"), [intent("one")])
    assert (resolution.outcome, resolution.question, resolution.intent) == ("nothing", "", "")


@pytest.mark.feature("A3")
def test_the_same_event_and_rules_give_the_same_bytes_whatever_the_order_of_rules() -> None:
    intents = [intent("b", when="event.data.client == 'x'"), intent("a")]
    one = resolve(event(), intents).SerializeToString(deterministic=True)
    two = resolve(event(), list(reversed(intents))).SerializeToString(deterministic=True)
    assert one == two
    assert rules_version(intents) == rules_version(intents[::-1]) != rules_version(intents[:1])


@pytest.mark.feature("A4")
def test_the_record_holds_input_candidates_scores_and_the_version_of_the_rules() -> None:
    intents = [intent("b", when="event.data.client == 'x'"), intent("a")]
    resolution = resolve(event(), intents)
    assert [(item.intent, item.score) for item in resolution.candidates] == [("a", 1000), ("b", 500)]
    assert resolution.rules_version == rules_version(intents)
    assert resolution.event_data == event().data
    assert len(resolution.event_sha256) == 64


def test_an_event_is_known_by_its_source_and_id() -> None:
    assert event_key(event()) == event_key(event(data=b"other"))
    assert event_key(event()) != event_key(event(source="mail"))
