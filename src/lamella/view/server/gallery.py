"""The first page: every slide with its thumbnail and QC, every run and scan, and what was left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lamella.view.server.catalogue.items import LayerSource, RunItem, SlideItem
from lamella.view.server.pages import page
from lamella.view.server.served import Served

# What people call the kinds of `LayerSource`, in the order in which they are listed.
_KINDS = {
    "prediction": "prediction",
    "weak": "weakly supervised prediction",
    "expression": "predicted expression",
    "spots": "measured expression",
    "objects": "outlines",
    "features": "features",
    "anchors": "anchors",
    "index": "tissue",
}
# Headings -> last words of the verbs whose folders stand under them.
_RUNS = {"Training": ("pretrain", "adapt", "train", "models"), "Results": ("evaluate", "results", "checked")}
_OTHER = "What the other verbs wrote"
_TITLES = 3  # folders named on a card; the slide's page has all of them


@dataclass(frozen=True)
class Card:
    """A slide as the gallery shows it.

    Attributes:
        slide: The slide.
        layers: What lies over it: kind and where from.
        waiting: Places on it that a person is asked to look at.
    """

    slide: SlideItem
    layers: Sequence[str]
    waiting: int

    def holds(self, words: Sequence[str]) -> bool:
        """Whether all words stand somewhere on the card."""
        text = " ".join([self.slide.name, *self.slide.facts.values(), *self.layers, self.slide.refused]).lower()
        return all(word in text for word in words)


def cards(served: Served) -> list[Card]:
    """One for each slide, in the catalogue's order."""
    by_slide: dict[str, list[LayerSource]] = {}
    for source in served.catalogue.sources:
        by_slide.setdefault(source.slide, []).append(source)
    waiting = Counter(item.slide for item in served.catalogue.queue)
    return [
        Card(slide, _layers(by_slide.get(slide.name, ())), waiting[slide.name])
        for slide in served.catalogue.slides.values()
    ]


def _layers(sources: Sequence[LayerSource]) -> list[str]:
    """Folders, a line a kind."""
    lines = []
    for kind, name in _KINDS.items():
        titles = sorted({source.title for source in sources if source.kind == kind})
        more = f" and {len(titles) - _TITLES} more" if len(titles) > _TITLES else ""
        if titles:
            lines.append(f"{name}: {', '.join(titles[:_TITLES])}{more}")
    return lines


def grouped(runs: Iterable[RunItem]) -> list[tuple[str, list[RunItem]]]:
    """Runs under headings: what people look at most comes first."""
    groups: dict[str, list[RunItem]] = {heading: [] for heading in (*_RUNS, _OTHER)}
    for run in runs:
        words = run.verb.split()
        heading = next((heading for heading, verbs in _RUNS.items() if words and words[-1] in verbs), _OTHER)
        groups[heading].append(run)
    return [(heading, group) for heading, group in groups.items() if group]


def gallery(request: Request) -> Response:
    """GET /?q=WORDS: all slides, or those whose cards hold the words."""
    served: Served = request.app.state.served
    asked = request.query_params.get("q", "")
    every = cards(served)
    shown = [card for card in every if card.holds(asked.lower().split())]
    refused = sum(bool(card.slide.refused) for card in every)
    groups = grouped(served.catalogue.runs.values())
    in_order = [run.id for _, group in groups for run in group]
    said = [f"{len(shown)} of {len(every)} shown."] if asked else []
    said += [f"{refused} cannot be shown; the reason stands on the card."] if refused else []
    return page(
        request,
        "gallery.html",
        cards=shown,
        count=len(every),
        said_of_slides=" ".join(said),
        asked=asked,
        runs=groups,
        second=in_order[1] if in_order[1:] else "",  # compared with the first unless chosen otherwise
    )


ROUTES = [Route("/", gallery)]
