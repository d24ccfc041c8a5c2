"""Structured arrays with the slide's name in every row."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from lamella.errors import LamellaError
from lamella.formats.named_tiles import read_named_tiles, write_named_tiles
from lamella.formats.slide2vec import read_npy

FIELDS = ("x", "y", "tile_level", "tile_size_resized", "tile_size", "tile_size_lv0", "resize_factor", "wsi_name")


def write(path: Path, names: list[str]) -> Path:
    rows = len(names)
    write_named_tiles(
        path,
        names,
        np.arange(2 * rows).reshape(rows, 2) * 10,
        tile_px=224,
        side_px0=np.full(rows, 448.0),
        tile_level=np.ones(rows, int),
        read_px=np.full(rows, 224),
    )
    return path


def test_what_is_written_is_read(tmp_path: Path) -> None:
    tiles = read_named_tiles(write(tmp_path / "tumor.npy", ["a.svs", "längerer Name.tif"]))
    assert tiles.wsi_name.tolist() == ["a.svs", "längerer Name.tif"]
    assert tiles.corners_px0.tolist() == [[0, 10], [20, 30]]
    assert tiles.side_px0.tolist() == [448, 448]
    assert tiles.tile_level is not None
    assert tiles.tile_level.tolist() == [1, 1]
    assert tiles.read_px is not None
    assert tiles.read_px.tolist() == [224, 224]


def test_the_fields_are_the_contract_and_hold_no_objects(tmp_path: Path) -> None:
    """The source writes wsi_name as objects, which need unpickling."""
    array = np.load(write(tmp_path / "tumor.npy", ["a.svs"]), allow_pickle=False)
    assert array.dtype.names == FIELDS
    assert [array.dtype[name].str for name in FIELDS] == ["<i4"] * 6 + ["<f4", "<U5"]
    assert array["resize_factor"].tolist() == [1.0]


def test_no_tiles_can_be_kept(tmp_path: Path) -> None:
    assert len(read_named_tiles(write(tmp_path / "none.npy", []))) == 0


def test_other_readers_of_slide2vec_take_it(tmp_path: Path) -> None:
    tiles = read_npy(write(tmp_path / "a.npy", ["a.svs", "a.svs"]))
    assert (tiles.side_px0, tiles.tile_px, tiles.place) == (448, 224, "corner")


class Trap:
    """Tells when it is unpickled."""

    sprung = False

    def __reduce__(self) -> tuple[object, ...]:
        return _spring, ()


def _spring() -> str:
    Trap.sprung = True
    return "a"


def test_an_array_of_objects_is_refused_without_unpickling(tmp_path: Path) -> None:
    """Issue 6, bad input: object-dtype npy."""
    path = tmp_path / "tumor.npy"
    array = np.empty(1, [("x", "<i4"), ("y", "<i4"), ("tile_size_lv0", "<i4"), ("wsi_name", "O")])
    array["wsi_name"][0] = Trap()
    np.save(path, array, allow_pickle=True)
    with pytest.raises(LamellaError, match=r"Python objects.*fixed-width text"):
        read_named_tiles(path)
    assert not Trap.sprung
    with open(path, "rb") as file:  # and the trap works
        np.lib.format.read_array(file, allow_pickle=True)
    assert Trap.sprung


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"wsi_name": ""}, "without a wsi_name"),
        ({"tile_size_lv0": 0}, "tile_size_lv0 is not always above 0"),
    ],
)
def test_rows_without_meaning_are_refused(tmp_path: Path, change: dict[str, object], cause: str) -> None:
    path = write(tmp_path / "tumor.npy", ["a.svs", "b.svs"])
    array = np.load(path)
    for name, value in change.items():
        array[name][1] = value
    np.save(path, array)
    with pytest.raises(LamellaError, match=cause):
        read_named_tiles(path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    bare, text, pickled = tmp_path / "bare.npy", tmp_path / "text.npy", tmp_path / "pickled.npy"
    np.save(bare, np.zeros((3, 2)))
    text.write_text("x,y\n")
    pickled.write_bytes(pickle.dumps([1]))
    for path, cause in ((bare, "no field x, y"), (text, "."), (pickled, "."), (tmp_path / "no.npy", "does not exist")):
        with pytest.raises(LamellaError, match=cause):
            read_named_tiles(path)


def test_names_in_bytes_are_text(tmp_path: Path) -> None:
    path = tmp_path / "tumor.npy"
    fields = [("x", "i4"), ("y", "i4"), ("tile_size_lv0", "i4"), ("wsi_name", "S8")]
    np.save(path, np.array([(1, 2, 8, b"a.svs")], fields))
    assert read_named_tiles(path).wsi_name.tolist() == ["a.svs"]
