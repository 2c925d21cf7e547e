"""What is known of documents before a run: applied versions go on, results are held to `gives`, compiled once."""

import time

import pytest

from aios.resource.v1 import resource_pb2 as pb
from aios_core.errors import TerminalError, others
from aios_orchestrator import cel_engine, cel_types, mapping
from aios_orchestrator.cases import Case
from aios_orchestrator.checking import check_workflow
from aios_orchestrator.document import parse_documents
from aios_orchestrator.problems import Problems
from aios_orchestrator.rehearsing import rehearse
from aios_orchestrator.resources import ResourceBook, resource_key
from aios_runtime.store.port import Write
from aios_testing.store_memory import MemoryStore
from tests.bench import language
from tests.orchestrator.runs import workflow

OLD = """apiVersion: aios/v1
kind: Workflow
metadata: {name: old}
spec:
  inputs: {type: object, properties: {n: {type: integer}}}
  steps:
    - {name: a, agent: x, when: "inputs.n == 'a'", retry: {backoff: 5m}}
    - {name: b, transform: "${inputs.m + 'x' + 1}"}
"""


@pytest.mark.feature("D11")
async def test_a_version_that_was_applied_runs_on_though_it_would_be_refused_now() -> None:
    store = MemoryStore(lambda: 0)
    book = ResourceBook(store, "main", lambda: 0)
    with pytest.raises(TerminalError) as caught:
        await book.apply(pb.ApplyResourcesRequest(workspace="main", yaml=OLD.encode(), file="o.yaml"))
    assert caught.value.details["problems"] == "4" and len(others(caught.value)) == 3
    (document,) = parse_documents(OLD.encode(), "o.yaml")
    stored = pb.Resource(
        kind="Workflow", name="old", version=document.version(), document=document.canonical()
    )
    data, key = stored.SerializeToString(), resource_key("main", "Workflow", "old")
    await store.commit([Write(key=key, expect=0, head=data, records={f"v/{stored.version}": data})])
    assert set((await book.workflow("main", "old")).steps) == {"a", "b"}
    assert set((await book.workflow("main", "old", stored.version)).steps) == {"a", "b"}


GIVES = "gives: {type: object, properties: {size: {type: integer}}, required: [size]}"


@pytest.mark.feature("D1")
@pytest.mark.parametrize(
    ("step", "state"),
    [
        (f"agent: x, {GIVES}", "failed"),
        (f"connector: a.look, {GIVES}", "failed"),
        (f"connector: a.write, effect: write, {GIVES}", "succeeded"),  # it is done, and has to stay undoable
    ],
)
def test_a_result_is_held_to_what_the_document_says(step: str, state: str) -> None:
    of = workflow(f"- {{name: s, {step}}}")
    told = rehearse(of, Case("wrong", {"n": 1}, {"s": {"size": "big"}}, {}))
    assert told.state == state and ("[BAD_OUTPUT]" in told.error) == (state == "failed")
    assert rehearse(of, Case("right", {"n": 1}, {"s": {"size": 3}}, {})).state == "succeeded"


@pytest.mark.feature("D1")
async def test_an_intent_gives_its_workflow_what_that_takes() -> None:
    book = ResourceBook(MemoryStore(lambda: 0), "main", lambda: 0)
    flow = OLD.split("  steps:")[0] + "  steps: [{name: a, agent: x}]\n"
    flow = flow.replace("{n: {type: integer}}", "{n: {type: integer}, client: {type: string}}, required: [n]")
    intent = (
        "---\napiVersion: aios/v1\nkind: Intent\nmetadata: {name: i}\nspec:\n  workflow: old\n"
        "  parameters: {type: object, properties: {cleint: {type: string}}}\n  rules: []\n"
        '  concurrency: {policy: queue, key: "${inputs.clinet}/${event.id}"}\n'
    )
    with pytest.raises(TerminalError) as caught:
        await book.apply(
            pb.ApplyResourcesRequest(workspace="main", yaml=(flow + intent).encode(), file="o.yaml")
        )
    said = [caught.value.message, *(other["message"] for other in others(caught.value))]
    assert any("needs the input 'n', which is no parameter" in words for words in said)
    assert any("has no input 'cleint'. Did you mean 'client'?" in words for words in said)
    assert any("spec.concurrency.key: inputs has no field 'clinet'" in words for words in said)
    assert any("key is computed when it starts, from inputs alone" in words for words in said)


@pytest.mark.feature("D1")
def test_two_hundred_steps_are_checked_soon_and_each_expression_is_compiled_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compiled: list[str] = []
    real = cel_engine.compile_expression

    def counted(text: str) -> object:
        compiled.append(text)
        return real(text)

    monkeypatch.setattr(cel_engine, "compile_expression", counted)
    mapping.forget()
    text = language.document()
    for _ in range(2):
        problems = Problems()
        (document,) = parse_documents(text, "long.yaml")
        began = time.process_time()
        found = check_workflow(document, {}, problems)
        took = time.process_time() - began
        assert not problems.errors and found is not None and len(found.steps) == 200
    assert len(compiled) == len(set(compiled)) > 100
    assert took < 1


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("inputs.n / 0", "could not be computed"),
        ("inputs.n % 0", "could not be computed"),
        ("int('x')", "could not be computed"),
        ("[9][inputs.n]", "could not be computed"),
        ("inputs.list.map(x, inputs.list.map(y, x + y))", "more than 1,000,000 times"),
    ],
)
def test_what_can_only_be_known_in_a_run_fails_the_step_in_words(expression: str, says: str) -> None:
    from aios_core.labels import OWNER
    from aios_core.values import labeled

    inputs = labeled({"n": 3, "list": list(range(2000))}, OWNER)
    node = mapping.compile_expression(expression, "x")
    with pytest.raises(TerminalError, match=says) as caught:
        node.evaluate(lambda root: inputs)
    assert caught.value.code == "EXPRESSION_FAILED"


def test_lists_one_after_the_other_are_no_lists_in_lists() -> None:
    from aios_core.labels import OWNER
    from aios_core.values import labeled, plain

    inputs = labeled({"list": list(range(3000))}, OWNER)
    node = mapping.compile_expression("size(inputs.list.filter(x, x > 9).map(x, x + 1))", "x")
    assert plain(node.evaluate(lambda root: inputs)) == 2990


def test_a_type_says_what_it_is() -> None:
    assert str(cel_types.ANY) == "anything"
    assert str(cel_types.of("text", "int", "null")) == "a whole number, null or text"
