from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamella.errors import LamellaError
from lamella.formats.placed_tiles import FeatureRows, PlacedTiles
from lamella.formats.slide2vec import ReadPlan, read_npy, read_npz, write_slide2vec
from lamella.formats.tensors import write_pt

# The fields that hs2p 1 wrote (save_coordinates), in its order.
OLD = np.dtype(
    [
        ("x", int),
        ("y", int),
        ("tile_size_resized", int),
        ("tile_level", int),
        ("resize_factor", float),
        ("tile_size_lv0", int),
        ("target_spacing", float),
    ]
)


def old_array(path: Path, rows: list[tuple[int, int]], side_px0: int = 448) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.array([(x, y, 256, 1, 256 / 224, side_px0, 0.5) for x, y in rows], OLD))
    return path


def tiles_of(folder: Path, corners: np.ndarray, *, side_px0: float = 448.2, **more: object) -> PlacedTiles:
    return PlacedTiles(
        folder, "a", corners, side_px0=side_px0, tile_px=224, level0_mpp=0.25, level0_size_px=(9000, 8000), **more
    )


PLAN = ReadPlan(1, 2.0, (1.0, 2.0), "slides/a.svs")


def test_coordinates_of_version_1_are_read(tmp_path: Path) -> None:
    tiles = read_npy(old_array(tmp_path / "coordinates" / "a.npy", [(448, 0), (0, 896)]))
    assert tiles.places_px0.tolist() == [[448, 0], [0, 896]]
    assert (tiles.name, tiles.side_px0, tiles.tile_px, tiles.place) == ("a", 448, 224, "corner")
    assert tiles.features is None


def test_features_beside_belong_to_them(tmp_path: Path) -> None:
    path = old_array(tmp_path / "coordinates" / "a.npy", [(448, 0), (0, 896)])
    features = np.arange(6, dtype=np.float32).reshape(2, 3)
    write_pt(tmp_path / "features" / "a.pt", features)
    tiles = read_npy(path)
    assert tiles.features is not None
    assert np.array_equal(tiles.features.whole("a"), features)
    write_pt(tmp_path / "features" / "a.pt", features[:1])
    with pytest.raises(LamellaError, match=r"a\.pt: it has 1 rows for the 2 tiles"):
        read_npy(path)


def test_tiles_of_several_sizes_are_refused(tmp_path: Path) -> None:
    array = np.load(old_array(tmp_path / "a.npy", [(0, 0), (1, 1)]))
    array["tile_size_lv0"][1] = 512
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(LamellaError, match="2 sizes"):
        read_npy(tmp_path / "a.npy")


def test_bare_places_do_not_say_what_they_are(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([[1, 2], [3, 4]]))
    tiles = read_npy(tmp_path / "a.npy")
    assert (tiles.place, tiles.side_px0) == (None, None)
    assert tiles.places_px0.tolist() == [[1, 2], [3, 4]]


