"""The files of weak segmentation on real slides: what stage 0 writes, others read as the same pixels."""

from pathlib import Path

import numpy as np
import openslide
from PIL import Image
from tests.verbs.weak_stages.test_coordinates import stage

from lamella.data.bag_coordinates import TileSize, read_coordinates
from lamella.data.bag_slides import SlideNames, listed_slides, opened
from lamella.data.bag_tiles import read_tiles
from lamella.formats.named_tiles import read_named_tiles
from lamella.verbs.weak_stages.coordinates import run_coordinates


def test_prototype_coordinates_are_read_by_openslide_as_the_same_tiles(real_data: Path, tmp_path: Path) -> None:
    """x, y, tile_level and tile_size_resized as slide2vec reads them; at 1 um per pixel one slide has a level."""
    slides = {name: real_data / "slides" / name for name in ("CMU-1-Small-Region.svs", "TCGA-AA-3562-region.tif")}
    labels = tmp_path / "labels.csv"
    labels.write_text("image_name,label\nCMU-1-Small-Region,0\nTCGA-AA-3562-region.tif,1\n")
    data = {"slides": tuple(slides.values()), "labels_are": "slide", "labels_csv": labels, "mpp": 1.0, "tile_px": 224}
    asked = stage(tmp_path, {**data, "label_format": "class_index"})
    run_coordinates(asked)
    listed, size = listed_slides(data["slides"]), TileSize(1.0, 224, None)
    read = [opened(slide, None, everywhere=False) for slide in listed]
    for name, level in (("benign", 0), ("tumor", 1)):
        file = tmp_path / "out" / "prototype_coordinates" / f"{name}.npy"
        assert read_coordinates(file, read, SlideNames(listed), ("benign", "tumor"), size).problems == []
        tiles = read_named_tiles(file)
        assert len(tiles) == 4
        assert tiles.tile_level is not None
        assert set(tiles.tile_level.tolist()) == {level}
        bag = asked.study.by_id[Path(tiles.wsi_name[0]).stem]
        places = {tuple(corner): row for row, corner in enumerate(bag.corners_px0.tolist())}
        ours = read_tiles(asked.study, bag, [places[tuple(corner)] for corner in tiles.corners_px0.tolist()])
        assert tiles.read_px is not None
        with openslide.OpenSlide(slides[str(tiles.wsi_name[0])]) as slide:
            for row, (x, y) in enumerate(tiles.corners_px0.tolist()):
                side = int(tiles.read_px[row])
                region = slide.read_region((x, y), level, (side, side)).convert("RGB")
                way = Image.Resampling.BOX if side > 224 else Image.Resampling.BILINEAR
                theirs = np.asarray(region.resize((224, 224), way), float)
                # Sides of whole pixels put the far edge a third of a pixel off: the best fit is no shift at all.
                away = {
                    (dy, dx): np.abs(np.roll(ours[row], (dy, dx), (0, 1)) - theirs)[2:-2, 2:-2].mean()
                    for dy in (-1, 0, 1)
                    for dx in (-1, 0, 1)
                }
                assert min(away, key=lambda shift: away[shift]) == (0, 0)
                assert away[0, 0] < 0.6 * min(value for shift, value in away.items() if shift != (0, 0))
