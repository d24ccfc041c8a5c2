from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from lamella.errors import LamellaError, SlideError
from lamella.formats.h5 import TridentAttributes, read_attributes, read_features, trident_attributes, write_features

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
