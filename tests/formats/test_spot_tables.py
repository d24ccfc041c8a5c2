from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from lamella.formats.spatial_counts import ExpressionError
from lamella.formats.spot_tables import SpotSource, read_spot_tables, spot_source

GENES = ["A2M", "ACTB", "TP53"]
COUNTS = np.array([[1, 0, 2], [0, 0, 0], [7, 3, 0], [0, 0, 1]], np.uint16)
PLACES = np.array([[10.5, 20.25], [30.0, 20.0], [10.0, 60.0], [30.0, 60.0]])
ARRAY = [(10, 13), (11, 13), (10, 14), (11, 14)]  # x, y
IDS = [f"{x}x{y}" for x, y in ARRAY]


def write_section(folder: Path, stem: str = "A1", *, counts: np.ndarray = COUNTS, meta: bool = True) -> None:
    """As her2st is kept: places, the parts of a CSR matrix, and what all sections share."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["id,array_x,array_y,px,py,total_umi"]
    lines += [f"{name},{x},{y},{px},{py},0" for name, (x, y), (px, py) in zip(IDS, ARRAY, PLACES.tolist(), strict=True)]
    (folder / f"{stem}_spots.csv").write_text("\n".join(lines) + "\n")
    sparse.save_npz(folder / f"{stem}_counts.npz", sparse.csr_matrix(counts))
    if meta:
        sections = {stem: {"um_per_px": 3.2, "spot_diameter_px": 31.25}}
        (folder / "meta.json").write_text(json.dumps({"genes": GENES, "sections": sections}))


def test_a_section_is_read_from_either_file(tmp_path: Path) -> None:
    write_section(tmp_path)
    for name in ("A1_spots.csv", "A1_counts.npz"):
        read = read_spot_tables(spot_source(tmp_path / name))
        assert np.array_equal(read.counts.toarray(), COUNTS)
        assert read.counts.dtype == np.int32
        assert np.array_equal(read.places_px0, PLACES)
        assert np.array_equal(read.array_rc, np.array(ARRAY)[:, ::-1])  # mistake: rows and columns swapped
        assert (read.name, read.genes, read.names) == ("A1", tuple(GENES), IDS)
        assert (read.shape, read.size_um, read.mpp, read.grid) == ("spot", 100.0, 3.2, None)


def test_a_description_joins_files_of_several_folders(tmp_path: Path) -> None:
    write_section(tmp_path / "counts")
    (tmp_path / "fine").mkdir()
    (tmp_path / "fine" / "A1_spots.csv").write_text(
        "id,px,py\n" + "".join(f"{name},{x * 3.2},{y * 3.2}\n" for name, (x, y) in zip(IDS, PLACES, strict=True))
    )
    facts = {
        "spots": "fine/A1_spots.csv",
        "counts": "counts/A1_counts.npz",
        "genes": "counts/meta.json",
        "mpp": 1.0,
        "diameter_um": 55,
    }
    (tmp_path / "A1.json").write_text(json.dumps(facts))
    read = read_spot_tables(spot_source(tmp_path / "A1.json"))
    assert np.allclose(read.places_px0, PLACES * 3.2)
    assert (read.mpp, read.size_um, read.array_rc) == (1.0, 55.0, None)
    assert read_spot_tables(spot_source(tmp_path / "A1.json"), mpp=(0.5, 0.5), name="x").mpp == 0.5
    (tmp_path / "A1.json").write_text('{"spots": "a", "counts": "b", "scale": 2}')
    with pytest.raises(ExpressionError, match="keys that nobody reads: scale"):
        spot_source(tmp_path / "A1.json")
    (tmp_path / "A1.json").write_text('{"spots": "a"}')
    with pytest.raises(ExpressionError, match="names no spots and counts"):
        spot_source(tmp_path / "A1.json")


@pytest.mark.parametrize("packed", [True, False])
def test_tables_of_counts_are_joined_by_the_names_of_spots(tmp_path: Path, packed: bool) -> None:
    """As the Spatial Transcriptomics pipeline writes them: spots in any order, TSV."""
    order = [2, 0, 3, 1]
    lines = ["\t" + "\t".join(GENES)]
    lines += ["\t".join([IDS[number], *map(str, COUNTS[number])]) for number in order]
    text = ("\n".join(lines) + "\n").encode()
    path = tmp_path / ("A1_counts.tsv.gz" if packed else "A1_counts.tsv")
    path.write_bytes(gzip.compress(text) if packed else text)
    spots = ["x\ty\tnew_x\tnew_y\tpixel_x\tpixel_y"]
    spots += [f"{x}\t{y}\t{x}.1\t{y}.2\t{px}\t{py}" for (x, y), (px, py) in zip(ARRAY, PLACES.tolist(), strict=True)]
    (tmp_path / "A1_places.tsv").write_text("\n".join(spots) + "\n")
    read = read_spot_tables(SpotSource(tmp_path / "A1_places.tsv", path, mpp=0.7))
    assert np.array_equal(read.counts.toarray(), COUNTS)
    assert np.array_equal(read.places_px0, PLACES)
    assert read.names == IDS


def test_fractional_values_of_a_table_stay_values(tmp_path: Path) -> None:
    (tmp_path / "A1_spots.csv").write_text("id,px,py\na,1,1\nb,2,2\n")
    (tmp_path / "A1_counts.csv").write_text("spot,G1,G2\nb,0.5,1\na,-1.5,0\n")
    read = read_spot_tables(spot_source(tmp_path / "A1_spots.csv"), mpp=1.0)
    assert read.counts.toarray().tolist() == [[-1.5, 0.0], [0.5, 1.0]]
    assert not read.are_counts


def test_spots_and_counts_that_disagree_are_refused_with_all_names(tmp_path: Path) -> None:
    """Bad input: barcodes missing, on either side; nothing is dropped."""
    (tmp_path / "A1_spots.csv").write_text("id,px,py\na,1,1\nb,2,2\n")
    (tmp_path / "A1_counts.csv").write_text("spot,G1\nb,1\nc,2\nd,0\n")
    with pytest.raises(
        ExpressionError, match=r"1 spots with a place are not in it: a; 2 of its spots have no place: c, d"
    ):
        read_spot_tables(spot_source(tmp_path / "A1_spots.csv"), mpp=1.0)


def test_parts_of_another_section_are_refused(tmp_path: Path) -> None:
    """Bad input: positions and matrix disagree."""
    write_section(tmp_path, counts=COUNTS[:3])
    with pytest.raises(
        ExpressionError, match=r"3 spots x 3 genes, but A1_spots\.csv lists 4 spots and meta\.json 3 genes"
    ):
        read_spot_tables(spot_source(tmp_path / "A1_spots.csv"))


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExpressionError, match=r"no A1_spots\.csv beside it"):
        spot_source(tmp_path / "A1_counts.npz")
    write_section(tmp_path, meta=False)
    with pytest.raises(ExpressionError, match="nothing names its genes"):
        read_spot_tables(spot_source(tmp_path / "A1_spots.csv"), mpp=1.0)
    source = SpotSource(tmp_path / "A1_spots.csv", tmp_path / "A1_counts.npz", tmp_path / "genes.txt")
    (tmp_path / "genes.txt").write_text("\n".join(GENES))
    with pytest.raises(ExpressionError, match="nothing says how many micrometres"):  # bad input: image without mpp
        read_spot_tables(source)
    assert read_spot_tables(source, mpp=2.0).genes == tuple(GENES)
    (tmp_path / "genes.txt").write_text("A\nB\nA\n")
    with pytest.raises(ExpressionError, match="1 genes stand twice: A"):
        read_spot_tables(source, mpp=2.0)
    (tmp_path / "A1_counts.npz").unlink()
    with pytest.raises(ExpressionError, match=r"no A1_counts\.npz, \.tsv, \.csv or \.h5 beside it"):
        spot_source(tmp_path / "A1_spots.csv")


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("id,array_x,array_y\na,1,1\n", "no places in pixels of the image"),
        ("id,px,py\na,1,1\na,2,2\n", "1 spots stand twice: a"),
        ("id,px,py\na,1,one\n", "no number"),
        ("id,px,py\na,1,inf\n", "not finite"),
        ("px,py\n1,1\n", "no column that names the spots"),
        ("id,px,py\n", "lists no spot"),
    ],
)
def test_tables_of_places_that_are_wrong_are_refused(tmp_path: Path, table: str, said: str) -> None:
    (tmp_path / "A1_spots.csv").write_text(table)
    (tmp_path / "A1_counts.csv").write_text("spot,G1\na,1\n")
    with pytest.raises(ExpressionError, match=said):
        read_spot_tables(spot_source(tmp_path / "A1_spots.csv"), mpp=1.0)


@pytest.mark.parametrize(
    ("table", "said"),
    [("spot,G1\na,\n", "missing or no number"), ("spot,G1,G1\na,1,1\n", "G1"), ("spot,G1\na,x\n", "no number")],
)
def test_tables_of_counts_that_are_wrong_are_refused(tmp_path: Path, table: str, said: str) -> None:
    (tmp_path / "A1_spots.csv").write_text("id,px,py\na,1,1\n")
    (tmp_path / "A1_counts.csv").write_text(table)
    with pytest.raises(ExpressionError, match=said):
        read_spot_tables(spot_source(tmp_path / "A1_spots.csv"), mpp=1.0)


def test_cut_and_foreign_parts_are_refused(tmp_path: Path) -> None:
    write_section(tmp_path)
    path = tmp_path / "A1_counts.npz"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ExpressionError, match="cannot be read whole"):
        read_spot_tables(spot_source(path))
    sparse.save_npz(path, sparse.coo_matrix(COUNTS))
    with pytest.raises(ExpressionError, match="a sparse matrix of the kind coo"):
        read_spot_tables(spot_source(path))
    sparse.save_npz(path, sparse.csc_matrix(COUNTS))
    assert np.array_equal(read_spot_tables(spot_source(path)).counts.toarray(), COUNTS)
    parts = {"data": np.array([1]), "indices": np.array([9]), "indptr": np.array([0, 1, 1, 1, 1]), "shape": [4, 3]}
    np.savez(path, **parts)
    with pytest.raises(ExpressionError, match="cannot be read whole"):
        read_spot_tables(spot_source(path))
    np.savez(path, data=np.array([object()], object), indices=[0], indptr=[0, 1], shape=[1, 1])
    with pytest.raises(ExpressionError, match="cannot be read whole"):  # pickles are never opened
        read_spot_tables(spot_source(path))
