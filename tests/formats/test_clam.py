from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamella.errors import LamellaError, SlideError
from lamella.formats.clam import PatchLevel, level0_patches, read_clam, write_clam
from lamella.formats.placed_tiles import FeatureRows, PlacedTiles

COORDS = np.array([[0, 0], [512, 256], [1024, 0]], np.int32)
FEATURES = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)


def as_clam(path: Path, *, features: bool = False, **attributes: object) -> Path:
    """As save_hdf5 of wsi_core/wsi_utils.py writes: resizable, a row a chunk, attributes on coords."""
    with h5py.File(path, "w") as file:
        coords = file.create_dataset("coords", data=COORDS, maxshape=(None, 2), chunks=(1, 2))
        coords.attrs.update(attributes)
        if features:
            file.create_dataset("features", data=FEATURES, maxshape=(None, 4), chunks=(1, 4))
    return path


def test_patches_of_clam_are_read(tmp_path: Path) -> None:
    # As process_contour writes them on a CAMELYON16 slide, whose level 1 is 1.9951 times smaller.
    path = as_clam(
        tmp_path / "a.h5",
        patch_size=256,
        patch_level=1,
        downsample=(1.9951, 1.9951),
        downsampled_level_dim=(49024, 110720),
        level_dim=(49024, 110720),
        name="a",
        save_path="patches",
    )
    tiles = read_clam(path)
    assert tiles.side_px0 == pytest.approx(256 * 1.9951)  # not 256 * int(1.9951)
    assert (tiles.tile_px, tiles.name, tiles.place) == (256, "a", "corner")
    assert tiles.level0_size_px is None  # of a level only
    assert tiles.places_px0.tolist() == COORDS.tolist()
    assert tiles.features is None


def test_a_file_of_level_0_knows_its_slide(tmp_path: Path) -> None:
    tiles = read_clam(
        as_clam(tmp_path / "a.h5", patch_size=256, patch_level=0, downsample=(1.0, 1.0), level_dim=(9, 7))
    )
    assert (tiles.side_px0, tiles.level0_size_px) == (256, (9, 7))


def test_features_of_clam_do_not_say_how_large_a_tile_is(tmp_path: Path) -> None:
    tiles = read_clam(as_clam(tmp_path / "a.h5", features=True))
    assert (tiles.side_px0, tiles.tile_px, tiles.level0_mpp) == (None, None, None)
    assert tiles.features is not None
    assert np.array_equal(tiles.features.whole("a"), FEATURES)
    with pytest.raises(LamellaError, match=r"a\.h5: it does not say how large.*mpp="):
        _ = tiles.side


def test_the_downsample_of_old_versions_counts(tmp_path: Path) -> None:
    tiles = read_clam(as_clam(tmp_path / "a.h5", patch_size=256, patch_level=0, custom_downsample=2))
    assert (tiles.side_px0, tiles.tile_px) == (512, 256)


@pytest.mark.parametrize(
    ("attributes", "says"),
    [
        ({"patch_size": 256, "patch_level": 1}, "no downsample"),
        ({"patch_size": 0, "patch_level": 0}, "patch_size is 0"),
        ({"patch_size": 256}, "no number patch_level"),
        ({"patch_size": "large", "patch_level": 0}, "no number patch_size"),
    ],
)
def test_attributes_that_do_not_add_up_are_refused(tmp_path: Path, attributes: dict[str, object], says: str) -> None:
    with pytest.raises(LamellaError, match=says):
        read_clam(as_clam(tmp_path / "a.h5", **attributes))


@pytest.mark.parametrize("kind", ["missing", "text", "no coords", "three columns", "nan", "unequal"])
def test_what_is_no_file_of_clam_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.h5"
    if kind == "text":
        path.write_text("nothing")
    elif kind != "missing":
        shapes = {"three columns": np.zeros((2, 3)), "nan": np.full((2, 2), np.nan)}
        with h5py.File(path, "w") as file:
            if kind != "no coords":
                file["coords"] = shapes.get(kind, np.zeros((2, 2)))
            file["features"] = np.zeros((3 if kind == "unequal" else 2, 4))
    with pytest.raises(LamellaError, match=r"a\.h5"):
        read_clam(path)


@settings(max_examples=50, deadline=None)
@given(
    corners=st.lists(st.tuples(st.integers(0, 10**5), st.integers(0, 10**5)), max_size=6),
    side_px0=st.floats(16, 4000),
    tile_px=st.integers(16, 1024),
    mpp=st.none() | st.floats(0.1, 2),
    features=st.booleans(),
)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory,
    corners: list[tuple[int, int]],
    side_px0: float,
    tile_px: int,
    mpp: float | None,
    features: bool,
) -> None:
    path = tmp_path_factory.mktemp("c") / "a.h5"
    rows = np.arange(len(corners) * 3, dtype=np.float32).reshape(-1, 3)
    tiles = PlacedTiles(
        path,
        "a",
        np.array(corners, np.int64).reshape(-1, 2),
        side_px0=side_px0,
        tile_px=tile_px,
        level0_mpp=mpp,
        level0_size_px=(99, 88),
        features=FeatureRows.of(rows) if features else None,
        own={"encoder": "e"},
    )
    write_clam(path, tiles, level0_patches(tiles), features=features)
    back = read_clam(path)
    assert np.array_equal(back.places_px0, tiles.places_px0)
    for name in ("name", "side_px0", "tile_px", "level0_mpp", "level0_size_px", "own"):
        assert getattr(back, name) == getattr(tiles, name), name
    assert (back.features is not None) == features
    if back.features is not None:
        assert np.array_equal(back.features.whole("a"), rows)


def test_a_level_is_written_with_its_exact_downsample(tmp_path: Path) -> None:
    tiles = PlacedTiles(tmp_path, "a", COORDS, side_px0=510.7456, tile_px=256)
    write_clam(tmp_path / "a.h5", tiles, PatchLevel(1, 256, (1.9951, 1.9951), (49024, 110720)), features=False)
    with h5py.File(tmp_path / "a.h5", "r") as file:
        attributes = dict(file["coords"].attrs)
        assert file["coords"].dtype == np.int32
    assert (attributes["patch_level"], attributes["patch_size"], attributes["name"]) == (1, 256, "a")
    assert tuple(attributes["downsample"]) == (1.9951, 1.9951)
    assert tuple(attributes["level_dim"]) == tuple(attributes["downsampled_level_dim"]) == (49024, 110720)
    assert read_clam(tmp_path / "a.h5").side_px0 == pytest.approx(510.7456)


def test_features_become_32_bits_and_bad_ones_leave_nothing(tmp_path: Path) -> None:
    tiles = PlacedTiles(tmp_path, "a", COORDS, side_px0=256, features=FeatureRows.of(FEATURES.astype(np.float16)))
    write_clam(tmp_path / "a.h5", tiles, level0_patches(tiles), features=True)
    with h5py.File(tmp_path / "a.h5", "r") as file:
        assert file["features"].dtype == np.float32
    bad = PlacedTiles(tmp_path, "b", COORDS, side_px0=256, features=FeatureRows.of(FEATURES * np.inf))
    with pytest.raises(SlideError, match="not a number"):
        write_clam(tmp_path / "b.h5", bad, level0_patches(bad), features=True)
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]
