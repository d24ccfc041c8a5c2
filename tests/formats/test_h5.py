from __future__ import annotations

import math
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamella.errors import LamellaError, SlideError
from lamella.formats.h5 import (
    TridentAttributes,
    read_attributes,
    read_features,
    read_trident,
    trident_attributes,
    write_coords,
    write_features,
)

TRIDENT = trident_attributes(
    slide_id="slide",
    folder="features",
    tile_px=224,
    mpp=0.5,
    overlap_px=0,
    level0_mpp=0.2528,
    level0_size_px=(40_000, 30_000),
)
COORDS = np.array([[0, 0], [443, 0], [0, 443]])
FEATURES = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)


def write(path: Path, batches: list[np.ndarray] | None = None, coords: np.ndarray = COORDS, **options: object) -> Path:
    batches = [FEATURES[:2], FEATURES[2:]] if batches is None else batches
    write_features(path, coords, iter(batches), dim=5, trident=TRIDENT, own={"mpp": 0.5, "encoder": "e"}, **options)
    return path


def test_what_is_written_is_read(tmp_path: Path) -> None:
    read = read_features(write(tmp_path / "slide.h5"))
    assert np.array_equal(read.features, FEATURES)
    assert np.array_equal(read.coords_px0, COORDS)
    assert (read.attributes["mpp"], read.attributes["encoder"]) == (0.5, "e")
    assert read.attributes == read_attributes(tmp_path / "slide.h5")


def test_the_layout_is_that_of_trident(tmp_path: Path) -> None:
    with h5py.File(write(tmp_path / "slide.h5"), "r") as file:
        assert set(file) == {"coords", "features"}
        assert (file["coords"].shape, file["coords"].dtype) == ((3, 2), np.int64)
        assert (file["features"].shape, file["features"].dtype) == ((3, 5), np.float32)
        assert file["features"].chunks is None  # contiguous
        attributes = dict(file["coords"].attrs)
        assert dict(file["features"].attrs) == {"name": "slide", "savetodir": "features"}
    expected = {"patch_size", "patch_size_level0", "level0_magnification", "target_magnification", "overlap", "name"}
    assert expected | {"savetodir", "level0_width", "level0_height"} <= set(attributes)
    # How TRIDENT computes a tile's extent at level 0, in visualize_coords and create_patcher:
    extent = attributes["patch_size"] * attributes["level0_magnification"] / attributes["target_magnification"]
    assert extent == pytest.approx(224 * 0.5 / 0.2528)
    assert attributes["patch_size_level0"] == round(224 * 0.5 / 0.2528) == 443
    assert attributes["level0_magnification"] == pytest.approx(10 / 0.2528)
    assert (attributes["level0_width"], attributes["level0_height"]) == (40_000, 30_000)


def test_files_of_trident_are_read(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "t.h5", "w") as file:  # as save_h5 of trident/IO.py writes them
        file.create_dataset("features", data=FEATURES, maxshape=(None, 5), chunks=(1, 5))
        coords = file.create_dataset("coords", data=COORDS, maxshape=(None, 2), chunks=(1, 2))
        coords.attrs.update({"patch_size": 256, "target_magnification": 20, "name": "t"})
    read = read_features(tmp_path / "t.h5")
    assert np.array_equal(read.features, FEATURES)
    assert read.attributes == {"patch_size": 256, "target_magnification": 20, "name": "t"}


def test_half_precision_is_kept_and_overflow_is_refused(tmp_path: Path) -> None:
    read = read_features(write(tmp_path / "slide.h5", half=True))
    assert read.features.dtype == np.float16
    assert np.abs(read.features - FEATURES).max() < 2e-3
    with pytest.raises(SlideError, match=r"does not fit 16 bits.*half=false"):
        write(tmp_path / "big.h5", [1e6 + FEATURES], half=True)
    assert not (tmp_path / "big.h5").exists()


def test_fractional_corners_stay_fractional(tmp_path: Path) -> None:
    read = read_features(write(tmp_path / "slide.h5", coords=COORDS + 0.25))
    assert np.array_equal(read.coords_px0, COORDS + 0.25)


def test_a_slide_without_tiles_has_an_empty_file(tmp_path: Path) -> None:
    read = read_features(write(tmp_path / "slide.h5", [], coords=np.zeros((0, 2))))
    assert (read.features.shape, read.coords_px0.shape) == ((0, 5), (0, 2))


@pytest.mark.parametrize(
    "batches", [[FEATURES[:2]], [FEATURES, FEATURES[:1]], [FEATURES[:, :4]], [FEATURES[0]]], ids=str
)
def test_features_that_do_not_match_the_tiles_are_refused_and_nothing_is_left(
    tmp_path: Path, batches: list[np.ndarray]
) -> None:
    with pytest.raises(ValueError, match="features"):
        write(tmp_path / "slide.h5", batches)
    assert list(tmp_path.iterdir()) == []


