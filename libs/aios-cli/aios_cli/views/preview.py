"""A page for the browser with everything that an approval would write. Nothing in it can run or reach out."""

import base64
import html
from collections.abc import Sequence
from typing import Final

from aios.run.v1.state_pb2 import Approval, ApprovalKind, ApprovalState, Question
from aios_cli import words
from aios_cli.documents import Document

# What the documents contain is data: no script runs, nothing is fetched.
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-src 'self'"
_STYLE: Final = """
:root { color-scheme: light dark; --ink: #14273d; --soft: #53718f; --line: #dbe5ee; --paper: #fff; --desk: #f2f6fa;
  --warm: #fff7e0; --warm-ink: #7a5200; --add: #e3f4e6; --accent: #2b6e9e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf4; --soft: #93abc2; --line: #2c3d4f; --paper: #17222e;
  --desk: #0e161e; --warm: #3a2f10; --warm-ink: #f3d98a; --add: #17351f; --accent: #7db8e0; } }
* { box-sizing: border-box; }
body { font: 16px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; margin: 0;
  background: var(--desk); color: var(--ink); }
main { max-width: 60rem; margin: 0 auto; padding: clamp(1rem, 4vw, 3rem) clamp(.9rem, 4vw, 2rem); }
.over { color: var(--accent); font-size: .8rem; font-weight: 700; letter-spacing: .08em; margin: 0;
  text-transform: uppercase; }
h1 { font-size: clamp(1.35rem, 5vw, 1.9rem); line-height: 1.2; margin: .2rem 0 1.2rem; overflow-wrap: anywhere; }
dl { margin: 0 0 1.5rem; display: grid; gap: .75rem; }
dl div { background: var(--paper); border: 1px solid var(--line); border-radius: 10px; padding: .8rem 1rem; }
dl .risk { background: var(--warm); color: var(--warm-ink); border-color: transparent; }
dt { font-size: .85rem; font-weight: 600; opacity: .8; }
dd { margin: .15rem 0 0; white-space: pre-wrap; overflow-wrap: anywhere; }
ol { padding: 0; margin: 0 0 1.5rem; list-style: none; display: grid; gap: .35rem; }
a { color: var(--accent); overflow-wrap: anywhere; }
section { background: var(--paper); border: 1px solid var(--line); border-radius: 12px; margin: 1.25rem 0;
  overflow: hidden; }
h2 { font-size: 1rem; margin: 0; padding: .8rem 1rem; border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
.verb { background: var(--add); border-radius: 99px; padding: .1rem .6rem; font-size: .8rem; margin-right: .4rem; }
.size { color: var(--soft); font-weight: 400; font-size: .85rem; white-space: nowrap; }
pre { margin: 0; padding: 1rem; white-space: pre-wrap; overflow-wrap: anywhere;
  font: .85rem/1.5 ui-monospace, monospace; }
iframe { display: block; width: 100%; height: 85vh; border: 0; background: #fff; }
img { max-width: 100%; display: block; } section > p { padding: 0 1rem; color: var(--soft); }
footer { border-top: 1px solid var(--line); padding-top: 1rem; color: var(--soft); overflow-wrap: anywhere; }
code { background: var(--paper); border: 1px solid var(--line); border-radius: 5px; padding: .1rem .35rem;
  color: var(--ink); }
"""


def page(item: Approval, documents: Sequence[Document]) -> str:
    """The HTML of the page."""
    title = _text(item.title or item.step)
    reasons = [("Why", "", item.why), ("What could go wrong", "risk", item.risk)]
    reasons += [(question.text, "", _asked(question)) for question in item.questions]
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        f"<title>{title}</title><style>{_STYLE}</style></head><body><main>",
        f"<p class='over'>{_text(words.approval_words(item))}</p><h1>{title}</h1><dl>",
        *(
            f"<div class='{kind}'><dt>{_text(name)}</dt><dd>{_text(text)}</dd></div>"
            for name, kind, text in reasons
            if text
        ),
        "</dl>",
    ]
    if len(documents) > 1:
        listed = (f"<li><a href='#d{at}'>{_text(d.place)}</a></li>" for at, d in enumerate(documents))
        parts.append(f"<ol>{''.join(listed)}</ol>")
    parts += [_section(at, document) for at, document in enumerate(documents)]
    parts.append(f"<footer>{_to_decide(item)}</footer></main></body></html>")
    return "\n".join(parts)


def _asked(question: Question) -> str:
    return "\n".join([question.why, *(f"· {option}" for option in question.options)]).strip()


def _to_decide(item: Approval) -> str:
    name = words.short(item.approval_id)
    if item.state != ApprovalState.APPROVAL_STATE_OPEN:
        return f"Nothing is to decide any more: <code>aios approval show {name}</code>"
    if item.kind == ApprovalKind.APPROVAL_KIND_GATE:
        return f"To decide: <code>aios approval approve {name}</code> or <code>aios approval reject {name}</code>"
    return f"To answer: <code>aios approval answer {name}</code>"


def _section(at: int, document: Document) -> str:
    size = words.size(len(document.content))
    verb = f"<span class='verb'>{_text(document.verb)}</span>"
    heading = f"{verb}{_text(document.place)} <span class='size'>{size}</span>"
    return f"<section id='d{at}'><h2>{heading}</h2>{_body(document)}</section>"


def _body(document: Document) -> str:
    text = document.text
    if document.media_type.startswith("image/") and document.media_type != "image/svg+xml":
        data = base64.b64encode(document.content).decode()
        return f'<img alt="" src="data:{_text(document.media_type)};base64,{data}">'
    if text is None:
        return f"<p>{_text(document.media_type or 'binary')}: no preview.</p>"
    if document.media_type.startswith("text/html"):
        return f'<iframe sandbox srcdoc="{html.escape(text, quote=True)}"></iframe>'
    return f"<pre>{_text(text)}</pre>"


def _text(text: str) -> str:
    return html.escape(words.clean(text), quote=True)
