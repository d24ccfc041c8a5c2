"""Slides from wherever they are named, each file once, under names that differ."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from lamella.errors import LamellaError
from lamella.formats.annotation_folder import read_annotated_slides
from lamella.view.server.catalogue.ids import Ids
from lamella.view.server.catalogue.items import SlideItem
from lamella.view.server.catalogue.laid import Laid
from lamella.view.server.catalogue.slides import MEASURED, FoundSlide, opened
from lamella.view.server.catalogue.walk import Place

# A person waits this long for the first page; the slides that are left show their facts once they are opened.
_OPENING_SECONDS = 5.0


class SlideCollection:
    """Slides as they are found; the same file found twice is one slide, and what an index says of it wins."""

    def __init__(self, mpp: float | None) -> None:
        self.mpp = None if mpp is None else (mpp, mpp)
        self._found: dict[Path, FoundSlide] = {}

    def add(self, found: FoundSlide) -> None:
        if self.mpp is not None:
            # A stated spacing may mend what the index refused, and makes its areas wrong: the slide is asked anew.
            facts = {label: text for label, text in found.facts.items() if label not in MEASURED}
            found = replace(found, mpp=self.mpp, refused="", facts=facts)
        key = found.path.resolve()
        known = self._found.get(key)
        if known is None or _weight(found) > _weight(known):
            self._found[key] = found

    def add_named(self, laid: Laid) -> None:
        """The slide that a prediction names by its file, if it is there and not known yet."""
        if laid.slide_path is not None and laid.slide_path.is_file():
            self.add(FoundSlide(laid.slide_path.stem, laid.slide_path))

    def add_annotated(self, place: Place, said: list[str]) -> None:
        """The slides that a folder of annotations is about."""
        try:
            for slide in read_annotated_slides(place.folder).values():
                self.add(FoundSlide(slide.name, slide.path, (slide.frame.mpp_x, slide.frame.mpp_y)))
        except LamellaError as error:
            said.append(str(error))

    def items(self, said: list[str]) -> dict[str, SlideItem]:
        """By id, sorted by name."""
        ids, items, names, closed = Ids(), {}, {}, 0
        until = time.monotonic() + _OPENING_SECONDS
        for found in sorted(self._found.values(), key=lambda one: (one.name, str(one.path))):
            if (found.indexed is None or self.mpp is not None) and not found.refused:
                if time.monotonic() < until:
                    found = opened(found)
                else:
                    closed += 1
            if found.name in names:
                other = names[found.name]
                said.append(f"Two slides are called {found.name}: {other} and {found.path}; layers lie over the first.")
                found = replace(found, name=f"{found.name} ({found.path})")
            names[found.name] = found.path
            slide_id = ids.new(found.name)
            items[slide_id] = SlideItem(
                slide_id, found.name, found.path, found.mpp, found.indexed, found.refused, found.facts
            )
        if closed:
            said.append(
                f"{closed} of the slides were not opened beforehand: their pages say whether they can be shown."
            )
        return items


def _weight(found: FoundSlide) -> int:
    return 2 if found.indexed else 1 if found.refused or found.mpp or found.facts else 0
