from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from tests.tiny_space_ranger import MPP, Run

from lamella.formats.spatial_counts import ExpressionError, SpatialCounts
from lamella.formats.tiled_labels import read_tiled_labels, read_tiles, write_tiled_labels
from lamella.formats.visium_hd import read_visium_hd


def ordered(counts: SpatialCounts) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows and columns, places and values, row by row."""
    order = np.lexsort(counts.array_rc.T[::-1])
    return counts.array_rc[order], counts.places_px0[order], counts.counts.toarray()[order]


@settings(max_examples=5, deadline=None)
@given(turn=st.floats(-20, 20), mirrored=st.booleans(), seed=st.integers(0, 99), side=st.integers(2, 9))
def test_bins_come_back_from_tiles(
    tmp_path_factory: pytest.TempPathFactory, turn: float, mirrored: bool, seed: int, side: int
) -> None:
    folder = tmp_path_factory.mktemp("t")
    run = Run(rows=11, cols=7, turn_deg=turn, mirrored=mirrored, seed=seed)
    counts = read_visium_hd(run.write_hd(folder / "run"))
    write_tiled_labels(folder / "tiles", counts, tile_bins=side)
    read = read_tiled_labels(folder / "tiles")
    for ours, theirs in zip(ordered(read), ordered(counts), strict=True):
        assert np.allclose(ours, theirs, atol=1e-9)
    assert read.genes == counts.genes
    assert read.counts.dtype == np.int32
    assert np.allclose(read.grid.place_px0(5, 6), counts.grid.place_px0(5, 6))


def test_tiles_at_the_border_are_padded_and_flagged(tmp_path: Path) -> None:
    """mistake: border tiles stretched to full size."""
    run = Run(rows=5, cols=8)
    run.flagged[:] = True
    run.kept, run.counts = np.arange(40), sparse.csr_array(np.arange(200).reshape(40, 5).astype(np.int32))
    tiles = write_tiled_labels(tmp_path / "t", read_visium_hd(run.write_hd(tmp_path)), tile_bins=4)
    assert [tile.name for tile in tiles] == ["patch_000_000", "patch_000_001", "patch_001_000", "patch_001_001"]
    labels = np.load(tmp_path / "t" / "patch_001_001.npy")
    measured = np.load(tmp_path / "t" / "measured" / "patch_001_001.npy")
    whole = np.arange(200).reshape(5, 8, 5)
    assert np.array_equal(labels[0], whole[4, 4:])  # rows first, never stretched
    assert not labels[1:].any()
    assert measured.tolist() == [[True] * 4] + [[False] * 4] * 3
    assert not (tmp_path / "t" / "measured" / "patch_000_000.npy").exists()


def write_source(folder: Path, tiles: dict[tuple[int, int], np.ndarray], **facts: Any) -> Path:
    """As the source study keeps it, without anything of ours."""
    folder.mkdir()
    entries = []
    for row, col in tiles:
        np.save(folder / f"patch_{row:03d}_{col:03d}.npy", tiles[row, col])
        entries.append({"patch_id": f"patch_{row:03d}_{col:03d}", "patch_row": row, "patch_col": col})
    (folder / "patches.json").write_text(json.dumps(entries))
    genes = [f"G{number}" for number in range(next(iter(tiles.values())).shape[2])]
    (folder / "metadata.json").write_text(json.dumps({"coordinate_scale": 0.25, "genes": genes, **facts}))
    return folder


def test_the_source_layout_is_read_at_its_own_places(tmp_path: Path) -> None:
    """Tile (row, col) begins at pixel (col, row) * 256 / scale; mistake: rows and columns swapped."""
    rng = np.random.default_rng(0)
    tiles = {(2, 5): rng.poisson(0.05, (128, 128, 3)).astype(np.float32), (0, 1): np.zeros((128, 128, 3), np.float32)}
    read = read_tiled_labels(write_source(tmp_path / "P1_precomputed_labels_v2", tiles))
    assert read.name == "P1"
    assert len(read) == 2 * 128 * 128  # zeros are places too
    first = np.flatnonzero((read.array_rc == [2 * 128, 5 * 128]).all(1))
    assert read.places_px0[first].tolist() == [[5 * 256 / 0.25 + 4, 2 * 256 / 0.25 + 4]]
    at = np.flatnonzero((read.array_rc == [2 * 128 + 7, 5 * 128 + 90]).all(1))
    assert np.array_equal(read.counts[at].toarray()[0], tiles[2, 5][7, 90])
    assert read.places_px0[at].tolist() == [[5 * 1024 + 90.5 * 8, 2 * 1024 + 7.5 * 8]]
    assert read.are_counts
    assert read.mpp == 0.25
    assert not read.all_measured
    assert "2 tiles" in read.notes[0]


def test_short_tiles_of_the_source_keep_their_bins(tmp_path: Path) -> None:
    read = read_tiled_labels(write_source(tmp_path / "a", {(0, 0): np.ones((5, 128, 1), np.int32)}))
    assert len(read) == 5 * 128
    assert read.array_rc.max(0).tolist() == [4, 127]


def test_other_layouts_are_refused(tmp_path: Path) -> None:
    tiles = {(0, 0): np.ones((128, 128, 2), np.float32)}
    cases: dict[str, tuple[dict[str, Any], str]] = {
        "genes": ({"genes": ["A"]}, "128 x 128 x 2 instead of 128 x 128 bins x 1 genes"),
        "no genes": ({"genes": None}, "does not name the genes"),
        "twice": ({"genes": ["A", "A"]}, "a gene stands twice"),
        "scale": ({"coordinate_scale": -1}, "coordinate_scale is -1"),
        "no scale": ({"coordinate_scale": None}, "nothing says how many micrometres"),
        "bad lattice": ({"lattice": {"size_um": 2}}, "lattice cannot be read"),
    }
    for name, (facts, said) in cases.items():
        with pytest.raises(ExpressionError, match=said):
            read_tiled_labels(write_source(tmp_path / name, tiles, **facts))
    folder = write_source(tmp_path / "image", tiles)
    with pytest.raises(ExpressionError, match=r"the image or manifest says 0\.5 um per pixel"):
        read_tiled_labels(folder, mpp=0.5)
    for damage in (b"\x93NUMPY", b"\x93NUMPY\x01\x00\x10\x00{'descr': (((((((\n", b"PK\x03\x04"):
        (folder / "patch_000_000.npy").write_bytes(damage)
        with pytest.raises(ExpressionError, match="cannot be read whole"):
            read_tiled_labels(folder)
    (folder / "patch_000_000.npy").unlink()
    with pytest.raises(ExpressionError, match=r"patch_000_000\.npy: the file does not exist"):
        read_tiled_labels(folder)


@pytest.mark.parametrize(
    ("listed", "said"),
    [
        ("[]", "lists no tile"),
        ('[{"patch_id": "../../x", "patch_row": 0, "patch_col": 0}]', "no list of patch_id"),
        ('[{"patch_id": "a", "patch_row": 0}]', "no list of patch_id"),
        ('{"a": 1}', "no list of patch_id"),
        ('[{"patch_row": 0, "patch_col": 1}, {"patch_row": 0, "patch_col": 1}]', "the same name"),
        (
            '[{"patch_id": "a", "patch_row": 0, "patch_col": 1}, {"patch_id": "b", "patch_row": 0, "patch_col": 1}]',
            "place",
        ),
        ("[", "cannot be read whole"),
    ],
)
def test_lists_of_tiles_that_are_wrong_are_refused(tmp_path: Path, listed: str, said: str) -> None:
    (tmp_path / "patches.json").write_text(listed)
    with pytest.raises(ExpressionError, match=said):
        read_tiles(tmp_path)


def test_numbers_as_names_of_tiles_and_a_list_in_a_mapping(tmp_path: Path) -> None:
    (tmp_path / "patches.json").write_text('{"patches": [{"patch_id": 7, "patch_row": 3, "patch_col": 12}]}')
    assert read_tiles(tmp_path)[0] == ("patch_003_012", 3, 12)


def test_spots_have_no_tiles(tmp_path: Path) -> None:
    spots = SpatialCounts(
        "s", Path("s"), sparse.csr_array((1, 1), dtype=np.int32), ("A",), np.zeros((1, 2)), "spot", 55.0, MPP,
        np.array([b"a"]),
    )  # fmt: skip
    with pytest.raises(ExpressionError, match="its places are spots"):
        write_tiled_labels(tmp_path / "t", spots)
