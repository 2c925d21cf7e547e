"""The bad documents of `bad_documents/`: each is told with its place and in good words, and refused by the published
schema too where its structure is wrong. Hostile ones are refused within bounds of time and memory.

`python -m tests.orchestrator.test_bad_documents` writes what is told of each anew; read what changed."""

import resource
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml

from aios_core.errors import REASONS, TerminalError
from aios_orchestrator.checking import check_budget, check_intent, check_workflow
from aios_orchestrator.document import Document, parse_documents
from aios_orchestrator.language import checked
from aios_orchestrator.limits import compile_limit
from aios_orchestrator.problems import Problems

FOLDER = Path(__file__).parent / "bad_documents"
CORPUS = [
    pytest.param(entry, id=f"{file.stem}: {entry['name']}")
    for file in sorted(FOLDER.glob("*.yaml"))
    for entry in yaml.safe_load(file.read_text())
]


def told(text: bytes) -> list[TerminalError]:
    """All that is told of a file."""
    problems = Problems()
    with problems.noting():
        for document in parse_documents(text, "w.yaml"):
            _check(document, problems)
    return problems.in_order()


def _check(document: Document, problems: Problems) -> None:
    if document.kind == "Workflow":
        check_workflow(document, {}, problems)
    elif document.kind == "Limit":
        compile_limit(checked(document, problems))
    elif document.kind == "Budget":
        check_budget(document, problems)
    else:
        check_intent(document, problems)


def test_the_corpus_is_large_and_of_every_theme() -> None:
    assert len(CORPUS) >= 200
    assert len({param.id for param in CORPUS}) == len(CORPUS)


@pytest.mark.feature("D1")
@pytest.mark.parametrize("entry", CORPUS)
def test_a_bad_document_is_told_in_full(entry: dict[str, Any]) -> None:
    found = told(entry["document"].encode())
    assert [{"code": error.code, "says": error.message} for error in found] == entry["told"]
    for error in found:
        assert error.code in REASONS
        assert error.message.endswith((".", "?", "…")) and "\n" not in error.message
        assert "None" not in error.message and "Node(" not in error.message and "dyn(1)" not in error.message


def laughs(levels: int, width: int) -> str:
    rows = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * width)}]" for n in range(1, levels)]
    return "\n".join(["a0: &a0 [lol]", *rows])


