"""The documents: nothing untrusted is markup, nothing internal reaches the client, and bytes repeat."""

import re
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from markdown_it import MarkdownIt

from aios_agent_runner.agents.monthly_report import display
from tests.report.months import Folder

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[x](javascript:alert(1))",
    "![x](http://evil.example/a.png)",
    "<javascript:alert(1)>",
    "a | b | c",
    "`code`",
    "$x_1$ $$y$$",
    "{{ 7*7 }} {% raw %}",
    "# heading",
    "\u202egnp.exe",
    "&lt;b&gt; &amp; <b>",
    "]]> --> <!--",
    "=cmd|'/c calc'!A1",
    "1. one",
    "- item",
]


class Elements(HTMLParser):
    """Collects the tags and attributes of a page, and checks that they nest."""

    VOID = frozenset({"meta", "br", "link", "img", "hr", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def elements(page: str) -> Elements:
    parser = Elements()
    parser.feed(page)
    assert parser.open == []
    return parser


@pytest.fixture
def hostile(folder: Folder) -> Folder:
    quoted = ['"' + text.replace('"', '""') + '"' for text in HOSTILE]
    folder.times(*(f"2026-10-{n + 1:02d},{text},{text},{n + 1},100,EUR" for n, text in enumerate(quoted)))
    folder.times(*(f"{text},A,b,1,{text},EUR" for text in quoted), name="timesheet-<b>.csv")
    folder.invoices(*(f"{text},2026-10-01,{text},10,EUR,open,{text}" for text in quoted))
    folder.put("notes.md", "# For the client\n" + "\n\n".join(HOSTILE) + "\n\n- " + "\n- ".join(HOSTILE))
    return folder


def render_hostile(folder: Folder) -> dict[str, str]:
    hostile_text = "\n\n".join(HOSTILE)
    evidence: list[Any] = [*HOSTILE, {"<b>": "<i>"}]
    return folder.render(client_name=HOSTILE[0], narrative=hostile_text, run_id=HOSTILE[2], evidence=evidence)


@pytest.mark.parametrize("name", ["report.html", "review.html"])
def test_a_page_holds_no_markup_from_data(hostile: Folder, name: str) -> None:
    page = render_hostile(hostile)[name]
    found = elements(page)
    assert not {"script", "img", "b", "i", "a", "iframe", "object", "form"} & set(found.tags)
    assert not [attribute for attribute, _ in found.attributes if attribute.startswith("on")]
    assert not [value for _, value in found.attributes if "javascript:" in value]
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "{{ 7*7 }}" in page
    assert "\u202e" not in page


@pytest.mark.parametrize("name", ["report.md", "review.md"])
def test_markdown_holds_no_markup_from_data(hostile: Folder, name: str) -> None:
    source = render_hostile(hostile)[name]
    page = MarkdownIt("gfm-like", {"linkify": False, "html": True}).render(source)
    found = elements(page)
    assert not {"script", "img", "b", "i", "a", "code", "pre"} & set(found.tags)
    assert "<script" not in source
    assert "](javascript" not in source
    tables = re.findall(r"<table>.*?</table>", page, re.DOTALL)
    for table in tables:
        widths = {len(re.findall("<t[hd]", row)) for row in re.findall(r"<tr>.*?</tr>", table, re.DOTALL)}
        assert len(widths) == 1
    assert page.count("<h1>") == 1


def test_the_words_of_the_data_survive_in_markdown(hostile: Folder) -> None:
    page = MarkdownIt("gfm-like", {"linkify": False}).render(render_hostile(hostile)["report.md"])
    for text in HOSTILE:
        shown = display.clean(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        assert f"<td>{shown}</td>" in page, text


def test_charts_are_well_formed_and_described(hostile: Folder) -> None:
    page = render_hostile(hostile)["report.html"]
    drawings = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(drawings) == 2
    for drawing in drawings:
        root = ET.fromstring(drawing)
        assert root.attrib["role"] == "img"
        assert root[0].tag.endswith("title")
        assert root[0].text
    assert "$x_1$" in page  # a name, not a formula


def test_ids_are_unique_in_a_page(folder: Folder) -> None:
    folder.times("2026-10-05,A,b,8,100,EUR")
    result = folder.compute()
    result["earlier_months"] = {"2026-08": {"total_hours": "10"}, "2026-09": {"total_hours": "12"}}
    ids = [value for name, value in elements(folder.render(result)["report.html"]).attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert len([one for one in ids if one.startswith("chart-")]) == 3


def test_a_page_needs_nothing_from_elsewhere(hostile: Folder) -> None:
    for name, page in render_hostile(hostile).items():
        if name.endswith(".html"):
            found = elements(page)
            assert not {"link", "base"} & set(found.tags)
            assert not [name for name, _ in found.attributes if name == "src"]
            links = [value for name, value in found.attributes if name in {"href", "xlink:href"}]
            assert all(value.startswith("#") for value in links)
            assert not re.search(r"url\((?!#)|@import", page)


def test_the_clients_report_has_no_rejected_row_no_outlier_and_no_internal_note(folder: Folder) -> None:
    folder.times(
        "2026-10-05,A,b,8,100,EUR", "2026-09-05,SECRET-PROJECT,b,8,100,EUR", "2026-10-05,A,b,98.7,1,EUR"
    )
    folder.put("notes.md", "SECRET-NOTE\n# For the client\nHello client.\n# Me\nSECRET-NOTE")
    documents = folder.render()
    for name in ("report.md", "report.html"):
        assert "Hello client." in documents[name]
        for internal in ("SECRET", "reject", "OTHER_MONTH", "timesheet.csv", "outlier", "98.7"):
            assert internal not in documents[name], internal
    assert all("SECRET-NOTE" not in text for text in documents.values())
    assert "OTHER_MONTH" in documents["review.html"]


def test_the_same_figures_give_the_same_bytes(hostile: Folder) -> None:
    first = {name: text.encode() for name, text in render_hostile(hostile).items()}
    assert {name: text.encode() for name, text in render_hostile(hostile).items()} == first


def test_the_exact_figures_stand_in_every_document_of_the_client(folder: Folder) -> None:
    folder.times("2026-10-05,A,b,8,12345.675,EUR", "2026-10-05,A,b,1,500,JPY")
    folder.invoices("R1,2026-10-01,,-70,EUR,open,")
    documents = folder.render()
    for name in ("report.md", "report.html"):
        for figure in ("98765.40", "500", "-70.00", "9"):
            assert figure in documents[name], (name, figure)


def test_open_questions_and_used_facts_are_in_the_review(folder: Folder) -> None:
    folder.times("2026-10-05,A,b,8,100,Taler")
    documents = folder.render()
    for name in ("review.md", "review.html"):
        assert "Which currency is “Taler”?" in documents[name]
    folder.facts = [{"kind": "currency", "spelling": "taler", "means": "EUR", "learned": "2026-09"}]
    documents = folder.render()
    for name in ("review.md", "review.html"):
        assert "“taler” was read as EUR, as you said in 2026-09." in documents[name]


def test_an_empty_month_renders(folder: Folder) -> None:
    documents = folder.render(narrative="", client_name="", evidence=None)
    assert "acme" in documents["report.html"]
    assert "<svg" not in documents["report.html"]
    assert "None." in documents["review.md"]


def test_the_index_entry_says_what_the_month_came_to(folder: Folder) -> None:
    from aios_agent_runner.agents.monthly_report import render

    result = folder.times("2026-10-05,A,b,8,100,EUR", "x").compute()
    entry = render.run({**result, "client_name": "Acme Ltd", "run_id": "r"}, folder.files, folder.out)[
        "index_entry"
    ]
    assert entry["title"] == "Acme Ltd, October 2026"
    assert (entry["billed"], entry["accepted_rows"], entry["rejected_rows"]) == ({"EUR": "800.00"}, 1, 1)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("12345.50", "12\u202f345.50"),
        ("-1234", "\u22121\u202f234"),
        ("999", "999"),
        ("0.5", "0.5"),
    ],
)
def test_numbers_are_grouped_for_the_eye(text: str, shown: str) -> None:
    assert display.grouped(text) == shown


@pytest.mark.parametrize(
    ("text", "html", "markdown"),
    [
        ("a **b** c", "a <strong>b</strong> c", "a **b** c"),
        ("*b* <i>", "<em>b</em> &lt;i&gt;", "*b* &lt;i&gt;"),
        ("2 * 3 * 4", "2 * 3 * 4", r"2 \* 3 \* 4"),
        ("**<b>**", "<strong>&lt;b&gt;</strong>", "**&lt;b&gt;**"),
        ("1. a", "1. a", r"1\. a"),
    ],
)
def test_emphasis_is_all_that_notes_may_mark_up(text: str, html: str, markdown: str) -> None:
    assert display.emphasis_html(text) == html
    assert display.emphasis_markdown(text) == markdown
