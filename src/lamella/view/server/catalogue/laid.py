"""What a folder holds that can be laid over slides, and which slides it names."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py

from lamella.formats.expression_spatialdata import is_spatialdata
from lamella.formats.tiled_labels import is_tiled_labels
from lamella.formats.visium_hd import is_visium_hd
from lamella.formats.visium_spots import is_visium_spots
from lamella.slides.anchors.catalogue import CATALOGUE_FILE
from lamella.view.server.catalogue.items import SourceKind
from lamella.view.server.catalogue.walk import Place

PREDICTION, WEAK_PREDICTION, ANSWERS = "prediction.json", "metadata.json", "answers.json"
RASTERS = ("labels.zarr", "probabilities.zarr", "values.zarr")
_SPOTS = "_spots.csv"


@dataclass(frozen=True)
class Laid:
    """Something over one slide, as its files name that slide.

    Attributes:
        kind: As `LayerSource.kind`.
        path: As `LayerSource.path`.
        title: The folder it came from, for people.
        names: What the slide may be called, the likeliest first.
        slide_path: The slide's file, where one is named.
    """

    kind: SourceKind
    path: Path
    title: str
    names: Sequence[str]
    slide_path: Path | None = None


def laid_in(place: Place, said: list[str]) -> Iterator[Laid]:
    """What lies directly in a folder. What cannot be read is said, and the rest goes on."""
    folders_of_files = (PREDICTION, WEAK_PREDICTION, ANSWERS, CATALOGUE_FILE)
    if place.leads_out and any(place.has(name) for name in folders_of_files):
        said.append(f"{place.folder}: a symbolic link in it leads out of the given paths, so it is not shown.")
        return
    if place.has(CATALOGUE_FILE, "shards"):
        yield from _anchors(place, said)
    if place.has(PREDICTION):
        yield from _prediction(place, said)
    elif place.has(WEAK_PREDICTION) and place.has("tiles.parquet"):
        facts = _facts(place.folder / WEAK_PREDICTION, said)
        if facts is not None:
            yield Laid("weak", place.folder, _of(place), [place.folder.name, *_stems(facts.get("wsi_name"))])
    elif place.has(ANSWERS, "objects.geojson"):
        yield from _segmented(place, said)
    else:
        yield from _outlines(place)
    for path in place.files:
        if path.suffix in (".h5", ".hdf5"):
            yield from _features(path, place)
    yield from _spots(place)


def _of(place: Place) -> str:
    """The output folder that a slide's own folder lies in."""
    return str(Path(place.title).parent) if "/" in place.title else place.folder.parent.name


def _stems(name: Any) -> list[str]:
    return [Path(name).stem, name] if isinstance(name, str) and name else []


def _facts(path: Path, said: list[str]) -> dict[str, Any] | None:
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        said.append(f"{path}: it cannot be read ({error}).")
        return None
    if not isinstance(facts, dict):
        said.append(f"{path}: it was not written by Lamella.")
        return None
    return facts


def _anchors(place: Place, said: list[str]) -> Iterator[Laid]:
    facts = _facts(place.folder / CATALOGUE_FILE, said)
    for shard in (facts or {}).get("shards", ()):
        if isinstance(shard, dict) and shard.get("anchors"):
            yield Laid("anchors", place.folder, place.title, [str(shard.get("slide_id"))])


def _prediction(place: Place, said: list[str]) -> Iterator[Laid]:
    facts = _facts(place.folder / PREDICTION, said)
    if facts is None:
        return
    named = [str(facts["slide_id"])] if facts.get("slide_id") else []
    names = [*named, place.folder.name, *_stems(facts.get("slide"))]
    if place.has("genes.zarr"):
        yield Laid("expression", place.folder, _of(place), names)
    if any(place.has(name) for name in (*RASTERS, "objects.geojson.gz")):
        yield Laid("prediction", place.folder, _of(place), names)


def _segmented(place: Place, said: list[str]) -> Iterator[Laid]:
    answers, run = _facts(place.folder / ANSWERS, said), _facts(place.folder / "run.json", said)
    named = (run or {}).get("inputs", {}).get("slide")
    names = _stems((answers or {}).get("slide"))
    slide_path = Path(named) if isinstance(named, str) else None
    yield Laid("objects", place.folder / "objects.geojson", place.title, names, slide_path)


def _outlines(place: Place) -> Iterator[Laid]:
    """GeoJSON files that are called like a slide."""
    for path in place.files:
        for ending in (".geojson", ".geojson.gz"):
            if path.name.endswith(ending):
                yield Laid("objects", path, place.title, [path.name.removesuffix(ending)])


def _features(path: Path, place: Place) -> Iterator[Laid]:
    """Features of tiles with their coordinates, as TRIDENT and CLAM write them."""
    try:
        with h5py.File(path) as file:
            if "features" not in file or "coords" not in file:
                return
            named = file["coords"].attrs.get("name")
    except OSError:  # truncated, or no HDF5: its layer says what is wrong with it
        named = None
    yield Laid("features", path, place.title, [path.stem, *_stems(named)])


def _spots(place: Place) -> Iterator[Laid]:
    """Measured expression, in whatever layout `formats.expression_source` reads."""
    predicted = place.has(PREDICTION)  # its expression.h5ad holds the same numbers as its raster
    for path in place.files:
        if path.suffix == ".h5ad" and not predicted:
            yield Laid("spots", path, place.title, [path.stem, place.folder.name])
        if path.name.endswith(_SPOTS):
            yield Laid("spots", path, place.title, [path.name.removesuffix(_SPOTS)])
    for path in place.folders:
        if path.suffix == ".zarr" and not predicted and is_spatialdata(path):
            yield Laid("spots", path, place.title, [path.stem])
    if is_visium_hd(place.folder.parent):
        return  # a part of what was found one folder up
    if place.whole and (is_visium_hd(place.folder) or is_visium_spots(place.folder) or is_tiled_labels(place.folder)):
        # Space Ranger's folder is called `outs` in one that is called like the sample.
        yield Laid("spots", place.folder, place.title, [place.folder.name, place.folder.parent.name])