HEAD = "apiVersion: aios/v1\nkind: Workflow\nmetadata: {name: w}\nspec:\n"
ONE = HEAD + "  steps: [{name: a, transform: "
DIGITS = "[0,1,2,3,4,5,6,7,8,9].map(a, "
HOSTILE = {
    "a billion laughs": (laughs(10, 9), "BAD_YAML"),
    "laughs in maps": ("a: &a {x: 1}\nb: &b {x: *a, y: *a}\n", "BAD_YAML"),
    "an alias to itself": ("a: &a [*a]\n", "BAD_YAML"),
    "merge keys that multiply": ("a: &a {k: 1}\nb: &b {<<: [*a, *a]}\n", "BAD_YAML"),
    "a hundred thousand brackets": ("[" * 100_000, "TOO_DEEP"),
    "a hundred thousand braces": ("{a: " * 50_000, "TOO_DEEP"),
    "lists nested by indent": ("- " * 20_000 + "x\n", "TOO_DEEP"),
    "a map of thirty thousand keys": (
        HEAD + "  inputs: {" + ", ".join(f"k{n}: 1" for n in range(30_000)) + "}\n", "TOO_LARGE"),
    "a list of a hundred thousand items": ("- x\n" * 60_000, "BAD_RESOURCE"),
    "a scalar of ten million characters": ("a: " + "x" * 10_000_000, "TOO_LARGE"),
    "a scalar of 200,000 characters": (ONE + "'${" + "x" * 200_000 + "}'}]\n", "BAD_EXPRESSION"),
    "a key of 200,000 characters": (HEAD + "  " + "k" * 200_000 + ": 1\n", "BAD_YAML"),
    "a number of a million digits": (ONE + "9" * 200_000 + "}]\n", "BAD_RESOURCE"),
    "a fraction that means a gigabyte": (ONE + "1.0e+999999999}]\n", "BAD_RESOURCE"),
    "a number in base 60": (ONE + "1" + ":59" * 1000 + "}]\n", ""),
    "an expression of a thousand brackets": (ONE + "'${" + "(" * 950 + "1" + ")" * 950 + "}'}]\n", "BAD_EXPRESSION"),
    "an expression of exponential work": (ONE + "'${" + DIGITS * 9 + "1" + ")" * 9 + "}'}]\n", "BAD_EXPRESSION"),
    "a thousand negations": (ONE + "'${" + "!" * 1900 + "true}'}]\n", ""),
    "a regular expression that explodes": (ONE + "\"${'" + "a" * 60 + "'.matches('(a+)+b')}\"}]\n", ""),
    "a schema's pattern that explodes": (HEAD + "  inputs: {type: object, properties: {a: {type: string, default: "
        + "a" * 60 + ", pattern: '^(a+)+b$'}}}\n  steps: [{name: a, agent: x}]\n", "BAD_RESOURCE"),
    "a schema that is its own": (HEAD + "  inputs: {type: object, properties: {a: {$ref: '#'}}}\n"
        "  steps: [{name: a, agent: x}]\n", ""),
    "half a character": (ONE + '"\\uD800"}]\n', "BAD_YAML"),
    "text that turns about": (HEAD + "  \u202esteps: []\n", "UNKNOWN_FIELD"),
    "a byte order mark": ("\ufeff" + HEAD + "  steps: []\n", "BAD_RESOURCE"),
    "three thousand steps that need what there is not": (
        HEAD + "  steps:\n"
        + "".join(f"  - {{name: s{n}, agent: x, needs: [s{n + 1}]}}\n" for n in range(3000)), "BAD_EXPRESSION"),
    "a hundred and one documents": ("---\na: 1\n" * 101, "TOO_LARGE"),
}  # fmt: skip
BYTES = {
    "Latin 1": "name: é".encode("latin-1"),
    "UTF-16": HEAD.encode("utf-16"),
    "a cut character": HEAD.encode() + b"\xe2\x82",
    "noise": bytes(range(256)),
}


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What is told of each, by a process that may take a minute of a processor and 600 MB of addresses for them all."""
    folder, script = (
        tmp_path_factory.mktemp("hostile"),
        """
        import sys
        from tests.orchestrator.test_bad_documents import told
        for name in sys.argv[1:]:
            print(",".join(error.code for error in told(open(name, "rb").read())), flush=True)
    """,
    )
    names = [*HOSTILE, *BYTES]
    for at, name in enumerate(names):
        text = BYTES[name] if name in BYTES else HOSTILE[name][0].encode(errors="surrogatepass")
        (folder / f"{at:02}").write_bytes(text)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
        resource.setrlimit(resource.RLIMIT_AS, (600 << 20, 600 << 20))

    said = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, sorted(folder.iterdir()))],
        capture_output=True, text=True, preexec_fn=limit, check=False, timeout=170,
    )  # fmt: skip
    lines = said.stdout.split("\n")[:-1]
    return dict(zip(names, [*lines, said.stderr[-500:]], strict=False))


@pytest.mark.feature("D1")
@pytest.mark.parametrize("name", [*HOSTILE, *BYTES])
def test_a_hostile_document_is_refused_in_bounded_time_and_memory(hostile: dict[str, str], name: str) -> None:
    """Those without a code are odd and harmless: of an expression among them the type can be wrong."""
    code = "BAD_YAML" if name in BYTES else HOSTILE[name][1]
    codes = hostile[name].split(",")
    assert code in codes if code else set(codes) <= {"", "BAD_EXPRESSION"}, hostile[name]


def _write_anew() -> None:
    for file in sorted(FOLDER.glob("*.yaml")):
        entries = yaml.safe_load(file.read_text())
        for entry in entries:
            found = told(entry["document"].encode())
            entry["told"] = [{"code": error.code, "says": error.message} for error in found]
        file.write_text(
            _HEADING + yaml.dump(entries, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=140)
        )


_HEADING = "# Each with all that is told of it, as `file:line:column: field: sentence`.\n"


class _Dumper(yaml.SafeDumper):
    pass


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)

if __name__ == "__main__":
    _write_anew()
