"""Writes docs/features.md: each promise of tests/features.yaml, the tests that prove it, the page that explains it.

A test proves a promise by its mark: `@pytest.mark.feature("G7")` on it or its class, or `pytestmark` of its module.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import yaml

ROOT: Final = Path(__file__).resolve().parents[3]
PROMISES: Final = ROOT / "tests" / "features.yaml"

HEAD: Final = """\
# What it promises, and what proves it

Written by `make features` from the marks on the tests; a test fails when it is out of date. A row stands when its
tests would fail with the feature taken out.

| id | promise | proved by | explained in |
|---|---|---|---|
"""


def marked(tests: Path = ROOT / "tests") -> dict[str, list[str]]:
    """The tests of each feature id, as `path::name` relative to the workspace, in order."""
    found: dict[str, list[str]] = {}
    for path in sorted(tests.rglob("test_*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        whole = [mark for node in tree.body if isinstance(node, ast.Assign) for mark in _assigned(node)]
        for name, marks in _tests(tree):
            for feature in dict.fromkeys([*whole, *marks]):
                found.setdefault(feature, []).append(f"{path.relative_to(tests.parent)}::{name}")
    return found


def page(promises: dict[str, dict[str, str]], tests: dict[str, list[str]]) -> str:
    """The page's text. Raises ValueError for a mark that no promise has."""
    unknown = sorted(set(tests) - set(promises))
    if unknown:
        raise ValueError(
            f"{', '.join(unknown)}: marked in {tests[unknown[0]][0]}, but not in {PROMISES.name}"
        )
    return HEAD + "".join(
        _row(feature, promise, tests.get(feature, [])) for feature, promise in promises.items()
    )


def current() -> str:
    """The page as the tests and promises of this workspace make it."""
    return page(yaml.safe_load(PROMISES.read_text(encoding="utf-8")), marked())


def _row(feature: str, promise: dict[str, str], tests: list[str]) -> str:
    files: dict[str, int] = {}
    for test in tests:
        file = test.partition("::")[0]
        files[file] = files.get(file, 0) + 1
    proofs = "<br>".join(
        f"[{file.removeprefix('tests/')}](../{file}) ({count} test{'s' if count > 1 else ''})"
        for file, count in files.items()
    )
    explained = promise.get("page", "")
    link = f"[{explained}](../{explained})"
    return f"| {feature} | {promise['promise']} | {proofs or 'no test yet'} | {link if explained else ''} |\n"


def _tests(tree: ast.Module) -> Iterator[tuple[str, list[str]]]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            yield node.name, _marks(node.decorator_list)
        elif isinstance(node, ast.ClassDef):
            own = _marks(node.decorator_list)
            for item in node.body:
                if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef) and item.name.startswith("test_"):
                    yield f"{node.name}::{item.name}", [*own, *_marks(item.decorator_list)]


def _assigned(node: ast.Assign) -> list[str]:
    if not any(isinstance(target, ast.Name) and target.id == "pytestmark" for target in node.targets):
        return []
    return _marks(node.value.elts if isinstance(node.value, ast.List | ast.Tuple) else [node.value])


def _marks(nodes: list[ast.expr]) -> list[str]:
    found = []
    for node in nodes:
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.feature":
            found += [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
    return [str(feature) for feature in found]


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(current(), encoding="utf-8")
