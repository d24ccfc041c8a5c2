from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamella.errors import LamellaError
from lamella.formats.tables import write_csv, write_parquet
from lamella.geometry import Frame
from lamella.slides.grid import (
    TILE_COLUMNS,
    GridSettings,
    one_tile_px,
    read_tile_table,
    tile_boxes_um,
    tile_corners_px0,
    tile_grid,
    tile_table,
)
from lamella.slides.tissue_map import TissueMap


@dataclass(frozen=True)
class Place:
    frame: Frame
    mask: np.ndarray
    slide_id: str = "s"

    def tissue(self) -> TissueMap:
        return TissueMap(self.mask, self.frame.resized(self.mask.shape[1], self.mask.shape[0]))


def all_tissue(width_px: int, height_px: int, mpp: float = 0.5) -> Place:
    return Place(Frame(width_px, height_px, mpp, mpp), np.ones((4, 4), bool))


def corners(place: Place, mpp: float = 0.5, tile_px: int = 100, **options: object) -> list[tuple[float, float]]:
    table = tile_grid(place, mpp, tile_px, GridSettings(min_tissue_fraction=0, **options))
    return [tuple(corner) for corner in tile_corners_px0(table)]


def test_inside_takes_whole_steps_row_by_row() -> None:
    assert corners(all_tissue(250, 220)) == [(0, 0), (100, 0), (0, 100), (100, 100)]


def test_flush_adds_a_last_row_and_column_at_the_edge() -> None:
    found = corners(all_tissue(250, 200), border="flush")
    assert found == [(0, 0), (100, 0), (150, 0), (0, 100), (100, 100), (150, 100)]


def test_over_adds_tiles_that_reach_over_the_edge() -> None:
    assert corners(all_tissue(250, 100), border="over") == [(0, 0), (100, 0), (200, 0)]
    assert corners(all_tissue(60, 60), border="over") == [(0, 0)]
    assert corners(all_tissue(60, 60), border="flush") == corners(all_tissue(60, 60)) == []


@pytest.mark.parametrize("border", ["inside", "flush", "over"])
def test_a_slide_of_whole_tiles_has_the_same_grid_under_every_policy(border: str) -> None:
    assert corners(all_tissue(200, 100), border=border) == [(0, 0), (100, 0)]


def test_overlap_shortens_the_step() -> None:
    assert [x for x, _ in corners(all_tissue(200, 100), overlap=0.75)] == [0, 25, 50, 75, 100]


@settings(max_examples=80, deadline=None)
@given(
    width=st.integers(10, 3000),
    level0_mpp=st.floats(0.1, 1.0),
    mpp=st.floats(0.2, 4.0),
    overlap=st.floats(0, 0.9),
    border=st.sampled_from(["inside", "flush", "over"]),
)
def test_corners_are_whole_pixels_and_the_policy_holds(
    width: int, level0_mpp: float, mpp: float, overlap: float, border: str
) -> None:
    place = Place(Frame(width, width, level0_mpp, level0_mpp), np.ones((2, 2), bool))
    table = tile_grid(place, mpp, 64, GridSettings(min_tissue_fraction=0, overlap=overlap, border=border))
    x = np.unique(tile_corners_px0(table)[:, 0])
    side = 64 * mpp / level0_mpp
    assert np.array_equal(x, np.round(x))
    if len(x):
        assert x[0] == 0
        assert np.diff(x).max(initial=0) <= side * (1 - overlap) + 1 + 1e-6  # no gaps wider than the step
    if border == "over":
        assert x[-1] + side >= width - 1
    else:
        assert (x + side <= width + 1e-3).all()
    if border == "flush" and width >= side:
        assert x[-1] + side > width - 1 - 1e-3


def test_tissue_decides_by_its_exact_share() -> None:
    mask = np.zeros((4, 8), bool)
    mask[:, :3] = True  # tissue ends 3/8 into the slide: the first tile is full, the second half, the others empty
    place = Place(Frame(800, 200, 0.5, 0.5), mask)
    table = tile_grid(place, 0.5, 200, GridSettings(min_tissue_fraction=0.5))
    assert table.column("tissue_fraction").to_pylist() == pytest.approx([1.0, 0.5])
    assert table.column("x_px0").to_pylist() == [0, 200]
    assert tile_grid(place, 0.5, 200, GridSettings(min_tissue_fraction=0.51)).num_rows == 1


def test_a_slide_without_enough_tissue_has_an_empty_table_with_all_columns() -> None:
    table = tile_grid(Place(Frame(400, 400, 0.5, 0.5), np.zeros((2, 2), bool)), 1.0, 64, GridSettings())
    assert table.num_rows == 0
    assert table.column_names == [*TILE_COLUMNS, "tissue_fraction"]


def test_boxes_in_micrometres_know_both_axes() -> None:
    table = tile_table("s", np.array([[100, 50]]), fov_um=64, mpp=1)
    assert tile_boxes_um(table, Frame(1000, 1000, 0.5, 0.4)).tolist() == [[50, 20, 114, 84]]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_users_table_keeps_its_order_and_its_columns(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"tiles{suffix}"
    rows = [
        {"slide_id": "b", "x_px0": 7, "y_px0": 8, "label": "t"},
        {"slide_id": "a", "x_px0": 1.5, "y_px0": 2, "label": ""},
    ]
    if suffix == ".csv":
        write_csv(path, rows, list(rows[0]))
    else:
        write_parquet(path, {name: [row[name] for row in rows] for name in rows[0]})
    table = read_tile_table(path, mpp=0.5, tile_px=224)
    assert table.column_names == [*TILE_COLUMNS, "label"]
    assert table.column("slide_id").to_pylist() == ["b", "a"]
    assert tile_corners_px0(table).tolist() == [[7, 8], [1.5, 2]]
    assert table.column("fov_um").to_pylist() == [112, 112]
    assert one_tile_px(table) == 224


def test_stated_sizes_win(tmp_path: Path) -> None:
    write_csv(tmp_path / "t.csv", [{"slide_id": "a", "x_px0": 0, "y_px0": 0, "mpp": 2, "fov_um": 128}],
              ["slide_id", "x_px0", "y_px0", "mpp", "fov_um"])  # fmt: skip
    assert one_tile_px(read_tile_table(tmp_path / "t.csv", mpp=0.5, tile_px=224)) == 64


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("slide_id,x\na,1\n", "no column x_px0, y_px0"),
        ("slide_id,x_px0,y_px0\n", "no column|no tiles"),
        ("slide_id,x_px0,y_px0\na,1,left\n", "y_px0 holds something that is no number"),
        ("slide_id,x_px0,y_px0\na,1,\n", "y_px0"),
        ("slide_id,x_px0,y_px0,mpp\na,1,2,-0.5\n", "mpp holds values that are not positive"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(tmp_path: Path, text: str, cause: str) -> None:
    path = tmp_path / "tiles.csv"
    path.write_text(text)
    with pytest.raises(LamellaError, match=cause):
        read_tile_table(path, mpp=0.5, tile_px=224)


def test_empty_cells_of_a_parquet_table_are_refused(tmp_path: Path) -> None:
    write_parquet(tmp_path / "t.parquet", {"slide_id": ["a"], "x_px0": pa.array([None], pa.float64()), "y_px0": [1.0]})
    with pytest.raises(LamellaError, match="x_px0 has empty cells"):
        read_tile_table(tmp_path / "t.parquet", mpp=0.5, tile_px=224)
