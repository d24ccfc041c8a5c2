from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pytest

from lamella.errors import LamellaError
from lamella.formats.geojson import GeoObject, write_geojson
from lamella.formats.tables import write_csv
from lamella.geometry import Frame
from lamella.slides.tile_files import read_tile_file, read_tiles, tile_files

FRAME = Frame(4000, 3000, 0.25, 0.25)


@dataclass(frozen=True)
class Slide:
    slide_id: str
    frame: Frame = FRAME

    @property
    def wsi_path(self) -> Path:
        return Path(f"{self.slide_id}.svs")


A, B = Slide("a"), Slide("b")
CORNERS = np.array([[448, 0], [0, 0], [0, 896]])
SQUARE = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])


def trident(path: Path, name: str = "a", **changes: object) -> Path:
    """As coords_to_h5 of trident/IO.py writes a slide at 0.2528 um, which it takes for 40x."""
    attributes = {
        "patch_size": 256,
        "patch_size_level0": 512,
        "level0_magnification": 40,
        "target_magnification": 20,
        "overlap": 0,
        "name": name,
        "savetodir": "20x_256px_0px_overlap",
        "level0_width": 4000,
        "level0_height": 3000,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        coords = file.create_dataset("coords", data=CORNERS, maxshape=(None, 2), chunks=(1, 2))
        coords.attrs.update({**attributes, **changes})
    return path


def rectangles(path: Path, side_px0: float, corners: np.ndarray = CORNERS) -> Path:
    write_geojson(path, (GeoObject(polygons=((corner + SQUARE * side_px0,),)) for corner in corners))
    return path


def tiles(path: Path, *slides: Slide, mpp: float = 0.5, tile_px: int = 224) -> dict[str, object]:
    return read_tiles(path, slides or (A, B), mpp=mpp, tile_px=tile_px)


def test_trident_means_pixels_of_level_0_and_the_slide_gives_the_micrometres(tmp_path: Path) -> None:
    slide = Slide("a", Frame(4000, 3000, 0.2528, 0.2528))
    table = tiles(trident(tmp_path / "a_patches.h5"), slide)["a"]
    assert table.column("fov_um").to_pylist() == pytest.approx([512 * 0.2528] * 3)  # not 256 * 0.5 = 128
    assert table.column("mpp").to_pylist() == pytest.approx([0.5056] * 3)
    assert table.column("x_px0").to_pylist() == CORNERS[:, 0].tolist()  # in the file's order


def test_magnifications_that_do_not_divide_are_not_cut_off(tmp_path: Path) -> None:
    # TRIDENT's patch_size_level0 is 256 * 40 // 15 = 682; it reads round(682.67) pixels.
    path = trident(tmp_path / "a.h5", target_magnification=15, patch_size_level0=682)
    assert read_tile_file(path).side_px0 == pytest.approx(256 * 40 / 15)


def test_a_folder_holds_a_file_for_each_slide(tmp_path: Path) -> None:
    for name in ("a", "b"):
        trident(tmp_path / "job" / "patches" / f"{name}_patches.h5", name)
    (tmp_path / "job" / "patches" / ".hidden.h5").write_text("")
    found = tiles(tmp_path / "job")
    assert sorted(found) == ["a", "b"]
    assert found["b"].column("slide_id").to_pylist() == ["b"] * 3


def test_features_of_clam_need_a_statement(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["coords"], file["features"] = CORNERS, np.zeros((3, 4))
    with pytest.raises(LamellaError, match=r"a\.h5: .*how large its tiles are.*lamella convert.*mpp="):
        tiles(tmp_path / "a.h5")


def test_bare_places_need_a_statement(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", CORNERS)
    with pytest.raises(LamellaError, match=r"a\.npy: .*corners or centres"):
        tiles(tmp_path / "a.npy")


def test_rectangles_of_qupath_keep_their_size(tmp_path: Path) -> None:
    table = tiles(rectangles(tmp_path / "a.geojson", 448))["a"]
    assert table.column("fov_um").to_pylist() == [112] * 3
    assert table.column("mpp").to_pylist() == [0.5] * 3
    assert np.stack([table.column("x_px0"), table.column("y_px0")], axis=1).tolist() == CORNERS.tolist()


def test_points_of_qupath_are_centres(tmp_path: Path) -> None:
    write_geojson(tmp_path / "a.geojson.gz", [GeoObject(points=np.array([[500.0, 400], [1000, 900]]))])
    table = tiles(tmp_path / "a.geojson.gz")["a"]
    assert table.column("x_px0").to_pylist() == [500 - 224, 1000 - 224]
    assert table.column("fov_um").to_pylist() == [112] * 2


@pytest.mark.parametrize(
    ("objects", "says"),
    [
        ([GeoObject(polygons=((SQUARE * 400,),)), GeoObject(points=SQUARE[:1])], "points and rectangles"),
        ([GeoObject(polygons=((SQUARE * 400,),)), GeoObject(polygons=((SQUARE * 500,),))], "sides from 400 to 500"),
        ([GeoObject(polygons=((SQUARE * (400, 300),),))], "sides from 300 to 400"),
        ([GeoObject(polygons=((SQUARE[:3] * 400,),))], "object 1 is no rectangle"),
        ([GeoObject(lines=(SQUARE[:2] * 400,))], "object 1 is no rectangle"),
        ([GeoObject(polygons=((SQUARE * 400, SQUARE * 100 + 50),))], "object 1 is no rectangle"),
        ([], "no tiles"),
    ],
    ids=["both", "two sizes", "no square", "triangle", "line", "hole", "none"],
)
def test_objects_that_are_no_tiles_are_refused(tmp_path: Path, objects: list[GeoObject], says: str) -> None:
    write_geojson(tmp_path / "a.geojson", objects)
    with pytest.raises(LamellaError, match=says):
        tiles(tmp_path / "a.geojson")


@pytest.mark.parametrize("kind", ["h5", "geojson", "csv"])
def test_coordinates_off_the_slide_are_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    if kind == "h5":
        trident(path, level0_width=2000, level0_height=800)
    elif kind == "geojson":
        rectangles(path, 448)
    else:
        write_csv(path, [{"slide_id": "a", "x_px0": 0, "y_px0": 896}], ["slide_id", "x_px0", "y_px0"])
    with pytest.raises(LamellaError, match=r"lie off slide a of 2000x800.*896"):
        tiles(path, Slide("a", Frame(2000, 800, 0.25, 0.25)))


def test_a_file_of_another_slide_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LamellaError, match=r"named after slide a, .*belongs to b"):
        tiles(trident(tmp_path / "a.h5", "b"))
    with pytest.raises(LamellaError, match="no slide c"):
        tiles(trident(tmp_path / "c.h5", "c"))


def test_one_slide_in_two_files_is_refused(tmp_path: Path) -> None:
    trident(tmp_path / "a.h5")
    trident(tmp_path / "a_patches.h5")
    with pytest.raises(LamellaError, match="another file"):
        tiles(tmp_path)


def test_a_table_is_split_by_slide(tmp_path: Path) -> None:
    rows = [{"slide_id": slide, "x_px0": x, "y_px0": 0} for slide, x in (("b", 9), ("a", 5), ("b", 2))]
    write_csv(tmp_path / "t.csv", rows, list(rows[0]))
    found = tiles(tmp_path / "t.csv")
    assert found["b"].column("x_px0").to_pylist() == [9, 2]
    assert found["a"].column("fov_um").to_pylist() == [112]
    with pytest.raises(LamellaError, match=r"1 slide\(s\) that the index does not have \(b\)"):
        tiles(tmp_path / "t.csv", A)


def test_a_slide_without_tiles_is_left_out(tmp_path: Path) -> None:
    trident(tmp_path / "a.h5")
    with h5py.File(trident(tmp_path / "b.h5", "b"), "r+") as file:
        file["coords"].resize(0, axis=0)
    assert sorted(tiles(tmp_path)) == ["a"]


@pytest.mark.parametrize("kind", ["missing", "empty", "mixed", "unknown", "text", "no coords"])
def test_what_holds_no_tiles_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / ("none" if kind == "missing" else "a.h5" if kind in ("text", "no coords") else "")
    if kind == "mixed":
        trident(tmp_path / "a.h5")
        rectangles(tmp_path / "b.geojson", 448)
    elif kind == "unknown":
        path = tmp_path / "a.txt"
        path.write_text("")
    elif kind == "text":
        path.write_text("nothing")
    elif kind == "no coords":
        with h5py.File(path, "w") as file:
            file["features"] = np.zeros((2, 2))
    with pytest.raises(LamellaError):
        tiles(path)


def test_files_with_features_win_over_those_without(tmp_path: Path) -> None:
    for folder in ("patches", "h5_files"):
        trident(tmp_path / folder / "a.h5")
    assert tile_files(tmp_path) == [tmp_path / "h5_files" / "a.h5"]
    assert tile_files(tmp_path / "patches") == [tmp_path / "patches" / "a.h5"]
