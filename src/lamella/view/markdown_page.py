"""Markdown as HTML: model cards in the viewer, and results.html beside every results.md.

The text was written by a program or downloaded with a model, so it is not trusted: HTML in it is shown as text, links
that run scripts are left out (markdown-it does both), and a picture is shown only from the text's own folder.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import unquote

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token

from lamella.formats.atomic import write_text
from lamella.view.look import document, is_number

Place = Callable[[str], str | None]
"""Address that a text gives of a picture -> the one that the page shall have; None leaves the picture out."""

_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)  # of model cards: facts for the hub, in YAML


def html_of(text: str, picture: Place, deeper: int = 0) -> str:
    """HTML of a Markdown text; tables can be scrolled, by the keyboard as well.

    Args:
        text: CommonMark with tables; YAML before it is left out.
        picture: Where its pictures are; one that is None becomes its own caption.
        deeper: Levels by which its headings are lowered, under a page's own.
    """
    # validateLink refuses javascript:, vbscript:, file: and data: but for pictures, and those are judged by `picture`.
    renderer = MarkdownIt("commonmark", {"html": False}, renderer_cls=_Renderer).enable("table")
    tokens = renderer.parse(_FRONT_MATTER.sub("", text))
    heading = ""
    for place, token in enumerate(tokens):
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(6, int(token.tag[1]) + deeper)}"
            heading = tokens[place + 1].content if token.type == "heading_open" else heading
        elif token.type == "table_open":
            token.meta["about"] = heading
        elif token.type == "th_open" and not tokens[place + 1].content:
            token.tag = tokens[place + 2].tag = "td"  # a heading of nothing is none
        elif token.type == "td_open" and is_number(tokens[place + 1].content):
            token.attrSet("class", "number")
        for child in token.children or ():
            if child.type == "image":
                child.meta["address"] = picture(str(child.attrs["src"]))
    return str(renderer.renderer.render(tokens, renderer.options, {}))


def write_report_page(results: Path) -> Path:
    """Write the page of a report beside its Markdown, unless it stands there word for word.

    Args:
        results: results.md; pictures that it shows are linked relative to it.

    Returns:
        The page: results.html.

    Raises:
        OSError: There is no such text.
        StorageError: The page cannot be written.
    """
    text, page = results.read_text(encoding="utf-8"), results.with_suffix(".html")
    title = next((line[2:].strip() for line in text.splitlines() if line.startswith("# ")), results.stem)
    write_text(page, document(html.escape(title), html_of(text, beside(results.parent))))
    return page


def beside(folder: Path) -> Place:
    """Pictures in or below a folder keep their address; all others are left out."""

    def place(address: str) -> str | None:
        path = (folder / unquote(address)).resolve()
        return address if path.is_file() and path.is_relative_to(folder.resolve()) else None

    return place


class _Renderer(RendererHTML):
    """Tables in a box that scrolls, and pictures only where they may be shown from."""

    def table_open(self, tokens: Sequence[Token], idx: int, options: object, env: object) -> str:
        about = html.escape(str(tokens[idx].meta.get("about", ""))) or "Table"
        return f'<div class="scroll" tabindex="0" role="group" aria-label="{about}"><table>\n'

    def table_close(self, tokens: Sequence[Token], idx: int, options: object, env: object) -> str:
        return "</table></div>\n"

    def image(self, tokens: Sequence[Token], idx: int, options: object, env: object) -> str:
        token = tokens[idx]
        caption = html.escape(token.content)
        if token.meta.get("address") is None:
            return f'<span class="faint">[picture not shown: {caption or html.escape(str(token.attrs["src"]))}]</span>'
        address = html.escape(str(token.meta["address"]))
        return f'<a href="{address}"><img src="{address}" alt="{caption}" loading="lazy"></a>'
