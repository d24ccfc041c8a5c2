"""The one look of all pages: the viewer links the style sheet, reports have it inside them."""

from __future__ import annotations

import functools
from pathlib import Path

STYLE_SHEET = Path(__file__).resolve().parent / "static" / "look.css"


@functools.cache
def look() -> str:
    """The text of the style sheet."""
    return STYLE_SHEET.read_text(encoding="utf-8")


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
