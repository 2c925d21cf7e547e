"""The house stays clean: sizes, banned words, dead modules, names in their one place."""

import ast
import re

import pytest

from tests.tidy import sources

MAX_FILE_LINES = 400
MAX_TEST_FILE_LINES = 700
MAX_FUNCTION_LINES = 60

# Written so that this file does not contain them.
BANNED = {
    "an unfinished note": r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b",
}
BANNED_CALLS = {
    "eval": "configuration and expressions are data",
    "exec": "configuration and expressions are data",
    "compile": "configuration and expressions are data",
}
SHELLS = {"os.system", "os.popen", "asyncio.create_subprocess_shell", "subprocess.getoutput"}
SLEEPERS = {
    "libs/aios-runtime/aios_runtime/store/transactions.py": "the store's own thread, which waits for the disk",
    "libs/aios-cli/aios_cli/session.py": "a command line that waits for its server",
}
BANNED_MODULES = {"pickle", "marshal", "shelve", "dill"}
# What stands outside the project: the machine it was written on, and where packages come from.
FOREIGN = {
    "a path of one machine": r"(?<![\w.])/(?:work|root|home/\w+)/",
    "a package registry": r"(?:py"
    + r"pi\.org|python"
    + r"hosted|registry\.npm"
    + r"js|proxy\.golang|repo1?\.maven)",
}
ENTRY_POINTS = re.compile(r"(?:__init__|__main__|module)$")


def _lines(name: str) -> int:
    return sources.text(name).count("\n")


def test_no_file_is_too_large() -> None:
    large = [
        f"{name}: {_lines(name)} lines"
        for name in sources.written(".py")
        if _lines(name)
        > (MAX_TEST_FILE_LINES if name.startswith(("tests/", "libs/aios-testing/")) else MAX_FILE_LINES)
    ]
    assert not large, large


def test_no_function_is_too_long_to_see_at_once() -> None:
    long = []
    for name in sources.written(".py"):
        for node in ast.walk(sources.tree(name)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno
                if length > MAX_FUNCTION_LINES:
                    long.append(f"{name}:{node.lineno} {node.name}: {length} lines")
    assert not long, long


@pytest.mark.parametrize("what", BANNED)
def test_no_file_has_a_banned_word(what: str) -> None:
    pattern = re.compile(BANNED[what])
    found = []
    for name in sources.files():
        if name.startswith(sources.GENERATED) or not name.endswith(
            (".py", ".proto", ".sh", ".yaml", ".tpl", "Makefile")
        ):
            continue
        found += [
            f"{name}:{number}"
            for number, line in enumerate(sources.text(name).splitlines(), 1)
            if pattern.search(line)
        ]
    assert not found, found


def test_no_code_is_made_from_text_and_no_object_from_bytes() -> None:
    found = []
    for name in sources.product():
        for node in ast.walk(sources.tree(name)):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in BANNED_CALLS
            ):
                found.append(f"{name}:{node.lineno} calls {node.func.id}: {BANNED_CALLS[node.func.id]}")
            if isinstance(node, ast.Import) and BANNED_MODULES & {alias.name for alias in node.names}:
                found.append(f"{name}:{node.lineno} imports what turns bytes into code")
            if isinstance(node, ast.ImportFrom) and node.module in BANNED_MODULES:
                found.append(f"{name}:{node.lineno} imports what turns bytes into code")
    assert not found, found


def test_no_process_is_started_through_a_shell() -> None:
    found = []
    for name in sources.product():
        for node in ast.walk(sources.tree(name)):
            if (
                isinstance(node, ast.keyword)
                and node.arg == "shell"
                and getattr(node.value, "value", True) is not False
            ):
                found.append(f"{name}:{node.value.lineno}")
            if isinstance(node, ast.Attribute) and ast.unparse(node) in SHELLS:
                found.append(f"{name}:{node.lineno} {node.attr}")
    assert not found, found


def test_nothing_that_ships_blocks_the_loop_by_sleeping() -> None:
    found = [
        f"{name}:{node.lineno}"
        for name in sources.product()
        if name not in SLEEPERS
        for node in ast.walk(sources.tree(name))
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "time.sleep"
    ]
    assert not found, found


