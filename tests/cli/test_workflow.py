"""`aios workflow`: documents checked and drawn, from files without a server and by name with one."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from aios_cli.app import main
from aios_orchestrator import drawing
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


TESTS = """files: [w.yaml]
tests:
  - {name: right, workflow: drawn, results: {sub.make: {n: 1}}, expect: {gave: {end: {made: 1}}}}
  - {name: wrong, workflow: drawn, results: {sub.make: {n: 2}}, expect: {gave: {end: {made: 1}}}}
"""


@pytest.mark.feature("D1")
def test_decisions_are_tried_without_a_server(tmp_path: Path) -> None:
    child = CHILD + "  outputs: {made: '${steps.make.n}'}\n"
    (tmp_path / "w.yaml").write_text(PARENT + "---\n" + child)
    file = tmp_path / "t.yaml"
    file.write_text(TESTS)
    said = run("workflow", "test", str(file))
    assert said.code == 1 and "ok  right: succeeded" in said.out and "2 tests, 1 failed." in said.out
    assert "! gave.end.made: expected 1, got 2" in said.out
    told = json.loads(run("workflow", "test", str(file), "--json").out)
    assert told["failed"] == 1 and told["tests"][0]["steps"]["end"]["gave"] == {"made": 1}
    file.write_text(TESTS.rsplit("  -", 1)[0])
    assert run("workflow", "test", str(file)).code == 0
    for wrong, words in (
        ("[]", "a map of `files`"),
        ("files: []", "`files` must be"),
        ("a: &a [*a]", "aliases"),
    ):
        file.write_text(wrong)
        said = run("workflow", "test", str(file))
        assert said.code == 2 and words in said.err


@pytest.mark.feature("D11")
def test_a_version_is_explained_and_compared_with_a_file(server: Server, tmp_path: Path) -> None:
    file, later = tmp_path / "w.yaml", tmp_path / "later.yaml"
    text = CHILD.replace("drawn-child", "told-child")
    file.write_text(text)
    assert server.aios("apply", str(file)).code == 0
    assert "- make: the agent echo works on it." in server.aios("workflow", "explain", "told-child").out
    assert server.json("workflow", "explain", "told-child")[0]["may_change"] == []
    same = server.aios("workflow", "diff", "told-child", str(file))
    assert (same.code, same.out) == (0, "They do the same.\n")
    later.write_text(text.replace("agent: echo", "agent: other"))
    said = server.aios("workflow", "diff", "told-child", str(later))
    assert said.code == 1 and "~ make: target" in said.out and "make is another thing now" in said.out
    said = server.aios("workflow", "diff", "told-child", str(later), "--json")
    assert said.json["changed"] == {"make": ["target"]} and said.json["first"] != said.json["second"]


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


@pytest.mark.parametrize("json_too", [False, True])
def test_a_defect_is_told_as_one_with_its_place_and_without_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], json_too: bool
) -> None:
    def broken(workflow: object) -> str:
        raise KeyError("s0.plan.")

    monkeypatch.setattr(drawing, "mermaid", broken)
    file = tmp_path / "w.yaml"
    file.write_text(PARENT + "---\n" + CHILD)
    words = ["workflow", "graph", str(file), "--format", "mermaid"]
    assert main([*words, *["--json"] * json_too]) == 1
    told = capsys.readouterr()
    error = json.loads(told.out)["error"] if json_too else None
    said = f"{error['message']} [{error['code']}] {error['remedy']}" if error is not None else told.err
    assert "A defect of AIOS: KeyError: 's0.plan.' (" in said and "cli/test_workflow.py:" in said
    assert "[INTERNAL]" in said and "Report it with these words." in said and "Traceback" not in said
