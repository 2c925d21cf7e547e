"""The files of the workspace that people write, as the tidy tests read them."""

import ast
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GENERATED = ("libs/aios-proto/aios/",)
TEXT = {
    ".py",
    ".md",
    ".yaml",
    ".yml",
    ".toml",
    ".proto",
    ".sh",
    ".in",
    ".lock",
    ".txt",
    ".tpl",
    ".json",
    ".cfg",
    ".j2",
    ".html",
    ".css",
    "",
}


@cache
def files() -> tuple[str, ...]:
    """Every file that git tracks or would, relative to the workspace."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    found = (name for name in listed.stdout.decode().split("\0") if name)
    return tuple(sorted(name for name in found if (ROOT / name).is_file()))


@cache
def written(suffix: str) -> tuple[str, ...]:
    """The hand-written files with this suffix."""
    return tuple(name for name in files() if name.endswith(suffix) and not name.startswith(GENERATED))


def product() -> list[str]:
    """Hand-written Python that ships: libraries and services."""
    return [name for name in written(".py") if name.startswith(("libs/", "services/"))]


@cache
def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@cache
def tree(name: str) -> ast.Module:
    return ast.parse(text(name), filename=name)


def strings(name: str) -> list[tuple[int, str]]:
    """The text constants of a module with their lines; docstrings are left out."""
    module = tree(name)
    documentation = {
        id(node.body[0].value)
        for node in ast.walk(module)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    found = []
    for node in ast.walk(module):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            found.append((node.lineno, node.value))
    return found


def module_name(name: str) -> str:
    """The import name of a file: `libs/aios-core/aios_core/ids.py` is `aios_core.ids`."""
    parts = Path(name).with_suffix("").parts
    start = next((index for index, part in enumerate(parts) if part.startswith("aios_")), 0)
    own = parts[start:]
    return ".".join(own[:-1] if own[-1] == "__init__" else own)