def test_features_that_are_no_numbers_are_refused_and_the_old_file_stays(tmp_path: Path) -> None:
    path = write(tmp_path / "slide.h5")
    before = path.read_bytes()
    with pytest.raises(SlideError, match="not a number"):
        write(path, [np.full((3, 5), np.nan, np.float32)])
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_reader_that_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    def batches():
        yield FEATURES[:2]
        raise SlideError("slide", "tile 3 is corrupt", "Mend it.")

    with pytest.raises(SlideError, match="tile 3"):
        write(tmp_path / "slide.h5", batches())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["missing", "no HDF5", "other datasets", "unequal"])
def test_what_is_no_feature_file_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "slide.h5"
    if kind == "no HDF5":
        path.write_text("nothing")
    elif kind in ("other datasets", "unequal"):
        with h5py.File(path, "w") as file:
            file["features"] = FEATURES
            if kind == "unequal":
                file["coords"] = COORDS[:2]
    with pytest.raises(LamellaError, match=r"slide\.h5"):
        read_features(path)


def test_attributes_are_those_of_the_slide() -> None:
    assert TridentAttributes(224, 443, 10 / 0.2528, 20.0, 0, "slide", "features", 40_000, 30_000) == TRIDENT


def test_tiles_of_our_own_files_are_read_with_their_micrometres(tmp_path: Path) -> None:
    tiles = read_trident(write(tmp_path / "slide.h5"))
    assert np.array_equal(tiles.places_px0, COORDS)
    assert tiles.side == pytest.approx(224 * 0.5 / 0.2528)  # exact, where patch_size_level0 is rounded to 443
    assert (tiles.pixels, tiles.name, tiles.level0_size_px) == (224, "slide", (40_000, 30_000))
    assert tiles.mpp0 == pytest.approx(0.2528)
    assert tiles.mpp == pytest.approx(0.5)
    assert tiles.own == {"mpp": 0.5, "encoder": "e"}
    assert tiles.features is not None
    assert np.array_equal(tiles.features.whole("slide"), FEATURES)


def test_a_magnification_alone_is_no_micrometre(tmp_path: Path) -> None:
    write_coords(tmp_path / "s_patches.h5", COORDS, trident=TRIDENT, own={})
    tiles = read_trident(tmp_path / "s_patches.h5")
    assert (tiles.level0_mpp, tiles.features) == (None, None)
    with pytest.raises(LamellaError, match=r"micrometres per pixel.*--index"):
        _ = tiles.mpp


@settings(max_examples=60, deadline=None)
@given(
    level0_mpp=st.floats(0.1, 2),
    mpp=st.floats(0.1, 8),
    tile_px=st.integers(1, 2048),
    corners=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)), max_size=5),
)
def test_coordinates_come_back_and_trident_computes_the_same_extent(
    tmp_path_factory: pytest.TempPathFactory,
    level0_mpp: float,
    mpp: float,
    tile_px: int,
    corners: list[tuple[int, int]],
) -> None:
    path = tmp_path_factory.mktemp("t") / "s_patches.h5"
    attributes = trident_attributes(
        slide_id="s",
        folder="f",
        tile_px=tile_px,
        mpp=mpp,
        overlap_px=0,
        level0_mpp=level0_mpp,
        level0_size_px=(9, 8),
    )
    write_coords(path, np.array(corners).reshape(-1, 2), trident=attributes, own={"mpp": mpp})
    tiles = read_trident(path)
    assert np.array_equal(tiles.places_px0, np.array(corners).reshape(-1, 2))
    assert tiles.side == pytest.approx(tile_px * mpp / level0_mpp)
    assert tiles.mpp0 == pytest.approx(level0_mpp)
    # read_coords of trident/IO.py, then WSIPatcher.__init__ (116929f):
    with h5py.File(path, "r") as file:
        attrs, coords = dict(file["coords"].attrs), file["coords"][:]
    downsample = (10 / attrs["target_magnification"]) / (10 / attrs["level0_magnification"])
    assert round(attrs["patch_size"] * downsample) in (math.floor(tiles.side + 0.5), round(tiles.side))
    assert not len(coords) or round(coords[0][0]) == coords[0][0]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"patch_size": 0}, "patch_size is 0"),
        ({"level0_magnification": "None"}, "level0_magnification is 'None', no number"),  # as save_h5 writes None
        ({"target_magnification": None}, "no attribute target_magnification"),
    ],
)
def test_attributes_that_say_nothing_are_refused(tmp_path: Path, change: dict[str, object], says: str) -> None:
    path = write(tmp_path / "slide.h5")
    with h5py.File(path, "r+") as file:
        for key, value in change.items():
            if value is None:
                del file["coords"].attrs[key]
            else:
                file["coords"].attrs[key] = value
    with pytest.raises(LamellaError, match=says):
        read_trident(path)


def test_features_that_belong_to_other_tiles_are_refused(tmp_path: Path) -> None:
    with h5py.File(write(tmp_path / "slide.h5"), "r+") as file:
        del file["features"]
        file["features"] = FEATURES[:2]
    with pytest.raises(LamellaError, match=r"features \(2, 5\) do not belong to its 3 tiles"):
        read_trident(tmp_path / "slide.h5")
