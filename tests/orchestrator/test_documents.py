"""What a wrong document gets: where, what, and what to do; in bounded time."""

import time

import pytest

from aios_core.errors import TerminalError
from aios_core.values import plain
from aios_orchestrator.definition import compile_workflow
from aios_orchestrator.document import parse_documents
from aios_orchestrator.mapping import compile_expression, compile_mapping

GOOD = """\
apiVersion: aios/v1
kind: Workflow
metadata: {name: w}
spec:
  inputs: {type: object, properties: {n: {type: integer}}}
  steps:
    - name: a
      agent: x
      input: {n: "${inputs.n}"}
    - name: b
      agent: x
      input: {n: "${steps.a.n}"}
"""


def problem(text: str) -> TerminalError:
    with pytest.raises(TerminalError) as caught:
        compile_workflow(parse_documents(text.encode(), "w.yaml")[0])
    return caught.value


@pytest.mark.parametrize(
    ("old", "new", "code", "says"),
    [
        ('agent: x\n      input: {n: "${inputs.n}"}', "agnet: x", "UNKNOWN_FIELD", "did you mean 'agent'"),
        ("kind: Workflow", "kind: Worklow", "BAD_RESOURCE", "did you mean 'Workflow'"),
        ("apiVersion: aios/v1", "apiVersion: aios/v9", "BAD_RESOURCE", "must be aios/v1"),
        ("steps.a.n", "steps.aa.n", "BAD_EXPRESSION", "Did you mean 'a'"),
        ("${steps.a.n}", "${steps.a.n +}", "BAD_EXPRESSION", "not valid CEL"),
        ("${steps.a.n}", "${nothing.a + 1}", "BAD_EXPRESSION", "refers to 'nothing'"),
        ("${inputs.n}", "${steps.b.n}", "BAD_EXPRESSION", "does not come before"),
        ("  steps:", "  step:", "UNKNOWN_FIELD", "did you mean 'steps'"),
        ("    - name: b", "    - name: a", "BAD_RESOURCE", "stands twice"),
        ("    - name: b", "    - name: B b", "BAD_RESOURCE", "lower case"),
        ("metadata: {name: w}", "metadata: {}", "BAD_RESOURCE", "is missing"),
        ("    - name: b\n", "    - name: b\n      timeout: soon\n", "BAD_RESOURCE", "not a duration"),
        ("    - name: b\n", "    - name: b\n      budget: -1\n", "BAD_RESOURCE", "between 0"),
        ("    - name: b\n", "    - name: b\n      needs: [c]\n", "BAD_EXPRESSION", "there is no step 'c'"),
        ("    - name: a\n", "    - name: a\n      needs: [b]\n", "CYCLE", "circle"),
        ("type: integer", "type: number-ish", "BAD_RESOURCE", "JSON Schema"),
        ("    - name: b\n", "    - name: b\n      gate: {}\n", "BAD_RESOURCE", "exactly one of"),
        ("spec:", "spec: [", "BAD_YAML", "w.yaml:"),
        ("  inputs:", "\tinputs:", "BAD_YAML", "w.yaml:5"),
    ],
)
def test_a_wrong_document_is_told_where_and_what(old: str, new: str, code: str, says: str) -> None:
    assert old in GOOD
    error = problem(GOOD.replace(old, new, 1))
    assert error.code == code
    assert says in error.message
    assert "w.yaml" in error.message


def test_the_place_is_line_and_column() -> None:
    assert problem(GOOD.replace("agent: x", "agnet: x", 1)).message.startswith(
        "w.yaml:8:7: spec.steps[0].agnet"
    )


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n",
        "[" * 20_000,
        "{a: " * 5_000,
        "- x\n" * 200_000,
        "x" * 300_000,
        "",
        "---\n---\n",
        "a: !!python/object/apply:os.system [echo]\n",
        "\x00",
        "a: b\na: c\n",
    ],
)
def test_hostile_yaml_is_refused_quickly(text: str) -> None:
    started = time.monotonic()
    with pytest.raises(TerminalError):
        parse_documents(text.encode(), "h.yaml")
    assert time.monotonic() - started < 5


def test_a_document_whose_stored_form_would_not_be_read_again_is_refused() -> None:
    def chain(count: int) -> str:
        steps = "".join(f" - {{name: a{at:04},agent: echo}}\n" for at in range(count))
        return f"apiVersion: aios/v1\nkind: Workflow\nmetadata: {{name: w}}\nspec:\n steps:\n{steps}"

    error = problem(chain(9_000))
    assert len(chain(9_000)) < 256 * 1024
    assert error.code == "TOO_LARGE"
    assert "as it is stored" in error.message
    (document,) = parse_documents(chain(8_000).encode(), "w.yaml")
    (again,) = parse_documents(document.canonical(), "w.yaml")
    assert len(compile_workflow(again).steps) == 8_000


@pytest.mark.parametrize(
    ("expression", "result"),
    [
        ("${inputs.n}", 3),
        ("${inputs.n + 1}", 4),
        ("n=${inputs.n}.", "n=3."),
        ("${inputs.list.map(x, {'twice': x * 2})}", [{"twice": 2}, {"twice": 4}]),
        ("${inputs.text == '}' ? 'brace' : 'none'}", "brace"),
        ("${inputs.pointer}", None),
        ("no expression", "no expression"),
        ({"a": ["${inputs.n}", 1]}, {"a": [3, 1]}),
    ],
)
def test_expressions_compute_what_they_say(expression: object, result: object) -> None:
    from aios_core.labels import OWNER
    from aios_core.values import labeled

    inputs = labeled({"n": 3, "list": [1, 2], "text": "}", "pointer": None}, OWNER)
    node = compile_mapping(expression, "x")
    assert plain(node.evaluate(lambda root: inputs if root == "inputs" else None)) == result


def test_a_field_that_is_not_there_is_named() -> None:
    from aios_core.labels import OWNER
    from aios_core.values import labeled

    node = compile_expression("inputs.missing", "x")
    with pytest.raises(TerminalError, match="missing"):
        node.evaluate(lambda root: labeled({"n": 1}, OWNER))
