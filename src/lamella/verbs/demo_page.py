"""The pictures and the page at the end of the demo."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lamella.data.labels import MASK_COLUMN
from lamella.formats.h5 import read_features
from lamella.metrics.questions import DROP, INDEX, SHORTCUT, TISSUE
from lamella.slides.index import SlideIndex
from lamella.slides.masks import read_mask
from lamella.view.curves import draw_training
from lamella.view.maps import TileFeatures, draw_feature_map, draw_scatter, pca_colours
from lamella.view.markdown_page import write_report_page
from lamella.view.page import Picture, Section, conclusions, result_table, write_page

_MAPS = 4  # generated slides shown as maps: two of each scanner
_SHOWN_MEASURES = {
    TISSUE: ("balanced accuracy",),
    SHORTCUT: ("balanced accuracy",),
    INDEX: ("robustness index",),
    DROP: ("balanced accuracy, class and site unrelated", "accuracy lost as class and site go together (APD)"),
}


@dataclass(frozen=True)
class Road:
    """Where the steps of the demo left their results."""

    page: Path
    pictures: Path
    index: Path
    previews: Path
    anchors: Path
    run: Path
    features: Path
    results: Path
    classes: Mapping[str, int]
    own: Path | None
    commands: tuple[str, ...]
    seed: int


def show(road: Road) -> bool:
    """Draw the pictures that are missing and write the page; whether the page changed."""
    training = road.pictures / "training.png"
    if not training.exists():
        draw_training(road.run, training)
    sections = [
        _seen_section(road),
        _training_section(training),
        _result_section(road),
        _feature_section(road),
        *_own_sections(road),
        Section("Repeat it on your slides", ("The same steps, one by one:",), code="\n".join(road.commands)),
    ]
    lead = (
        "Generated tissue of four classes that differ in form, not in colour, scanned by two scanners that differ in "
        "colour, not in form. An encoder learned from it without labels. Did it learn form?"
    )
    return write_page(road.page, "Lamella demo", lead, sections)


def _seen_section(road: Road) -> Section:
    stills = sorted(road.previews.glob("preview_s*.png"))[:1]
    moving = sorted(road.previews.glob("ijepa_s*.gif"))[1:2]
    overlays = sorted((road.anchors / "qc").glob("*.png"))[:1]
    return Section(
        "What the model sees",
        (
            "A coarse context predicts what a finer look at places inside it would show. The context tokens under the "
            "targets are withheld. Training varies the stain, so that colour alone does not help.",
        ),
        [
            *(Picture(path, "One training sample in five steps") for path in stills),
            *(Picture(path, "Another one, step by step") for path in moving),
            *(Picture(path, "All places on one slide that training draws from") for path in overlays),
        ],
    )


def _training_section(training: Path) -> Section:
    text = (
        "First, the loss that training lowers. Then the same on held views; only below the trivial answers does the "
        "model know something of the place. The loss can rise again while the model learns, since its teacher, which "
        "sets the targets, learns too. The rest watch for collapse: were the rank to fall to one, or the spread to "
        "nothing, all tiles would look alike to it."
    )
    return Section("Training", (text,), [Picture(training, "The loss, and what was measured on held views")])


def _result_section(road: Road) -> Section:
    return Section(
        "Did it learn form?",
        conclusions(road.results),
        table=result_table(road.results, _SHOWN_MEASURES),
        links=[("All rows, with controls", write_report_page(road.results.with_suffix(".md")))],
    )


def _feature_section(road: Road) -> Section:
    tiles = list(_tiles(road.index, road.features))
    drawn = [road.pictures / f"map_{tile.slide.slide_id}.png" for tile in tiles[-_MAPS:]]
    if not all(path.exists() for path in drawn):
        colours = pca_colours([tile.features for tile in tiles])
        for tile, rgb, path in zip(tiles[-_MAPS:], colours[-_MAPS:], drawn, strict=True):
            mask = read_mask(Path(tile.slide.metadata[MASK_COLUMN]))
            draw_feature_map(tile, rgb, path, classes=(mask, road.classes))
    scatter = road.pictures / "scatter.png"
    if not scatter.exists():
        classes = [name for tile in tiles for name in _classes(tile, road.classes)]
        scanners = [tile.slide.metadata["site"] for tile in tiles for _ in tile.features]
        features = np.concatenate([tile.features for tile in tiles])
        known = np.array([name != "" for name in classes])
        groupings = {
            "tissue class": [name for name in classes if name],
            "scanner": [name for name, keep in zip(scanners, known, strict=True) if keep],
        }
        draw_scatter(features[known], groupings, scatter, title="Features of the trained encoder", seed=road.seed)
    return Section(
        "What the features look like",
        (
            "Each dot is a tile; near tiles have like features. Were form all that counted, classes would part and "
            "scanners would mix.",
        ),
        [
            Picture(scatter, "The same dots twice: by tissue class and by scanner"),
            *(Picture(path, "Slide, features as colours, truth") for path in drawn),
        ],
    )


def _own_sections(road: Road) -> Iterator[Section]:
    if road.own is None:
        return
    features = road.own / "features"
    tiles = list(_tiles(road.own / "index", features)) if features.is_dir() else []
    tiles = [tile for tile in tiles if len(tile.features) >= 3]  # three components need three tiles
    drawn = []
    for tile in tiles:  # each slide by itself: its own tissue types shall part, whatever the other slides hold
        path = road.pictures / f"map_yours_{tile.slide.slide_id}.png"
        if not path.exists():
            draw_feature_map(tile, pca_colours([tile.features])[0], path)
        drawn.append(Picture(path, "Slide, and features as colours"))
    stills = sorted((road.own / "previews").glob("preview_s*.png"))
    yield Section(
        "Your slides",
        ("The encoder never saw them, nor any real tissue: expect coarse differences of texture, no more.",),
        [*(Picture(path, "What the model would see of your slides") for path in stills), *drawn],
    )


def _tiles(index_folder: Path, features_folder: Path) -> Iterator[TileFeatures]:
    """The features of each slide that was embedded."""
    for slide in SlideIndex.load(index_folder):
        path = features_folder / f"{slide.slide_id}.h5"
        if path.exists():
            stored = read_features(path)
            side_px0 = float(stored.attributes["patch_size_level0"])
            yield TileFeatures(slide, stored.coords_px0, side_px0, stored.features.astype(np.float32))


def _classes(tile: TileFeatures, classes: Mapping[str, int]) -> list[str]:
    """The class at the middle of each tile if it fills the tile's corners too, else an empty text."""
    mask = read_mask(Path(tile.slide.metadata[MASK_COLUMN]))
    names = {value: name for name, value in classes.items()}
    frame = tile.slide.frame.resized(mask.shape[1], mask.shape[0])
    found = []
    for x, y in tile.coords_px0:
        places = [(x + tile.side_px0 * a, y + tile.side_px0 * b) for a, b in _CORNERS_AND_MIDDLE]
        columns_rows = [tile.slide.frame.point_in(frame, *place) for place in places]
        values = {
            int(mask[min(int(row), mask.shape[0] - 1), min(int(column), mask.shape[1] - 1)])
            for column, row in columns_rows
        }
        found.append(names.get(values.pop(), "") if len(values) == 1 else "")
    return found


_CORNERS_AND_MIDDLE = ((0.5, 0.5), (0.1, 0.1), (0.9, 0.1), (0.1, 0.9), (0.9, 0.9))
