"""Walks the given paths and recognises what Lamella writes and reads."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from lamella.errors import LamellaError
from lamella.view.server.catalogue.ids import Ids
from lamella.view.server.catalogue.items import Catalogue, LayerSource, QueueItem, RunItem, ScanItem, SlideItem
from lamella.view.server.catalogue.laid import Laid, laid_in
from lamella.view.server.catalogue.queue import queue_in
from lamella.view.server.catalogue.runs import runs_in
from lamella.view.server.catalogue.scans import scans_in
from lamella.view.server.catalogue.slides import FoundSlide, indexed_slides, is_index, opened, slides_in
from lamella.view.server.catalogue.walk import Place, Walk

ANNOTATIONS = "annotations.json"
# A person waits this long for the first page; the slides that are left show their facts once they are opened.
_OPENING_SECONDS = 5.0


def discover(paths: Sequence[Path], mpp: float | None = None) -> Catalogue:
    """Everything below the paths.

    Symbolic links that lead out of the paths are not followed. What an index, a manifest or a prediction names as its
    slide is trusted, wherever it lies: whoever gives such a file asks for these slides.

    Args:
        paths: Slides, manifests, index folders, runs, predictions, features, scans, or folders of these.
        mpp: Stated micrometres per pixel of all slides; wins over files, manifests and indexes.

    Raises:
        LamellaError: A path does not exist, or nothing was found.
    """
    for path in paths:
        if not path.exists():
            raise LamellaError(path, "there is no such file or folder", "Correct the path.")
    walk = Walk(paths)
    places = [place for place in walk.places() if not place.has(ANNOTATIONS)]
    slides = _Slides(mpp)
    laid, runs, scans, ids, scan_ids = [], {}, {}, Ids(), Ids()
    for place in places:
        if is_index(place):
            found = list(indexed_slides(place, walk.said))
            laid += [Laid("index", place.folder, place.title, [one.name]) for one in found if one.indexed]
        elif _is_inside_of_index(place):
            continue
        else:
            found = list(slides_in(place, walk.said, mpp is not None))
            laid += laid_in(place, walk.said)
        for one in found:
            slides.add(one)
            if one.expression:
                laid.append(Laid("spots", one.expression, place.title, [one.name]))
        runs.update({run.id: run for run in runs_in(place, ids, walk.said)})
        scans.update({scan.id: scan for scan in scans_in(place, scan_ids, walk.said)})
    for one in laid:
        slides.add_named(one)
    items = slides.items(walk.said)
    sources = _matched(laid, items, walk.said)
    queue = _queue(places, items, walk.said)
    return _catalogue(paths, items, sources, runs, scans, queue, walk.said)


def _is_inside_of_index(place: Place) -> bool:
    return place.folder.name == "masks" and (place.folder.parent / "slides.parquet").is_file()


def _catalogue(
    paths: Sequence[Path],
    slides: Mapping[str, SlideItem],
    sources: Sequence[LayerSource],
    runs: Mapping[str, RunItem],
    scans: Mapping[str, ScanItem],
    queue: Sequence[QueueItem],
    said: Sequence[str],
) -> Catalogue:
    if not slides and not runs and not scans:
        raise LamellaError(
            ", ".join(map(str, paths)),
            "there is nothing to look at" + "".join(f"; {sentence}" for sentence in said),
            "Give slides, an index, runs, predictions, features or scans.",
        )
    title = ", ".join(path.absolute().name for path in paths)
    return Catalogue(title, slides, sources, runs, scans, queue, tuple(dict.fromkeys(said)))


class _Slides:
    """Slides as they are found; the same file found twice is one slide, and what an index says of it wins."""

    def __init__(self, mpp: float | None) -> None:
        self.mpp = None if mpp is None else (mpp, mpp)
        self._found: dict[Path, FoundSlide] = {}

    def add(self, found: FoundSlide) -> None:
        if self.mpp is not None:
            # A stated spacing may mend what the index refused: its own word is asked again.
            found = replace(found, mpp=self.mpp, refused="")
        key = found.path.resolve()
        known = self._found.get(key)
        if known is None or _weight(found) > _weight(known):
            self._found[key] = found

    def add_named(self, laid: Laid) -> None:
        """The slide that a prediction names by its file, if it is there and not known yet."""
        if laid.slide_path is not None and laid.slide_path.is_file():
            self.add(FoundSlide(laid.slide_path.stem, laid.slide_path))

    def items(self, said: list[str]) -> dict[str, SlideItem]:
        """By id, sorted by name."""
        ids, items, names, closed = Ids(), {}, {}, 0
        until = time.monotonic() + _OPENING_SECONDS
        for found in sorted(self._found.values(), key=lambda one: (one.name, str(one.path))):
            if found.indexed is None and not found.refused:
                if time.monotonic() < until:
                    found = opened(found)
                else:
                    closed += 1
            if found.name in names:
                other = names[found.name]
                said.append(f"Two slides are called {found.name}: {other} and {found.path}; layers lie over the first.")
                found = replace(found, name=f"{found.name} ({found.path.parent.name}/{found.path.name})")
            names[found.name] = found.path
            slide_id = ids.new(found.name)
            items[slide_id] = SlideItem(
                slide_id, found.name, found.path, found.mpp, found.indexed, found.refused, found.facts
            )
        if closed:
            said.append(f"{closed} slides were not opened beforehand: their pages say what is wrong with them.")
        return items


def _weight(found: FoundSlide) -> int:
    return 2 if found.indexed else 1 if found.refused or found.mpp or found.facts else 0


def _matched(laid: Sequence[Laid], slides: Mapping[str, SlideItem], said: list[str]) -> list[LayerSource]:
    """Each thing with the slide that it names; things without one are said, a sentence a folder and kind."""
    names = {slide.name for slide in slides.values()}
    by_file = {slide.path.resolve(): slide.name for slide in slides.values()}
    by_stem = {slide.path.stem: slide.name for slide in slides.values()}
    sources, lost = [], {}
    for one in laid:
        by_path = one.slide_path and by_file.get(one.slide_path.resolve())
        known = [name for name in one.names if name in names] + [
            by_stem[name] for name in one.names if name in by_stem
        ]
        slide = by_path or next(iter(known), None)
        if slide is None:
            lost.setdefault((one.title, one.kind), []).append(one.names[0] if one.names else one.path.name)
        else:
            sources.append(LayerSource(one.kind, one.path, slide, one.title))
    for (title, kind), missing in lost.items():
        if kind == "objects" and not slides:
            continue
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        said.append(f"{title} ({kind}): the slide {missing[0]}{more} is not among the given paths; give it, too.")
    return sources


def _queue(places: Sequence[Place], slides: Mapping[str, SlideItem], said: list[str]) -> list[QueueItem]:
    known = {slide.name: slide for slide in slides.values()}

    def spacing(name: str) -> tuple[float, float] | None:
        slide = known.get(name)
        if slide is None or slide.refused:
            return None
        if slide.mpp is not None:
            return slide.mpp
        with slide.open() as opened_slide:
            return opened_slide.frame.mpp_x, opened_slide.frame.mpp_y

    queue = [item for place in places for item in queue_in(place, spacing, said)]
    return [item for item in queue if item.slide in known]
