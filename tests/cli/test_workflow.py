"""`aios workflow`: documents checked and drawn, from files without a server and by name with one."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.served import Server, run

CHILD = """apiVersion: aios/v1
kind: Workflow
metadata: {name: drawn-child}
spec:
  steps: [{name: make, agent: echo}]
"""
PARENT = """apiVersion: aios/v1
kind: Workflow
metadata: {name: drawn}
spec:
  steps:
    - {name: sub, workflow: drawn-child}
    - {name: end, transform: "${steps.sub}"}
"""


@pytest.mark.feature("D1")
def test_files_are_checked_without_a_server_all_errors_at_once(tmp_path: Path) -> None:
    good, bad, worse = (tmp_path / name for name in ("good.yaml", "bad.yaml", "worse.yaml"))
    good.write_text(PARENT + "---\n" + CHILD)
    said = run("workflow", "lint", str(good))
    assert (said.code, said.out) == (0, "2 documents, nothing wrong.\n")
    bad.write_text(PARENT.replace("transform", "trnsform"))
    worse.write_text("spec: [")
    said = run("workflow", "lint", str(good), str(bad), str(worse))
    assert said.code == 2 and "did you mean 'transform'?" in said.err and "[BAD_YAML]" in said.err
    said = run("workflow", "lint", str(bad), str(worse), "--json")
    told = json.loads(said.out)
    assert said.code == 2 and [e["code"] for e in told["errors"]] == [
        "BAD_RESOURCE",
        "UNKNOWN_FIELD",
        "BAD_YAML",
    ]
    assert told["errors"][1]["line"] == "7" and told["errors"][1]["file"] == str(bad)


@pytest.mark.feature("D1")
def test_a_file_is_drawn_and_what_was_applied_by_its_name(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "w.yaml"
    file.write_text(PARENT)
    lone = run("workflow", "graph", str(file), "--data-dir", str(tmp_path))
    assert lone.code == 2 and "'drawn-child' is not among these files" in lone.err
    file.write_text(PARENT + "---\n" + CHILD)
    assert server.aios("apply", str(file)).code == 0
    outline = server.aios("workflow", "graph", "drawn").out
    assert (
        run("workflow", "graph", str(file), "--only", "drawn").out.splitlines()[1:]
        == outline.splitlines()[1:]
    )
    assert "make  agent echo" in outline
    drawn = server.aios("workflow", "graph", "drawn", "--format", "svg").out
    assert ElementTree.fromstring(drawn).findtext("{http://www.w3.org/2000/svg}title") == "drawn"
    assert server.json("workflow", "graph", "drawn", "--format", "mermaid")[0]["mermaid"].startswith(
        "flowchart"
    )


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("graph", "drwan-child"), 7, "There is no workflow 'drwan-child'"),
        (("graph", "x", "--format", "png"), 2, "there are text, mermaid, svg"),
        (("lint", "nowhere.yaml"), 2, "nowhere.yaml can't be read"),
    ],
)
def test_what_is_not_there_is_told(server: Server, arguments: tuple[str, ...], code: int, words: str) -> None:
    said = server.aios("workflow", *arguments)
    assert said.code == code and words in said.err