class Trap:
    """Pickled, it would write a file when it is loaded."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, ...]:
        return Path.write_text, (self.target, "loaded")


def test_pickled_arrays_are_refused_without_being_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([Trap(tmp_path / "sprung")], object), allow_pickle=True)
    with pytest.raises(LamellaError, match=r"a\.npy.*never loaded"):
        read_npy(tmp_path / "a.npy")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "array",
    [np.zeros(3), np.zeros((2, 3)), np.array([["1", "2"]]), np.zeros(2, [("x", int)]), np.full((2, 2), np.nan)],
    ids=["flat", "three columns", "text", "no fields", "nan"],
)
def test_other_arrays_are_refused(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(LamellaError, match=r"a\.npy"):
        read_npy(tmp_path / "a.npy")


@settings(max_examples=40, deadline=None)
@given(
    corners=st.lists(st.tuples(st.integers(0, 10**5), st.integers(0, 10**5)), max_size=6, unique=True),
    side_px0=st.floats(100, 4000),
    features=st.booleans(),
)
def test_what_is_written_is_read_in_slide2vecs_order(
    tmp_path_factory: pytest.TempPathFactory, corners: list[tuple[int, int]], side_px0: float, features: bool
) -> None:
    folder = tmp_path_factory.mktemp("s")
    rows = np.arange(len(corners) * 3, dtype=np.float32).reshape(-1, 3)
    array = np.array(corners, np.int64).reshape(-1, 2)
    tiles = tiles_of(folder, array, side_px0=side_px0, features=FeatureRows.of(rows) if features else None)
    write_slide2vec(folder, tiles, PLAN)
    order = sorted(range(len(corners)), key=lambda row: corners[row])
    both = [read_npz(folder / "tiles" / "a.coordinates.npz")]
    if corners:
        both.append(read_npy(folder / "coordinates" / "a.npy"))
    for back in both:
        assert back.places_px0.tolist() == array[order].tolist()
        assert (back.side_px0, back.tile_px) == (round(side_px0), 224)
        assert (back.features is not None) == features
        if back.features is not None:
            assert np.array_equal(back.features.whole("a"), rows[order])
    assert (both[0].level0_mpp, both[0].level0_size_px) == (0.25, (9000, 8000))


@settings(max_examples=200, deadline=None)
@given(side_px0=st.floats(20, 5000), tile_px=st.integers(16, 1024))
def test_version_1_gets_the_pixels_it_is_to_get(
    tmp_path_factory: pytest.TempPathFactory, side_px0: float, tile_px: int
) -> None:
    folder = tmp_path_factory.mktemp("s")
    tiles = PlacedTiles(folder, "a", np.array([[5, 6]]), side_px0=side_px0, tile_px=tile_px, level0_mpp=0.25)
    write_slide2vec(folder, tiles, ReadPlan(0, 1.0, (1.0,), ""))
    (row,) = np.load(folder / "coordinates" / "a.npy")
    assert int(row["tile_size_resized"] / row["resize_factor"]) == tile_px  # as slide2vec 1.4.0 computes it
    assert np.round(row["tile_size_resized"] / row["resize_factor"]) == tile_px  # as later versions do


def test_the_plan_and_the_micrometres_stand_in_both_layouts(tmp_path: Path) -> None:
    write_slide2vec(tmp_path, tiles_of(tmp_path, np.array([[7, 8]])), PLAN)
    (row,) = np.load(tmp_path / "coordinates" / "a.npy")
    assert (row["tile_level"], row["tile_size_resized"], row["tile_size_lv0"]) == (1, 224, 448)
    assert row["target_spacing"] == pytest.approx(448.2 * 0.25 / 224)
    meta = json.loads((tmp_path / "tiles" / "a.coordinates.meta.json").read_text())
    # The sections that hs2p 6.1.0 demands; it refuses missing and unknown keys in each.
    assert set(meta) == {"provenance", "slide", "tiling", "segmentation", "filtering", "artifact"}
    assert meta["tiling"]["read_spacing_um"] == 0.5
    assert meta["tiling"]["n_tiles"] == 1
    assert meta["artifact"]["coordinate_space"] == "level0_px"


def test_tissue_fractions_come_along(tmp_path: Path) -> None:
    columns = {"tissue_fraction": np.array([0.25, 0.75])}
    write_slide2vec(tmp_path, tiles_of(tmp_path, np.array([[9, 0], [1, 0]]), columns=columns), PLAN)
    assert read_npz(tmp_path / "tiles" / "a.coordinates.npz").columns["tissue_fraction"].tolist() == [0.75, 0.25]


@pytest.mark.parametrize("damage", ["no meta", "cut", "no array", "no key"])
def test_damaged_coordinates_are_refused(tmp_path: Path, damage: str) -> None:
    write_slide2vec(tmp_path, tiles_of(tmp_path, np.array([[9, 0], [1, 0]])), PLAN)
    npz, meta = tmp_path / "tiles" / "a.coordinates.npz", tmp_path / "tiles" / "a.coordinates.meta.json"
    if damage == "no meta":
        meta.unlink()
    elif damage == "cut":
        npz.write_bytes(npz.read_bytes()[:50])
    elif damage == "no array":
        np.savez(npz, x=np.zeros(2))
    else:
        meta.write_text('{"tiling": {}}')
    with pytest.raises(LamellaError, match=r"a\.coordinates"):
        read_npz(npz)


@pytest.mark.parametrize("name", ["tiles/a.coordinates.npz", "tiles/a.coordinates.meta.json", "coordinates/a.npy"])
def test_mutated_files_are_refused_or_read(tmp_path: Path, name: str) -> None:
    write_slide2vec(tmp_path, tiles_of(tmp_path, np.array([[9, 0], [1, 0]])), PLAN)
    whole = (tmp_path / name).read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(200):
        mutated = np.frombuffer(whole, np.uint8).copy()
        places = rng.integers(0, len(whole), rng.integers(1, 6))
        mutated[places] = rng.integers(0, 256, len(places))
        (tmp_path / name).write_bytes(mutated.tobytes())
        try:
            read_npy(tmp_path / name) if name.endswith(".npy") else read_npz(tmp_path / "tiles" / "a.coordinates.npz")
        except LamellaError:
            refused += 1
    assert refused > 50  # any other error fails the test
