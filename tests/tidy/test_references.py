"""What refers to something finds it: reason codes, links of the docs, packages, generated pages and code."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from aios_cli.version import VERSION
from aios_core.errors import REASONS
from aios_testing import features, generate
from tests.tidy import sources

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FAMILIES = {"TerminalError", "RetryableError", "AiosError"}


def _raised_codes(name: str) -> list[tuple[int, str]]:
    return [
        (node.lineno, node.args[0].value)
        for node in ast.walk(sources.tree(name))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).rpartition(".")[2] in FAMILIES
        and node.args
        and isinstance(node.args[0], ast.Constant)
    ]


def test_every_reason_code_in_the_code_is_in_the_registry() -> None:
    unknown = [
        f"{name}:{line} {code}"
        for name in sources.product()
        for line, code in _raised_codes(name)
        if code not in REASONS
    ]
    assert not unknown, unknown


def test_every_reason_code_of_the_registry_is_used() -> None:
    used = "\n".join(
        sources.text(name) for name in sources.product() if name != "libs/aios-core/aios_core/errors.py"
    )
    unused = [code for code in REASONS if f'"{code}"' not in used]
    assert not unused, unused


def test_every_link_of_the_docs_leads_somewhere() -> None:
    broken = []
    for name in sources.written(".md"):
        for target in LINK.findall(sources.text(name)):
            path, _, anchor = target.partition("#")
            if re.match(r"[a-z]+:", target):
                continue
            file = (sources.ROOT / name).parent / path if path else sources.ROOT / name
            if not file.exists():
                broken.append(f"{name}: {target}")
            elif anchor and file.suffix == ".md" and anchor not in _anchors(file):
                broken.append(f"{name}: {target} (no such heading)")
    assert not broken, broken


def _anchors(file: Path) -> set[str]:
    headings = re.findall(r"^#+ +(.+?) *$", file.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_page_of_features_is_current() -> None:
    page = sources.ROOT / "docs" / "features.md"
    assert page.read_text(encoding="utf-8") == features.current(), "run `make features`"


def test_every_promise_has_a_test_that_proves_it() -> None:
    promises = yaml.safe_load(features.PROMISES.read_text(encoding="utf-8"))
    unproven = sorted(set(promises) - set(features.marked()))
    assert not unproven, unproven


def test_the_generated_code_is_current(tmp_path: Path) -> None:
    home = sources.ROOT / "libs" / "aios-proto"
    fresh = generate.generate(tmp_path)
    here = sorted(
        path.relative_to(home) for path in home.joinpath("aios").rglob("*_pb2*.py*") if path.suffix != ".pyc"
    )
    assert fresh == here, "run `make proto`"
    outdated = [str(path) for path in fresh if (tmp_path / path).read_bytes() != (home / path).read_bytes()]
    assert not outdated, f"run `make proto`: {outdated}"


def test_no_contract_changed_in_a_way_that_breaks_who_uses_it() -> None:
    buf = Path(sys.executable).parent / "buf"
    image = sources.ROOT / "proto" / "image.binpb"
    checked = subprocess.run(
        [buf, "breaking", sources.ROOT / "proto", "--against", image],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_all_packages_have_one_version() -> None:
    versions = {
        name: tomllib.loads(sources.text(name))["project"]["version"]
        for name in sources.files()
        if name.startswith(("libs/", "services/")) and name.endswith("pyproject.toml")
    }
    assert set(versions.values()) == {VERSION}, versions


def test_the_lock_has_every_library_that_a_package_names() -> None:
    locked = set(re.findall(r"^([a-z0-9-]+)==", sources.text("requirements.lock"), re.MULTILINE))
    for name in sources.files():
        if not name.startswith(("libs/", "services/")) or not name.endswith("pyproject.toml"):
            continue
        project = tomllib.loads(sources.text(name))["project"]
        wanted = {re.split(r"[\[<>=!~; ]", text)[0].lower() for text in project["dependencies"]}
        foreign = {library for library in wanted if not library.startswith("aios-")}
        assert foreign <= locked, f"{name}: {foreign - locked} is not in requirements.lock"


@pytest.mark.parametrize(
    "target",
    [
        "demo",
        "up",
        "test",
        "lint",
        "bench",
        "drill",
        "servers",
        "image",
        "chart",
        "cluster-test",
        "proto",
        "clean",
    ],
)
def test_make_help_explains_each_target(target: str) -> None:
    shown = subprocess.run(
        ["make", "help"], cwd=sources.ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert re.search(rf"^ +make {target} +\S", shown, re.MULTILINE), shown
