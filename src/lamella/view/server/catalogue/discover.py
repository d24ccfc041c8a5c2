"""Walks the given paths and recognises what Lamella writes and reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from lamella.errors import LamellaError
from lamella.formats.annotation_folder import is_annotation_folder
from lamella.view.server.catalogue.ids import Ids
from lamella.view.server.catalogue.items import Catalogue, LayerSource, QueueItem, RunItem, ScanItem, SlideItem
from lamella.view.server.catalogue.laid import Laid, laid_in
from lamella.view.server.catalogue.queue import queue_in
from lamella.view.server.catalogue.runs import runs_in
from lamella.view.server.catalogue.scans import scans_in
from lamella.view.server.catalogue.slide_collection import SlideCollection
from lamella.view.server.catalogue.slides import indexed_slides, is_index, slides_in
from lamella.view.server.catalogue.walk import Place, Walk


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
    slides = SlideCollection(mpp)
    places = []
    for place in walk.places():
        if is_annotation_folder(place.folder):
            slides.add_annotated(place, walk.said)
        elif not is_annotation_folder(place.folder.parent):
            places.append(place)
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


def _matched(laid: Sequence[Laid], slides: Mapping[str, SlideItem], said: list[str]) -> list[LayerSource]:
    """Each thing with the slide that it names; things without one are said, a sentence a folder and kind."""
    names = {slide.name for slide in slides.values()}
    by_file = {slide.path.resolve(): slide.name for slide in slides.values()}
    by_stem = {slide.path.stem: slide.name for slide in slides.values()}
    sources, lost = [], {}
    for one in laid:
        by_path = one.slide_path and by_file.get(one.slide_path.resolve())
        known = [name for name in one.names if name in names] + [by_stem[name] for name in one.names if name in by_stem]
        slide = by_path or next(iter(known), None)
        if slide is None:
            lost.setdefault((one.title, one.kind), []).append(one.names[0] if one.names else one.path.name)
        else:
            sources.append(LayerSource(one.kind, one.path, slide, one.title))
    for (title, kind), missing in lost.items():
        if kind == "objects" and not slides:
            continue
        more = f" and {len(missing) - 1} more" if missing[1:] else ""
        said.append(f"{title} ({kind}): not among the given paths is the slide {missing[0]}{more}; give it, too.")
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
