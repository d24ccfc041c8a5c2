"""Labels at their places, in their colours, whatever the level."""

from __future__ import annotations

import numpy as np
import pytest
from tests.view.server.layers.analytic import (
    HEIGHT,
    MPP,
    SLIDE,
    WIDTH,
    centres_um,
    label_at,
    tiles,
    write_labels,
)

from lamella.errors import LamellaError
from lamella.formats.ome_tiff import write_labels as write_tiff
from lamella.view.class_colours import class_colours
from lamella.view.server.layers.contract import LayerInfo, Legend, Look
from lamella.view.server.layers.label_maps import UNSEEN, LabelLayer
from lamella.view.server.layers.rasters import tiff_labels, zarr_raster

CLASSES = ["background", "tumour", "stroma"]
COLOURS = class_colours(CLASSES)


def layer_of(raster) -> LabelLayer:
    return LabelLayer(LayerInfo("labels", "classes", "run", Legend()), raster, "background")


@pytest.fixture(scope="module", params=["zarr", "tiff"])
def layer(request, tmp_path_factory) -> LabelLayer:
    folder = tmp_path_factory.mktemp("labels")
    if request.param == "zarr":
        return layer_of(zarr_raster(write_labels(folder / "labels.zarr"), SLIDE))
    write_tiff(folder / "mask.ome.tif", label_at(*centres_um(HEIGHT, WIDTH)).astype(np.uint8), _frame(), CLASSES)
    return layer_of(tiff_labels(folder / "mask.ome.tif", SLIDE, MPP, CLASSES))


def _frame():
    from lamella.geometry import Frame

    return Frame(WIDTH, HEIGHT, MPP, MPP)


def expected(labels: np.ndarray) -> np.ndarray:
    pixels = np.zeros((*labels.shape, 4), np.uint8)
    for value in (1, 2):
        pixels[labels == value] = (*COLOURS[CLASSES[value]], 255)
    return pixels


def test_every_pixel_has_the_colour_of_the_label_at_its_centre(layer):
    checked = 0
    for box, width, height, x, y in tiles(downs=(1, 4, 8)):
        pixels = layer.tile(box, width, height, Look())
        inside = (x < WIDTH * MPP) & (y < HEIGHT * MPP)
        assert inside.all()  # the raster is larger than the slide
        assert np.array_equal(pixels, expected(label_at(x, y)))
        checked += 1
    assert checked > 10


def test_far_out_most_pixels_keep_their_label(layer):
    """Coarser levels hold the most frequent label of each block, here of one or two blocks of labels."""
    for box, width, height, x, y in tiles(downs=(64,)):
        pixels = layer.tile(box, width, height, Look())
        assert (pixels == expected(label_at(x, y))).all(axis=-1).mean() > 0.5


def test_a_tile_that_reaches_over_the_raster_is_bare_there(tmp_path):
    from lamella.geometry import Box, Frame

    wide = Frame(4000, 3000, 0.5, 0.4)  # 2000 x 1200 um: the raster ends at 1540 x 820
    layer = layer_of(zarr_raster(write_labels(tmp_path / "labels.zarr"), wide))
    box = Box(3000, 2000, 3000 + 256, 2000 + 256)
    pixels = layer.tile(box, 256, 256, Look("stroma"))
    x = (3000 + np.arange(256) + 0.5) * 0.5
    y = (2000 + np.arange(256)[:, None] + 0.5) * 0.4
    inside = (x < WIDTH * MPP) & (y < HEIGHT * MPP)
    assert np.array_equal(pixels[..., 3] > 0, inside & (label_at(x, y) == 2))
    assert not layer.tile(Box(3500, 2500, 3756, 2756), 256, 256, Look()).any()


def test_a_class_alone_and_what_nobody_looked_at(layer):
    box, width, height, x, y = next(tiles(downs=(4,)))
    labels = label_at(x, y)
    for name, value in {"background": 0, "tumour": 1, UNSEEN: 255}.items():
        shown = layer.tile(box, width, height, Look(name))
        assert np.array_equal(shown[..., 3] == 255, labels == value)
    with pytest.raises(KeyError):
        layer.tile(box, width, height, Look("cartilage"))


def test_the_legend_names_classes_and_what_is_bare(layer):
    legend = layer.legend(Look())
    assert [name for name, _ in legend.classes] == ["tumour", "stroma"]
    assert legend.classes[0][1] == "#{:02x}{:02x}{:02x}".format(*COLOURS["tumour"])
    assert "background" in legend.bare
    assert "nobody looked" in legend.bare
    assert list(layer.info.channels) == ["tumour", "stroma", "background", UNSEEN]


def test_a_damaged_chunk_is_a_fault_and_never_bare(tmp_path):
    folder = write_labels(tmp_path / "labels.zarr")
    layer = layer_of(zarr_raster(folder, SLIDE))
    (folder / "0" / "0" / "0").write_bytes(b"nothing of blosc's")
    box, width, height, *_ = next(tiles(downs=(1,)))
    with pytest.raises(LamellaError, match=r"labels\.zarr: it is damaged"):
        layer.tile(box, width, height, Look())


def test_a_tiff_that_is_cut_short_is_a_fault(tmp_path):
    path = tmp_path / "mask.ome.tif"
    write_tiff(path, label_at(*centres_um(HEIGHT, WIDTH)).astype(np.uint8), _frame(), CLASSES)
    layer = layer_of(tiff_labels(path, SLIDE, MPP, CLASSES))
    path.write_bytes(path.read_bytes()[:600])
    box, width, height, *_ = next(tiles(downs=(1,)))
    with pytest.raises(LamellaError, match="damaged"):
        layer.tile(box, width, height, Look())
    with pytest.raises(LamellaError, match="cannot be read"):
        tiff_labels(path, SLIDE, MPP, CLASSES)
