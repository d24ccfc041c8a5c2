"""One HTML page that shows a run: text, pictures beside it, a result table. It asks nothing of the network."""

from __future__ import annotations

import html
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lamella.formats.atomic import write_text
from lamella.metrics.segments.protocol import refuse_mixed_trees


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


_STYLE = """
:root { color-scheme: light; --ink: #212529; --faint: #6c757d; --line: #dee2e6; }
body { font: 17px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; color: var(--ink);
       max-width: 74rem; margin: 3rem auto 6rem; padding: 0 1.5rem; background: #fff; }
h1 { font-size: 2.1rem; line-height: 1.2; margin: 0 0 .4rem; }
h2 { font-size: 1.35rem; margin: 3.2rem 0 .6rem; }
p { max-width: 46rem; margin: .5rem 0; }
.lead { font-size: 1.15rem; color: var(--faint); }
.pictures { display: grid; gap: 1.4rem; margin: 1.2rem 0; }
figure { margin: 0; }
figure img { width: 100%; height: auto; border: 1px solid var(--line); border-radius: 4px; }
figcaption { color: var(--faint); font-size: .92rem; margin-top: .2rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: 1.2rem 0; font-size: .95rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .35rem 1.1rem .35rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; }
pre { background: #f8f9fa; border: 1px solid var(--line); border-radius: 4px; padding: .9rem 1.1rem; overflow-x: auto;
      font-size: .88rem; line-height: 1.5; }
"""


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
        FileNotFoundError: A picture is not there; a page never shows a hole.
    """
    missing = [picture.path for section in sections for picture in section.pictures if not picture.path.is_file()]
    if missing:
        raise FileNotFoundError(f"pictures of the page are missing: {', '.join(map(str, missing))}")
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>",
        f'<h1>{html.escape(title)}</h1><p class="lead">{html.escape(lead)}</p>',
        *(_section(section, path.parent) for section in sections),
        "</body></html>\n",
    ]
    text = "\n".join(parts)
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
        parts.append(f'<div class="pictures" style="grid-template-columns: repeat({section.columns}, 1fr)">')
        parts += [_figure(picture, folder) for picture in section.pictures]
        parts.append("</div>")
    if section.table is not None:
        head, rows = section.table
        cells = "".join(f"<th>{html.escape(text)}</th>" for text in head)
        parts.append(f'<div class="scroll"><table><thead><tr>{cells}</tr></thead><tbody>')
        parts += ["<tr>" + "".join(f"<td>{html.escape(text)}</td>" for text in row) + "</tr>" for row in rows]
        parts.append("</tbody></table></div>")
    if section.code:
        parts.append(f"<pre>{html.escape(section.code)}</pre>")
    return "\n".join([*parts, "</section>"])


def _figure(picture: Picture, folder: Path) -> str:
    link = html.escape(Path(os.path.relpath(picture.path, folder)).as_posix())
    caption = html.escape(picture.caption)
    return f'<figure><a href="{link}"><img src="{link}" alt="{caption}"></a><figcaption>{caption}</figcaption></figure>'
