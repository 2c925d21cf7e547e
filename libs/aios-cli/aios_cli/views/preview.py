"""A page for the browser with everything that an approval would write. Nothing in it can run or reach out."""

import base64
import html
from collections.abc import Sequence
from typing import Final

from aios.run.v1.state_pb2 import Approval
from aios_cli import words
from aios_cli.documents import Document

# What the documents contain is data: no script runs, nothing is fetched.
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-src 'self'"
_STYLE: Final = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #1c1c1c; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.05rem; margin-top: 2rem; overflow-wrap: anywhere; }
dt { color: #666; } dd { margin: 0 0 .5rem 0; white-space: pre-wrap; }
pre { background: #f6f6f4; padding: 1rem; overflow-x: auto; border-radius: 6px; }
iframe { width: 100%; height: 70vh; border: 1px solid #ccc; border-radius: 6px; background: #fff; }
img { max-width: 100%; }
"""


def page(item: Approval, documents: Sequence[Document]) -> str:
    """The HTML of the page."""
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        f"<title>{_text(item.title or item.step)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{_text(item.title or item.step)}</h1><dl>",
    ]
    for name, text in (("Why", item.why), ("What could go wrong", item.risk)):
        if text:
            parts.append(f"<dt>{name}</dt><dd>{_text(text)}</dd>")
    parts.append("</dl>")
    for document in documents:
        size = words.size(len(document.content))
        parts.append(f"<h2>{_text(document.verb)} {_text(document.place)} ({size})</h2>{_body(document)}")
    parts.append(
        f"<p>To decide: <code>aios approval approve {words.short(item.approval_id)}</code></p></body></html>"
    )
    return "\n".join(parts)


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
