"""What the page of one run shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from lamella.errors import LamellaError
from lamella.view.markdown_page import html_of
from lamella.view.server.catalogue.items import RunItem
from lamella.view.server.runs.run_files import RunFile, RunFiles, ordered
from lamella.view.server.runs.run_results import Results, results_of
from lamella.view.server.runs.run_settings import Setting, facts_of, settings_of

_SHOWN = 24  # pictures of one folder that are shown; the rest are links
_MAX_CARD_BYTES = 1 << 20


@dataclass(frozen=True)
class Shown:
    """A picture with its caption."""

    id: str
    caption: str


@dataclass(frozen=True)
class Album:
    """Pictures that belong together: those that a report names, and those of each folder."""

    title: str
    pictures: Sequence[Shown]
    more: Sequence[Shown]
    large: bool


@dataclass(frozen=True)
class Card:
    """A model card as HTML, from Markdown in which HTML counts as text."""

    title: str
    html: Markup


def run_values(item: RunItem, files: RunFiles) -> dict[str, Any]:
    """The values of run.html; what cannot be read is told in `faults`, and the rest is shown."""
    faults: list[str] = []
    facts: Mapping[str, str] = {}
    settings: Sequence[Setting] = ()
    results: Results | None = None
    try:
        facts = facts_of(item.folder)
    except LamellaError as error:
        faults.append(str(error))
    try:
        settings = settings_of(item.folder)
    except LamellaError as error:
        faults.append(str(error))
    try:
        results = results_of(item.folder)
    except LamellaError as error:
        faults.append(str(error))
    captions = {} if results is None else results.captions
    return {
        "item": item,
        "facts": facts,
        "settings": settings,
        "results": results,
        "albums": albums(list(files.pictures.values()), captions, item.folder),
        "label_maps": files.label_maps,
        "cards": _cards(files, faults),
        "logs": len(files.logs),
        "said": files.said,
        "faults": faults,
    }


def albums(pictures: Sequence[RunFile], captions: Mapping[str, str], folder: Path) -> list[Album]:
    """Pictures by where they belong; those with a caption, and the run's own, first and large."""
    groups: dict[str, list[Shown]] = {}
    for file in ordered(pictures, captions, folder):
        caption = captions.get(file.path.relative_to(folder).as_posix())
        shown = Shown(file.id, caption or file.path.stem.replace("_", " "))
        groups.setdefault("" if caption else file.title, []).append(shown)
    return [
        Album(title, shown[:_SHOWN], shown[_SHOWN:], large=not title and len(shown) <= _SHOWN)
        for title, shown in groups.items()
    ]


def _cards(files: RunFiles, faults: list[str]) -> list[Card]:
    found = []
    for card in files.cards.values():
        try:
            with open(card.path, encoding="utf-8") as file:
                text = file.read(_MAX_CARD_BYTES)
        except (OSError, UnicodeDecodeError) as error:
            faults.append(f"{card.path}: the model card cannot be read ({error!r}).")
            continue
        found.append(Card(card.title or "model", Markup(html_of(text, lambda _: None, deeper=2))))
    return found
