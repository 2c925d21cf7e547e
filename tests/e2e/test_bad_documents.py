"""Documents that are wrong, through `aios apply`: said where and why, quickly, and nothing of them is applied."""

import json
from pathlib import Path

import pytest

from tests.served import Server

HEAD = "apiVersion: aios/v1\nkind: Workflow\nmetadata: {name: %s}\n"
SPEC = "spec:\n  inputs: {type: object}\n  steps:\n"
STEP = "    - name: a\n      transform: {x: %s}\n"
CIRCLE = "    - {name: a, needs: [b], transform: {x: 1}}\n    - {name: b, needs: [a], transform: {x: 1}}\n"
LAUGHS = "a0: &a0 [lol]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10))
QUICK_SECONDS = "10"  # far below what building any of these would take
WRONG = {
    "an unclosed bracket": ("spec: [", "BAD_YAML", (5, 1), "a bracket is not closed"),
    "a wrong indent": (SPEC + STEP % 1 + "     needs: []\n", "BAD_YAML", (9, 6), "is not indented as the others"),
    "a field that does not exist": (
        SPEC + "    - name: a\n      trnsform: {x: 1}\n", "UNKNOWN_FIELD", (8, 7), "did you mean 'transform'?"),
    "CEL that does not compile": (SPEC + STEP % "'${inputs.x +}'", "BAD_EXPRESSION", (8, 19), "not valid CEL"),
    "CEL of ten thousand brackets": (
        SPEC + STEP % f"'${{{'(' * 10_000}1{')' * 10_000}}}'", "BAD_EXPRESSION", (8, 19), "2000 characters"),
    "a circle of steps": (SPEC + CIRCLE, "CYCLE", (7, 17), "a → b → a"),
    "aliases that multiply": (LAUGHS, "BAD_YAML", (5, 10), "aliases"),
    "ten thousand levels": ("spec: " + "[" * 10_000 + "]" * 10_000, "TOO_DEEP", (4, 38), "32 levels"),
    "a number of five thousand digits": (SPEC + STEP % ("9" * 5000), "BAD_RESOURCE", (8, 22), "digits"),
    "a short number that means a gigabyte": (SPEC + STEP % "1.0e+999999999", "BAD_RESOURCE", (8, 22), "digits"),
    "bytes that are not text": ("spec: \udcff\n", "BAD_YAML", (4, 7), "UTF-8"),
}  # fmt: skip


@pytest.mark.feature("D1")
@pytest.mark.parametrize(("text", "code", "place", "says"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_document_is_told_by_line_and_column_and_applies_nothing(
    server: Server, tmp_path: Path, text: str, code: str, place: tuple[int, int], says: str
) -> None:
    """The first document of the file is right; it isn't applied either."""
    file = tmp_path / "wrong.yaml"
    file.write_bytes((HEAD % "wrong" + text).encode(errors="surrogateescape"))
    said = server.aios("apply", str(file), "--timeout", QUICK_SECONDS, "--json")
    error = said.json["error"]
    assert (said.code, error["code"]) == (2, code), error
    line, column = place
    assert error["message"].startswith(f"{file}:{line}:{column}: "), error["message"]
    assert (error["details"]["line"], error["details"]["column"]) == (str(line), str(column))
    assert says in error["message"]
    assert error["remedy"]
    good = HEAD % "right" + SPEC + STEP % 1
    file.write_bytes((good + "---\n" + HEAD % "wrong" + text).encode(errors="surrogateescape"))
    both = server.aios("apply", str(file), "--timeout", QUICK_SECONDS, "--json")
    assert (both.code, both.json["error"]["code"]) == (2, code)
    assert {"right", "wrong"}.isdisjoint(item["name"] for item in server.json("resource", "list"))


@pytest.mark.feature("D1")
def test_all_that_is_wrong_is_told_at_once(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    bad = SPEC + "    - {name: a, transform: '${inputs.x}', tiemout: 1s}\n    - {name: b, wait: soon}\n"
    file.write_text(HEAD % "wrong" + bad + "    - {name: c, needs: [bb], transform: '${1 + \"a\"}'}\n")
    said = server.aios("apply", str(file))
    assert said.code == 2 and [line.split(": ")[1] for line in said.err.splitlines()[:-1]] == [
        "spec.steps[0].transform", "spec.steps[0].tiemout", "spec.steps[1].wait",
        "spec.steps[2].needs", "spec.steps[2].transform",
    ]  # fmt: skip
    error = server.aios("apply", str(file), "--json").json["error"]
    assert error["details"]["problems"] == "5" and len(error["details"]["more"]) == 4
    assert error["details"]["more"][3]["line"] == "9"
    many = "".join(f"    - {{name: s{at}, wait: soon, {'x' * 60}: 1}}\n" for at in range(90))
    file.write_text(HEAD % "wrong" + SPEC + many)
    said = server.aios("apply", str(file))
    assert said.code == 2 and "more; `aios workflow lint` tells all of them." in said.err
    lint = server.aios("workflow", "lint", str(file), "--json")
    assert len(lint.json["errors"]) == 50


@pytest.mark.parametrize("size", [300_000, 10_000_000])
def test_a_huge_document_is_refused_by_its_size(server: Server, tmp_path: Path, size: int) -> None:
    file = tmp_path / "huge.yaml"
    file.write_text(HEAD % "huge" + SPEC + STEP % 1 + "# filler\n" * (size // 9))
    said = server.aios("apply", str(file), "--timeout", QUICK_SECONDS, "--json")
    assert (said.code, said.json["error"]["code"]) == (2, "TOO_LARGE")
    assert "bytes" in said.json["error"]["message"]
    assert "huge" not in {item["name"] for item in server.json("resource", "list")}


def test_a_person_reads_one_sentence_and_what_to_do(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(HEAD % "wrong" + SPEC + "    - name: a\n      trnsform: {x: 1}\n")
    said = server.aios("apply", str(file))
    assert (said.code, said.out) == (2, "")
    problem, remedy = said.err.splitlines()
    assert problem.endswith("did you mean 'transform'? [UNKNOWN_FIELD]")
    assert remedy == "Use the nearest right name, or remove it."


def test_an_empty_request_id_is_refused_and_not_made_up(server: Server, tmp_path: Path) -> None:
    """A script whose variable is empty believes that its repetition is safe."""
    file = tmp_path / "right.yaml"
    file.write_text(HEAD % "unnamed" + SPEC + STEP % 1)
    for command in (
        ("apply", str(file), "--request-id", ""),
        ("run", "start", "greet", "--input", "name=Ada", "--request-id", ""),
        ("event", "publish", "visitor.came", "--id", ""),
    ):
        said = server.aios(*command, "--json")
        assert (said.code, said.json["error"]["code"]) == (2, "INVALID_ARGUMENT"), command
        assert json.dumps(said.json["error"]["details"]).count("id")
    assert "unnamed" not in {item["name"] for item in server.json("resource", "list")}