def test_no_defect_is_swallowed() -> None:
    """Who catches everything raises, logs the trace, or hands the error on; a line in the log is not enough."""
    found = []
    for name in sources.product():
        for node in ast.walk(sources.tree(name)):
            if not isinstance(node, ast.ExceptHandler):
                continue
            caught = ast.unparse(node.type) if node.type else "BaseException"
            if caught in ("Exception", "BaseException") and not _handled(node):
                found.append(f"{name}:{node.lineno}")
    assert not found, found


def _handled(handler: ast.ExceptHandler) -> bool:
    for node in ast.walk(ast.Module(handler.body, [])):
        if isinstance(node, ast.Raise):
            return True
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            names = {
                inner.id
                for argument in [*node.args, *node.keywords]
                for inner in ast.walk(argument)
                if isinstance(inner, ast.Name)
            }
            traced = any(keyword.arg == "exc_info" for keyword in node.keywords)
            if (
                traced
                or called.endswith(".exception")
                or (not re.match(r"_?log(ger)?\.", called) and handler.name in names)
            ):
                return True
        if isinstance(node, ast.Constant) and node.value == "INTERNAL":
            return True
    return False


def test_every_module_is_imported_by_another() -> None:
    imported: set[str] = set()
    texts: list[str] = []
    for name in sources.written(".py"):
        package = sources.module_name(name).split(".")
        if not name.endswith("__init__.py"):
            package = package[:-1]
        for node in ast.walk(sources.tree(name)):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                base = ".".join(
                    [*(package[: len(package) - node.level + 1] if node.level else []), node.module or ""]
                ).strip(".")
                imported |= {base} | {f"{base}.{alias.name}" for alias in node.names}
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "aios_" in node.value:
                texts.append(node.value)
    playbooks = [
        path.read_text(encoding="utf-8") for path in sources.ROOT.glob("services/*/*/playbooks/*.yaml")
    ]
    named = "\n".join([*texts, *playbooks, sources.text("Makefile")])
    dead = [
        name
        for name in sources.product()
        if not ENTRY_POINTS.search(name.removesuffix(".py"))
        and sources.module_name(name) not in imported
        and sources.module_name(name) not in named
    ]
    assert not dead, dead


def test_subjects_are_spelled_in_one_module() -> None:
    pattern = re.compile(r"\baios\.(?:cmd|evt|in|dlq|qry|accept|inbox)\b")
    allowed = {
        "libs/aios-runtime/aios_runtime/bus/subjects.py",
        # what the server allows each identity, as patterns over those subjects
        "libs/aios-runtime/aios_runtime/bus/permissions.py",
        "libs/aios-runtime/aios_runtime/bus/topology.py",
    }
    found = [
        f"{name}:{line} {text!r}"
        for name in sources.product()
        if name not in allowed
        for line, text in sources.strings(name)
        if pattern.search(text)
    ]
    assert not found, found


@pytest.mark.parametrize("what", FOREIGN)
def test_no_file_names_a_machine_or_a_registry(what: str) -> None:
    pattern = re.compile(FOREIGN[what])
    found = []
    for name in sources.files():
        if name == "tests/tidy/test_tidy.py" or (sources.ROOT / name).suffix not in sources.TEXT:
            continue
        try:
            lines = sources.text(name).splitlines()
        except UnicodeDecodeError:
            continue
        found += [
            f"{name}:{number} {line.strip()[:100]}"
            for number, line in enumerate(lines, 1)
            if pattern.search(line)
        ]
    assert not found, found


def test_the_locks_have_no_address() -> None:
    for name in ("requirements.lock", "requirements-dev.lock"):
        assert "://" not in sources.text(name)
        assert "--hash=sha256:" in sources.text(name)


def test_the_top_level_is_what_a_newcomer_expects() -> None:
    folders = {name.partition("/")[0] for name in sources.files() if "/" in name and not name.startswith(".")}
    assert folders <= {"services", "proto", "charts", "libs", "tests", "docker", "docs"}, folders
