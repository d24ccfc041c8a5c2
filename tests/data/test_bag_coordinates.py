"""Coordinates that users bring: whose they are, corners or centres, how large, and on which slide they lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from tests.conftest import textured, write_pyramid
from tests.data.made_studies import SIDE, opened, plain_study, write_text

from lamella.data.bag_tiles import read_tiles
from lamella.errors import DatasetError
from lamella.formats.clam import level0_patches, write_clam
from lamella.formats.named_tiles import write_named_tiles
from lamella.formats.placed_tiles import PlacedTiles

PLACES = np.array([[0, 0], [40, 8], [64, 32]])


def with_files(tmp_path: Path, **changes: Any) -> dict[str, Any]:
    """A study whose slides a, b, c, d have bare corners each."""
    folder = tmp_path / "coordinates"
    folder.mkdir()
    for name in "abcd":
        np.save(folder / f"{name}.npy", PLACES)
    return {**plain_study(tmp_path), "everywhere": False, "coordinates": folder, "place": "corner", **changes}


def named(path: Path, names: list[str], places: np.ndarray = PLACES, **changes: Any) -> None:
    rows = len(names)
    fields = {"side_px0": np.full(rows, float(SIDE)), "tile_level": np.zeros(rows, int), "read_px": np.full(rows, SIDE)}
    write_named_tiles(path, names, places, **{"tile_px": SIDE, **fields, **changes})


def problems(settings: dict[str, Any]) -> str:
    with pytest.raises(DatasetError) as caught:
        opened(settings)
    return str(caught.value)


def test_bare_places_are_corners_or_centres_as_said(tmp_path: Path) -> None:
    """Issue 6, bad input: centre/top-left unstated for a bare (N, 2) file; the source mixed both."""
    settings = with_files(tmp_path)
    assert opened(settings).by_id["a"].corners_px0.tolist() == PLACES.tolist()
    centred = opened({**settings, "place": "centre"}).by_id["a"].corners_px0
    assert centred.tolist() == (PLACES - SIDE / 2).tolist()
    found = problems({**settings, "place": None})
    assert found.count("whether its places are corners or centres") == 4
    assert "Set data.place=corner or data.place=centre" in found


@pytest.mark.parametrize("text", ["0 0\n40 8\n64 32\n", "x,y\n0,0\n40,8\n64,32\n", "0\t0\n\n40\t8.0\n64\t32"])
def test_places_in_text(tmp_path: Path, text: str) -> None:
    settings = with_files(tmp_path)
    for name in "abcd":
        (settings["coordinates"] / f"{name}.npy").unlink()
        (settings["coordinates"] / f"{name}.txt").write_text(text)
    assert opened(settings).by_id["a"].corners_px0.tolist() == PLACES.tolist()
    (settings["coordinates"] / "a.txt").write_text("0 0\n1\n")
    assert "a.txt: it does not hold two numbers a line" in problems(settings)
    np.save(settings["coordinates"] / "a.npy", PLACES)
    assert "several kinds of coordinates" in problems(settings)


def test_arrays_that_name_their_slides(tmp_path: Path) -> None:
    """Issue 6, bad input: wsi_name with and without extension. One file may hold the tiles of many slides."""
    settings = with_files(tmp_path, place=None)
    file = tmp_path / "tiles.npy"
    named(file, ["b.png", "a", "d", "c.png", "b"], np.arange(10).reshape(5, 2))
    with pytest.raises(DatasetError, match="slide b stands in another file too"):
        opened({**settings, "coordinates": file})
    named(file, ["b.png", "a", "d", "c.png", "b.png"], np.arange(10).reshape(5, 2))
    study = opened({**settings, "coordinates": file})
    assert {bag.slide_id: bag.corners_px0.tolist() for bag in study.bags} == {
        "a": [[2, 3]],
        "b": [[0, 1], [8, 9]],
        "c": [[6, 7]],
        "d": [[4, 5]],
    }
    named(file, ["b.png", "a", "d", "x.png"], np.arange(8).reshape(4, 2))
    assert "x.png: no slide goes by this name" in problems({**settings, "coordinates": file})


def test_a_folder_may_hold_coordinates_of_other_slides(tmp_path: Path) -> None:
    """Stage 5 looks at some slides and is given the folder of all; a file that mixes both is a mistake."""
    settings = with_files(tmp_path)
    named(settings["coordinates"] / "z.npy", ["z.png"] * 3)
    study = opened(settings)
    assert [bag.slide_id for bag in study.bags] == ["a", "b", "c", "d"]
    assert any("1 files are of no slide that was given (z.npy)" in note for note in study.notes)
    (settings["coordinates"] / "a.npy").unlink()
    named(settings["coordinates"] / "z.npy", ["z.png", "a", "a"])
    assert "z.png: no slide goes by this name" in problems(settings)


def test_coordinates_of_another_slide_are_refused(tmp_path: Path) -> None:
    """Issue 6, bad input: coordinates of another slide. Name of the file and name inside must agree."""
    settings = with_files(tmp_path)
    named(settings["coordinates"] / "a.npy", ["b.png"] * 3)
    assert "named after slide a, but holds tiles of b.png" in problems(settings)
    named(settings["coordinates"] / "a.npy", ["a"] * 3)
    assert len(opened(settings).by_id["a"]) == 3


def test_a_clam_file_that_says_another_slide_is_refused(tmp_path: Path) -> None:
    settings = with_files(tmp_path, coordinates=tmp_path / "patches")
    for name in "abcd":
        tiles = PlacedTiles(Path(f"{name}.h5"), name, PLACES, side_px0=SIDE, tile_px=SIDE, level0_mpp=0.5)
        write_clam(tmp_path / "patches" / f"{name}.h5", tiles, level0_patches(tiles), features=False)
    assert opened(settings).by_id["a"].corners_px0.tolist() == PLACES.tolist()
    with h5py.File(tmp_path / "patches" / "a.h5", "r+") as file:
        file["coords"].attrs["name"] = "b"
    assert "named after slide a, but says inside that it is of b" in problems(settings)


def test_coordinates_out_of_the_slide_are_refused(tmp_path: Path) -> None:
    """Issue 6, bad input: coordinates out of the slide; the source cut blank patches there."""
    settings = with_files(tmp_path)
    np.save(settings["coordinates"] / "a.npy", [[0, 0], [96, 0]])
    np.save(settings["coordinates"] / "b.npy", [[0, -SIDE]])
    found = problems(settings)
    assert "1 of its 2 tiles lie off slide a of 96x64 pixels (tile 1 at 96, 0)" in found
    assert "1 of its 1 tiles lie off slide b" in found
    named(tmp_path / "all.npy", list("abcd"), np.array([[0, 0], [0, 0], [0, 64], [0, 0]]))
    assert "lie off slide c" in problems({**settings, "coordinates": tmp_path / "all.npy"})


def test_tiles_over_the_edge_are_told(tmp_path: Path) -> None:
    settings = with_files(tmp_path)
    np.save(settings["coordinates"] / "a.npy", [[0, 0], [65, 0]])
    study = opened(settings)
    assert any(note.startswith("1 tiles reach over the edge") for note in study.notes)
    assert (read_tiles(study, study.by_id["a"], [1])[0, :, -1] == 255).all()


def test_missing_coordinates_are_told_and_foreign_ones_left(tmp_path: Path) -> None:
    settings = with_files(tmp_path)
    (settings["coordinates"] / "b.npy").rename(settings["coordinates"] / "bb.npy")
    assert "there are no coordinates of b" in problems(settings)
    np.save(settings["coordinates"] / "b.npy", PLACES)
    assert any("1 files are of no slide that was given (bb.npy)" in note for note in opened(settings).notes)
    np.save(settings["coordinates"] / "b.png.npy", PLACES)
    assert "slide b stands in another file too" in problems(settings)


def test_objects_are_refused_without_unpickling(tmp_path: Path) -> None:
    """Issue 6, bad input: object-dtype npy."""
    settings = with_files(tmp_path)
    np.save(settings["coordinates"] / "a.npy", np.array([{"x": 1}], object), allow_pickle=True)
    assert "it holds Python objects" in problems(settings)


def test_tiles_of_another_size_are_refused(tmp_path: Path) -> None:
    settings = with_files(tmp_path)
    named(settings["coordinates"] / "a.npy", ["a"] * 3, side_px0=np.full(3, 48.0), read_px=np.full(3, 48))
    found = problems(settings)
    assert "its tiles are 24 um wide, the study's 16 um (32 px at 0.5 um)" in found
    assert "data.tile_px=48, or of data.mpp=0.75" in found


def test_levels_are_respected(tmp_path: Path) -> None:
    """Spec, mistakes of the source: tile_level and mpp ignored. 32 pixels of level 1 are 64 of level 0."""
    pixels = textured(256, 256)
    manifest = write_text(tmp_path / "m.csv", "slide_id,wsi_path,benign,tumor", "a,a.tif,1,0", "b,b.tif,0,1")
    for name in "ab":
        write_pyramid(tmp_path / f"{name}.tif", pixels, mpp=0.25, levels=2)
    settings = {"slides": manifest, "labels_are": "slide", "tile_px": SIDE, "mpp": 0.5}
    settings["coordinates"] = tmp_path / "tiles.npy"
    level, corners = np.ones(2, int), np.array([[64, 96], [100, 30]])
    named(tmp_path / "tiles.npy", ["a", "b.tif"], corners, side_px0=np.full(2, 64.0), tile_level=level)
    study = opened(settings)
    tile = read_tiles(study, study.by_id["a"], [0])[0]
    shrunk = pixels[96:160, 64:128].reshape(SIDE, 2, SIDE, 2, 3).mean(axis=(1, 3))
    assert np.abs(tile - shrunk).max() <= 1  # the pyramid's own rounding
    # The same numbers at level 0 are tiles of half the side, which the study does not have.
    named(tmp_path / "tiles.npy", ["a", "b.tif"], corners)
    assert "its tiles are 8 um wide, the study's 16 um" in problems(settings)
    named(tmp_path / "tiles.npy", ["a", "b.tif"], corners, side_px0=np.full(2, 64.0))
    assert "32 pixels of level 0 of slide a are 32 level-0 pixels, but tile_size_lv0 is 64" in problems(settings)
    named(tmp_path / "tiles.npy", ["a", "b.tif"], corners, side_px0=np.full(2, 64.0), tile_level=2 * level)
    assert "it reads level 2 of slide a, which has 2 levels" in problems(settings)


def test_tables_bring_labels_of_tiles(tmp_path: Path) -> None:
    """Slides whose tiles are labelled: labels of patches without cutting any."""
    settings = {**plain_study(tmp_path), "labels_are": "patch", "labels_csv": None, "label_format": None}
    settings |= {"everywhere": False, "coordinates": tmp_path / "tiles.csv"}
    rows = [f"{name},{x},0,{x // 32},{1 - x // 32}" for name in "abcd" for x in (0, 32)]
    write_text(tmp_path / "tiles.csv", "slide_id,x_px0,y_px0,benign,tumor", *rows)
    study = opened(settings)
    assert study.by_id["a"].tile_labels is not None
    assert study.by_id["a"].tile_labels.tolist() == [[0, 1], [1, 0]]
    assert study.by_id["a"].labels == (1, 1)
    named_rows = [f"{name},{x},0,{('tumor', 'benign')[x // 32]}" for name in "abcd" for x in (0, 32)]
    write_text(tmp_path / "tiles.csv", "slide_id,x_px0,y_px0,label", *named_rows)
    assert opened(settings).by_id["a"].tile_labels.tolist() == [[0, 1], [1, 0]]
    write_text(tmp_path / "tiles.csv", "slide_id,x_px0,y_px0,label", *named_rows, "a,0,32,tumour")
    assert "'tumour' is no class" in problems(settings)
    write_text(tmp_path / "tiles.csv", "slide_id,x_px0,y_px0,benign", *(row.rsplit(",", 1)[0] for row in rows))
    assert "it has no column for tumor" in problems(settings)
    write_text(tmp_path / "tiles.csv", "slide_id,x_px0,y_px0,benign,tumor", *rows, "z,0,0,1,0")
    assert "z: no slide goes by this name" in problems(settings)
