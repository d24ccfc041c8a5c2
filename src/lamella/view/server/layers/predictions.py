"""The layers of the folders that `predict`, `weak predict` and `expression predict` write for a slide."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lamella.errors import LamellaError, first_line
from lamella.geometry import Frame
from lamella.view.server.layers.contract import LayerInfo, Legend
from lamella.view.server.layers.label_maps import LabelLayer
from lamella.view.server.layers.layer import Making, same_slide
from lamella.view.server.layers.objects import ObjectLayer
from lamella.view.server.layers.rasters import tiff_labels, zarr_raster
from lamella.view.server.layers.tile_scores import TileScores
from lamella.view.server.layers.value_maps import ProbabilityLayer, RasterValues

_OBJECTS, _UNCERTAIN = "objects.geojson.gz", "uncertain_tiles.geojson"
_AGAIN = "Run the same prediction again."


def prediction_layers(folder: Path, group: str, slide: Frame) -> Iterator[Making]:
    """Labels, probabilities or values of a dense prediction. Each is opened when it is called.

    Args:
        folder: Of one slide.
        group: The heading.
        slide: Level 0.

    Raises:
        LamellaError: The folder is of another slide, or does not say of which.
    """
    facts = _facts(folder / "prediction.json")
    made_for, background = _slide_of(folder / "prediction.json", facts, slide), facts.get("background")
    note = _note(facts, facts.get("mpp"))
    colours = {name: tuple(rgb) for name, rgb in facts.get("colours", {}).items()}
    if (folder / "labels.zarr").is_dir():
        raster = folder / "labels.zarr"
        yield lambda: LabelLayer(
            LayerInfo("labels", "classes", group, Legend(), note=note),
            zarr_raster(raster, made_for),
            background,
            colours,
        )
    if (folder / "probabilities.zarr").is_dir():
        yield lambda: ProbabilityLayer(
            LayerInfo("probabilities", "probabilities", group, Legend(), note=note),
            zarr_raster(folder / "probabilities.zarr", made_for),
            background,
        )
    if (folder / "values.zarr").is_dir():
        yield lambda: RasterValues(
            LayerInfo("values", "values", group, Legend(bare="where nobody looked"), note=note),
            zarr_raster(folder / "values.zarr", made_for),
        )
    if (folder / _OBJECTS).is_file():
        shown = {name: colour for name, colour in colours.items() if name != background}
        yield lambda: ObjectLayer(folder / _OBJECTS, group, slide, colours=shown)


def expression_layers(folder: Path, group: str, slide: Frame) -> Iterator[Making]:
    """The predicted genes of a slide; arguments and errors as of `prediction_layers`."""
    facts = _facts(folder / "prediction.json")
    made_for = _slide_of(folder / "prediction.json", facts, slide)
    unit = re.sub(r"\bum\b", "µm", str(facts.get("units", "")))  # files keep to ASCII, pages need not
    note = _note(facts, None)
    legend = Legend(unit=unit, bare="where nobody looked")
    yield lambda: RasterValues(
        LayerInfo("genes", "predicted genes", group, legend, note=note),
        zarr_raster(folder / "genes.zarr", made_for),
    )


def weak_layers(folder: Path, group: str, slide: Frame) -> Iterator[Making]:
    """The class map and the confidences of a weakly taught model; arguments and errors as of `prediction_layers`."""
    path = folder / "metadata.json"
    facts = _facts(path)
    made_for, background, mpp = _slide_of(path, facts, slide), facts.get("background"), facts.get("mask_mpp")
    note = _note(facts, mpp)
    if not isinstance(mpp, int | float) or not isinstance(facts.get("mask_values"), dict):
        raise LamellaError(path, "it does not say how its mask lies over the slide", _AGAIN)
    names = {int(value): str(name) for value, name in facts["mask_values"].items() if int(value) != 255}
    classes = [names.get(value, f"value {value}") for value in range(max(names, default=-1) + 1)]
    yield lambda: LabelLayer(
        LayerInfo("labels", "classes", group, Legend(), note=note),
        tiff_labels(folder / facts.get("segmentation_mask", "segmentation_mask.ome.tif"), made_for, mpp, classes),
        background,
    )
    confidences = folder / "confidence_maps.zarr"
    if confidences.is_dir():
        yield lambda: ProbabilityLayer(
            LayerInfo("confidences", "confidences", group, Legend(), note=note),
            zarr_raster(confidences, made_for),
            background,
        )
    if (folder / _OBJECTS).is_file():
        yield lambda: ObjectLayer(folder / _OBJECTS, group, slide)
    if (folder / "tiles.parquet").is_file():
        yield lambda: TileScores(folder / "tiles.parquet", group, made_for)
    if (folder / _UNCERTAIN).is_file():
        yield lambda: ObjectLayer(folder / _UNCERTAIN, group, slide, title="uncertain tiles")


def _facts(path: Path) -> Mapping[str, Any]:
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LamellaError(path, f"it cannot be read ({first_line(error)})", _AGAIN) from error
    if not isinstance(facts, dict):
        raise LamellaError(path, "it holds no facts of a prediction", _AGAIN)
    return facts


def _slide_of(path: Path, facts: Mapping[str, Any], slide: Frame) -> Frame:
    """The slide as it was predicted."""
    try:
        (width, height), (mpp_x, mpp_y) = facts["slide_px0"], facts["slide_mpp"]
        made_for = Frame(int(width), int(height), float(mpp_x), float(mpp_y))
    except (KeyError, TypeError, ValueError) as error:
        raise LamellaError(path, "it does not say of which slide it is", _AGAIN) from error
    return same_slide(path, made_for, slide)


def _note(facts: Mapping[str, Any], mpp: Any) -> str:
    model = facts.get("model", "")
    model = f"{len(model)} models" if isinstance(model, list) else str(model)
    size = f"{facts['bin_um']:g} µm bins" if "bin_um" in facts else f"{mpp:g} µm per pixel" if mpp else ""
    return ", ".join(part for part in (model, size) if part)
