"""One HTML page that shows a run: text, pictures beside it, a result table. It asks nothing of the network."""

from __future__ import annotations

import html
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lamella.formats.atomic import write_text
from lamella.metrics.segments.protocol import refuse_mixed_trees
from lamella.view.look import cell, document


@dataclass(frozen=True)
class Picture:
    """A picture file and what it shows."""

    path: Path
    caption: str = ""


@dataclass(frozen=True)
class Section:
    """A headed part of the page: paragraphs, then pictures, then a table of (head, rows)."""

    title: str
    paragraphs: Sequence[str] = ()
    pictures: Sequence[Picture] = ()
    columns: int = 1
    """Pictures side by side."""
    table: tuple[Sequence[str], Sequence[Sequence[str]]] | None = None
    code: str = ""
    links: Sequence[tuple[str, Path]] = ()
    """(what it says, file): other pages of the same results."""


_MOST_COLUMNS = 4  # the style sheet has classes for two to four


def write_page(path: Path, title: str, lead: str, sections: Sequence[Section]) -> bool:
    """Write the page, unless it stands there word for word.

    Args:
        path: The HTML file; pictures are linked relative to it.
        title: Heading of the page.
        lead: One or two sentences under it.
        sections: The parts, in order.

    Returns:
        Whether it was written.

    Raises:
        FileNotFoundError: A picture or a linked page is not there; a page never shows a hole.
    """
    linked = [path for part in sections for path in (*(it.path for it in part.pictures), *(to for _, to in part.links))]
    missing = [path for path in linked if not path.is_file()]
    if missing:
        raise FileNotFoundError(f"files that the page shows are missing: {', '.join(map(str, missing))}")
    heading = html.escape(title)
    parts = [f'<h1>{heading}</h1><p class="lead">{html.escape(lead)}</p>']
    text = document(heading, "\n".join([*parts, *(_section(section, path.parent) for section in sections)]))
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return False
    write_text(path, text)
    return True


def result_table(results: Path, measures: Mapping[str, Sequence[str]]) -> tuple[list[str], list[list[str]]]:
    """The rows of an evaluation that answer its questions at a glance; results.md has them all.

    Args:
        results: results.json of `lamella evaluate`.
        measures: Question -> the measures to show.

    Returns:
        Head and rows.

    Raises:
        ProtocolError: They are of segmentations under different conditions: those need a table each.
    """
    report = json.loads(results.read_text(encoding="utf-8"))
    head = ["question", "measure", "encoder", "value [95 % interval]", "stands beside", "n (groups)"]
    rows = [
        row
        for question, wanted in measures.items()
        for row in report["rows"]
        if row["question"] == question and row["measure"] in wanted
    ]
    refuse_mixed_trees(rows, str(results))
    return head, [_result_row(row) for row in rows]


def conclusions(results: Path) -> list[str]:
    """The sentences of an evaluation: warnings, what the numbers say, what could not be asked."""
    report = json.loads(results.read_text(encoding="utf-8"))
    unasked = [f"{skipped['question']}: not asked, {skipped['reason']}." for skipped in report["unasked"]]
    return [*report["warnings"], *report["conclusions"], *unasked]


def _result_row(row: Mapping[str, Any]) -> list[str]:
    estimate, baseline = row["estimate"], row["baseline"]
    better = {"higher": " (higher is better)", "lower": " (lower is better)"}.get(row["better"], "")
    value = f"{estimate['value']:.2f} [{estimate['low']:.2f}, {estimate['high']:.2f}]"
    return [
        row["question"],
        f"{row['measure']}, {row['probe']}{better}",
        row["encoder"],
        value,
        f"{baseline['value']:.2f} {baseline['name']}",
        f"{estimate['n']:,} ({estimate['groups']})",
    ]


def _section(section: Section, folder: Path) -> str:
    parts = [f"<section><h2>{html.escape(section.title)}</h2>"]
    parts += [f"<p>{html.escape(text)}</p>" for text in section.paragraphs]
    if section.pictures:
        parts.append(f'<div class="pictures side{min(section.columns, _MOST_COLUMNS)}">')
        parts += [_figure(picture, folder) for picture in section.pictures]
        parts.append("</div>")
    if section.table is not None:
        head, rows = section.table
        cells = "".join(f"<th>{html.escape(text)}</th>" for text in head)
        about = html.escape(section.title)
        parts.append(f'<div class="scroll" tabindex="0" role="group" aria-label="{about}"><table>')
        parts.append(f"<thead><tr>{cells}</tr></thead><tbody>")
        parts += [f"<tr>{''.join(map(cell, row))}</tr>" for row in rows]
        parts.append("</tbody></table></div>")
    parts += [f'<p><a href="{_address(path, folder)}">{html.escape(text)}</a></p>' for text, path in section.links]
    if section.code:
        parts.append(f"<pre>{html.escape(section.code)}</pre>")
    return "\n".join([*parts, "</section>"])


def _figure(picture: Picture, folder: Path) -> str:
    link, caption = _address(picture.path, folder), html.escape(picture.caption)
    # A link needs a name, for who cannot see what it shows.
    image = f'<a href="{link}"><img src="{link}" alt="{caption or html.escape(picture.path.stem)}"></a>'
    return f"<figure>{image}{f'<figcaption>{caption}</figcaption>' if caption else ''}</figure>"


def _address(path: Path, folder: Path) -> str:
    """Relative, so that the folder can be moved and sent."""
    return html.escape(quote(Path(os.path.relpath(path, folder)).as_posix(), safe="/&=+,"))
