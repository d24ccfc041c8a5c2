"""The one look of all pages: the viewer links the style sheet, reports have it inside them."""

from __future__ import annotations

import functools
import html
import re
from pathlib import Path

STYLE_SHEET = Path(__file__).resolve().parent / "static" / "look.css"

_NUMBER = re.compile(r"[-+]?\d[\d.,]*( \[[^\]]+\])?")


@functools.cache
def look() -> str:
    """The text of the style sheet."""
    return STYLE_SHEET.read_text(encoding="utf-8")


def is_number(text: str) -> bool:
    """Whether a cell is a number, perhaps with its interval: such a one is not broken over lines."""
    return _NUMBER.fullmatch(text) is not None


def cell(text: str) -> str:
    """A cell of a table's body."""
    kind = ' class="number"' if is_number(text) else ""
    return f"<td{kind}>{html.escape(text)}</td>"


def document(title: str, body: str) -> str:
    """A whole page that asks nothing of the network.

    Args:
        title: For the browser's tab, escaped already.
        body: HTML.
    """
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        f"<title>{title}</title><style>\n{look()}</style></head><body><main>",
        body,
        "</main></body></html>\n",
    ]
    return "\n".join(parts)
