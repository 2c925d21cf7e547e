"""Workflows that use others: order, pinned versions, and what is told of a wrong use."""

import pytest

from aios.resource.v1 import resource_pb2 as pb
from aios_core.errors import TerminalError
from aios_orchestrator.resources import ResourceBook
from aios_orchestrator.uses import used_first
from aios_testing.store_memory import MemoryStore

HEAD = "apiVersion: aios/v1\nkind: Workflow\nmetadata: {{name: {}}}\nspec:\n  steps:\n"


def document(name: str, *uses: str, agent: str = "x") -> str:
    steps = "".join(f"    - {{name: u{at}, workflow: {ref}}}\n" for at, ref in enumerate(uses))
    return HEAD.format(name) + steps + f"    - {{name: own, agent: {agent}}}\n"


@pytest.fixture
def book() -> ResourceBook:
    return ResourceBook(MemoryStore(lambda: 0), "main", lambda: 0)


async def apply(book: ResourceBook, *documents: str) -> dict[str, pb.Applied]:
    request = pb.ApplyResourcesRequest(workspace="main", yaml="---\n".join(documents).encode(), file="f.yaml")
    return {item.name: item for item in (await book.apply(request)).applied}


@pytest.mark.feature("D1")
async def test_a_document_keeps_the_version_that_it_used_until_it_is_applied_again(
    book: ResourceBook,
) -> None:
    first = await apply(book, document("parent", "child"), document("child"))
    stored = await book.get("main", "Workflow", "parent")
    assert stored is not None and f'"child@{first["child"].version}"' in stored.document.decode()
    assert "u0.own" in (await book.workflow("main", "parent")).steps
    second = await apply(book, document("child", agent="y"))
    assert (await book.workflow("main", "parent")).steps["u0.own"].target == "x"
    again = await apply(book, document("parent", "child"))
    assert again["parent"].change == "updated" and again["parent"].version != first["parent"].version
    assert (await book.workflow("main", "parent")).steps["u0.own"].target == "y"
    assert (await book.workflow("main", "parent", first["parent"].version)).steps["u0.own"].target == "x"
    named = await apply(book, document("parent", f"child@{first['child'].version}"))
    assert named["parent"].version == first["parent"].version, "a named version and a pinned one are the same"
    assert second["child"].change == "updated"


@pytest.mark.feature("D1")
async def test_a_book_that_was_opened_anew_reads_pinned_versions(book: ResourceBook) -> None:
    await apply(book, document("a", "b"), document("b", "c"), document("c"))
    other = ResourceBook(book._store, "main", lambda: 0)
    assert set((await other.workflow("main", "a")).steps) == {"own", "u0", "u0.own", "u0.u0", "u0.u0.own"}


async def test_a_version_that_is_compiled_is_not_compiled_again_when_it_is_found_to_be_the_newest(
    book: ResourceBook,
) -> None:
    applied = await apply(book, document("a"))
    other = ResourceBook(book._store, "main", lambda: 0)
    first = await other.workflow("main", "a", applied["a"].version)
    assert await other.workflow("main", "a") is first


@pytest.mark.feature("D2")
@pytest.mark.parametrize(
    ("documents", "code", "words"),
    [
        ((document("a", "b"), document("b", "a")), "CYCLE", "workflows use each other in a circle: "),
        ((document("a", "a"),), "CYCLE", "a → a"),
        ((document("child"), document("a", "chld")), "BAD_RESOURCE", "Did you mean 'child'?"),
        ((document("child"), document("a", "child@0000")), "BAD_RESOURCE", "no version '0000'"),
    ],
)
async def test_a_use_that_can_not_be_is_refused_with_its_place(
    book: ResourceBook, documents: tuple[str, ...], code: str, words: str
) -> None:
    await apply(book, document("child"))
    with pytest.raises(TerminalError) as caught:
        await apply(book, *documents)
    assert (caught.value.code, caught.value.details["field"]) == (code, "spec.steps[0].workflow")
    assert words in caught.value.message and caught.value.message.startswith("f.yaml:")


def test_files_come_after_those_that_they_use_and_bad_ones_stay() -> None:
    files = [
        ("a", document("a", "b").encode()),
        ("bad", b": ["),
        ("x", document("x", "y").encode()),
        ("y", document("y", "x").encode()),
        ("b", document("b", "c@v").encode()),
    ]
    assert [name for name, _ in used_first(files)] == ["b", "a", "bad", "y", "x"]
