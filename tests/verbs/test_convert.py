from __future__ import annotations

import gzip
from pathlib import Path

import anndata
import h5py
import numpy as np
import pytest
import torch

from lamella.cli import main
from lamella.formats.geojson import read_geojson
from lamella.formats.h5 import read_features, trident_attributes, write_features
from lamella.formats.tables import read_csv, read_parquet, write_csv
from lamella.slides.grid import read_tile_table
from lamella.slides.index import SlideIndex
from lamella.slides.tile_files import read_tiles

# The study's slides are 384 px at 0.5 um per pixel; tiles of 64 px at 1.0 um are 128 px0 wide.
CORNERS = np.array([[128, 0], [0, 0], [0, 256], [320, 256]])  # in no order; the last reaches over the edge
MPP, TILE_PX, SIDE_PX0, DIM = 1.0, 64, 128, 5
TARGETS = ["trident", "clam", "slide2vec", "anndata", "geojson", "parquet", "csv"]


def features_of(number: int) -> np.ndarray:
    return np.random.default_rng(number).normal(size=(len(CORNERS), DIM)).astype(np.float32)


@pytest.fixture
def source(tmp_path: Path, judged_index: Path) -> Path:
    """A folder as `lamella embed` writes it."""
    folder = tmp_path / "features"
    for number, slide in enumerate(list(SlideIndex.load(judged_index))[:2]):
        write_features(
            folder / f"{slide.slide_id}.h5",
            CORNERS,
            [features_of(number)],
            dim=DIM,
            trident=trident_attributes(
                slide_id=slide.slide_id,
                folder=folder,
                tile_px=TILE_PX,
                mpp=MPP,
                overlap_px=0,
                level0_mpp=0.5,
                level0_size_px=(384, 384),
            ),
            own={"mpp": MPP, "encoder": "toy", "encoder_fingerprint": "f00d"},
        )
    (folder / "run.json").write_text("{}")
    return folder


def convert(source: Path, out: Path, to: str, *more: object, index: Path | None = None) -> int:
    given = [] if index is None else ["--index", str(index)]
    return main(["convert", str(source), "-o", str(out), f"to={to}", *map(str, more), *given])


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("to", TARGETS)
@pytest.mark.parametrize("with_index", [False, True], ids=["alone", "index"])
def test_the_tiles_come_back_from_every_target(
    tmp_path: Path, source: Path, judged_index: Path, to: str, with_index: bool
) -> None:
    index = judged_index if with_index else None
    assert convert(source, tmp_path / "out", to, index=index) == 0
    if to == "anndata":
        return
    tables = read_tiles(tmp_path / "out", SlideIndex.load(judged_index), mpp=MPP, tile_px=TILE_PX)
    assert sorted(tables) == ["s0", "s1"]
    order = np.lexsort(CORNERS.T[::-1]) if to == "slide2vec" else np.arange(len(CORNERS))
    for table in tables.values():
        assert table.column("x_px0").to_pylist() == CORNERS[order, 0].tolist()
        assert table.column("y_px0").to_pylist() == CORNERS[order, 1].tolist()
        assert table.column("fov_um").to_pylist() == pytest.approx([64.0] * 4)
        assert table.column("mpp").to_pylist() == pytest.approx([MPP] * 4)


@pytest.mark.parametrize("through", ["clam", "slide2vec", "parquet"])
def test_features_come_back_through_another_layout(
    tmp_path: Path, source: Path, judged_index: Path, through: str
) -> None:
    assert convert(source, tmp_path / "there", through) == 0
    assert convert(tmp_path / "there", tmp_path / "back", "trident", index=judged_index) == 0
    for number, name in enumerate(["s0", "s1"]):
        old, new = read_features(source / f"{name}.h5"), read_features(tmp_path / "back" / f"{name}.h5")
        order = np.lexsort(CORNERS.T[::-1]) if through == "slide2vec" else np.arange(len(CORNERS))
        assert np.array_equal(new.coords_px0, CORNERS[order])
        assert np.array_equal(new.features, features_of(number)[order])
        for key in ("patch_size", "patch_size_level0", "level0_magnification", "target_magnification", "mpp"):
            assert new.attributes[key] == pytest.approx(old.attributes[key]), key
    if through == "clam":
        assert new.attributes["encoder_fingerprint"] == "f00d"


@pytest.mark.parametrize("to", TARGETS)
def test_an_identical_rerun_changes_nothing(tmp_path: Path, source: Path, judged_index: Path, to: str) -> None:
    out = tmp_path / "out"
    assert convert(source, out, to, index=judged_index) == 0
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in out.rglob("*") if path.is_file()}
    assert convert(source, out, to, index=judged_index) == 0
    after = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in out.rglob("*") if path.is_file()}
    assert after == before


def test_clam_gets_what_its_code_opens(tmp_path: Path, source: Path, judged_index: Path) -> None:
    assert convert(source, tmp_path / "out", "clam", index=judged_index) == 0
    # Whole_Slide_Bag_FP of dataset_modules/dataset_h5.py:
    with h5py.File(tmp_path / "out" / "patches" / "s0.h5", "r") as file:
        attributes = file["coords"].attrs
        assert (attributes["patch_level"], attributes["patch_size"], attributes["name"]) == (0, SIDE_PX0, "s0")
        assert tuple(attributes["level_dim"]) == (384, 384)
        assert np.array_equal(file["coords"][:], CORNERS)
    # Generic_MIL_Dataset.__getitem__ of dataset_modules/dataset_generic.py, both ways:
    loaded = torch.load(tmp_path / "out" / "pt_files" / "s0.pt", weights_only=True)
    with h5py.File(tmp_path / "out" / "h5_files" / "s0.h5", "r") as file:
        assert np.array_equal(file["features"][:], loaded.numpy())
        assert np.array_equal(file["coords"][:], CORNERS)
    assert loaded.dtype == torch.float32
    assert np.array_equal(loaded.numpy(), features_of(0))


def test_anndata_holds_features_centres_and_where_they_come_from(tmp_path: Path, source: Path) -> None:
    assert convert(source, tmp_path / "out", "anndata") == 0
    data = anndata.read_h5ad(tmp_path / "out" / "s1.h5ad")
    assert np.array_equal(data.X, features_of(1))
    assert np.array_equal(data.obsm["spatial"], CORNERS + SIDE_PX0 / 2)
    assert data.obs["slide_id"].tolist() == ["s1"] * 4
    assert data.obs[["x_px0", "y_px0"]].to_numpy().tolist() == CORNERS.tolist()
    lamella = data.uns["lamella"]
    assert (lamella["mpp"], lamella["fov_um"], lamella["encoder_fingerprint"]) == (MPP, 64.0, "f00d")
    assert data.uns["spatial"]["s1"]["scalefactors"]["spot_diameter_fullres"] == SIDE_PX0
    attributes = data.uns["spatialdata_attrs"]
    assert set(data.obs[attributes["region_key"]]) == {attributes["region"]}
    assert data.obs[attributes["instance_key"]].tolist() == [0, 1, 2, 3]


def test_qupath_gets_tile_objects(tmp_path: Path, source: Path) -> None:
    assert convert(source, tmp_path / "out", "geojson") == 0
    objects = list(read_geojson(tmp_path / "out" / "s0.geojson"))
    assert [item.object_type for item in objects] == ["tile"] * 4
    assert [item.bounds_px0() for item in objects] == [(x, y, x + 128, y + 128) for x, y in CORNERS]


def test_objects_are_packed_on_request(tmp_path: Path, source: Path, judged_index: Path) -> None:
    assert convert(source, tmp_path / "a", "geojson") == convert(source, tmp_path / "b", "geojson", "gzip=true") == 0
    packed = (tmp_path / "b" / "s0.geojson.gz").read_bytes()
    assert gzip.decompress(packed) == (tmp_path / "a" / "s0.geojson").read_bytes()
    assert sorted(read_tiles(tmp_path / "b", SlideIndex.load(judged_index), mpp=1, tile_px=64)) == ["s0", "s1"]


def test_tables_hold_the_tiles_and_parquet_the_features(tmp_path: Path, source: Path) -> None:
    assert convert(source, tmp_path / "p", "parquet") == convert(source, tmp_path / "c", "csv") == 0
    table = read_parquet(tmp_path / "p" / "s0.parquet")
    assert np.array_equal(np.array(table.column("features").to_pylist(), np.float32), features_of(0))
    assert list(read_csv(tmp_path / "c" / "s0.csv")[0]) == ["slide_id", "x_px0", "y_px0", "fov_um", "mpp"]
    assert read_tile_table(tmp_path / "p" / "s0.parquet", mpp=None, tile_px=None).num_rows == 4


def test_a_slide_that_fails_is_listed_and_the_others_go_on(
    tmp_path: Path, source: Path, judged_index: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = (source / "s0.h5").read_bytes()
    (source / "s0.h5").write_bytes(good[:100])
    assert convert(source, tmp_path / "out", "csv", index=judged_index) == 1
    (row,) = read_csv(tmp_path / "out" / "failed.csv")
    assert (row["slide_id"], "HDF5" in row["error"]) == ("s0", True)
    assert (tmp_path / "out" / "s1.csv").exists()
    assert "failed.csv" in capsys.readouterr().out
    (source / "s0.h5").write_bytes(good)
    assert convert(source, tmp_path / "out", "csv", index=judged_index) == 0
    assert not (tmp_path / "out" / "failed.csv").exists()
    assert (tmp_path / "out" / "s0.csv").exists()


def test_a_feature_that_is_no_number_is_refused_and_nothing_is_left(tmp_path: Path, source: Path) -> None:
    with h5py.File(source / "s0.h5", "r+") as file:
        file["features"][1, 2] = np.nan
    for to in ("trident", "clam", "anndata"):
        assert convert(source, tmp_path / to, to) == 1
        assert "not a number" in read_csv(tmp_path / to / "failed.csv")[0]["error"]
        assert not [path for path in (tmp_path / to).rglob("s0*") if "patches" not in path.parts]


def test_a_table_goes_out_with_the_index(tmp_path: Path, judged_index: Path) -> None:
    rows = [{"slide_id": name, "x_px0": 64, "y_px0": 32, "fov_um": 64, "mpp": 1} for name in ("s2", "s0")]
    write_csv(tmp_path / "tiles.csv", rows, list(rows[0]))
    assert convert(tmp_path / "tiles.csv", tmp_path / "out", "trident", index=judged_index) == 0
    with h5py.File(tmp_path / "out" / "patches" / "s2_patches.h5", "r") as file:
        assert file["coords"][:].tolist() == [[64, 32]]
        assert (file["coords"].attrs["patch_size"], file["coords"].attrs["patch_size_level0"]) == (64, 128)
    assert convert(tmp_path / "out", tmp_path / "back", "csv", index=judged_index) == 0
    assert float(read_csv(tmp_path / "back" / "s0.csv")[0]["fov_um"]) == pytest.approx(64)


def test_a_broken_table_of_a_folder_fails_alone(tmp_path: Path, source: Path, judged_index: Path) -> None:
    assert convert(source, tmp_path / "tables", "parquet") == 0
    (tmp_path / "tables" / "s0.parquet").write_text("nothing")
    assert convert(tmp_path / "tables", tmp_path / "out", "clam", index=judged_index) == 1
    (row,) = read_csv(tmp_path / "out" / "failed.csv")
    assert (row["slide_id"], "Parquet" in row["error"]) == ("s0", True)
    assert (tmp_path / "out" / "pt_files" / "s1.pt").exists()


def test_tables_without_an_index_are_refused(tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert convert(source, tmp_path / "tables", "csv") == 0
    assert convert(tmp_path / "tables", tmp_path / "out", "clam") == 2
    assert "--index" in capsys.readouterr().err


def test_contexts_of_anchors_go_out(tmp_path: Path, own_index: Path) -> None:
    sampling = ["sampling.context_fov_um=64", "sampling.target_fov_um=32", "sampling.targets_per_context=1"]
    assert main(["anchors", str(own_index), "-o", str(tmp_path / "anchors"), "qc=false", *sampling]) == 0
    assert convert(tmp_path / "anchors", tmp_path / "out", "geojson") == 0
    objects = list(read_geojson(tmp_path / "out" / "s0.geojson"))
    assert objects
    x0, y0, x1, y1 = objects[0].bounds_px0()
    assert (x1 - x0, y1 - y0) == pytest.approx((128, 128), abs=0.02)
    assert 0 < objects[0].measurements["tissue_fraction"] <= 1


def test_points_become_the_centres_of_tiles(tmp_path: Path, judged_index: Path) -> None:
    np.save(tmp_path / "s0.npy", np.array([[100.0, 200], [150, 250]]))
    arguments = ["mpp=1", "tile_px=64"]
    out = tmp_path / "out"
    assert convert(tmp_path / "s0.npy", out, "csv", *arguments, index=judged_index) == 1
    assert "corners or centres" in read_csv(out / "failed.csv")[0]["error"]
    assert convert(tmp_path / "s0.npy", tmp_path / "b", "csv", *arguments, "place=centre", index=judged_index) == 0
    rows = read_csv(tmp_path / "b" / "s0.csv")
    assert [(float(row["x_px0"]), float(row["y_px0"])) for row in rows] == [(36, 136), (86, 186)]
    assert convert(tmp_path / "s0.npy", tmp_path / "c", "csv", *arguments, "place=corner", index=judged_index) == 0
    assert float(read_csv(tmp_path / "c" / "s0.csv")[0]["x_px0"]) == 100


def test_two_files_of_one_slide_are_refused(tmp_path: Path, source: Path, judged_index: Path) -> None:
    (source / "s0_patches.h5").write_bytes((source / "s0.h5").read_bytes())
    assert convert(source, tmp_path / "out", "csv", index=judged_index) == 1
    assert "another file" in read_csv(tmp_path / "out" / "failed.csv")[0]["error"]


def test_a_dry_run_writes_nothing(
    tmp_path: Path, source: Path, judged_index: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert(source, tmp_path / "out", "clam", "--dry-run") == 0
    said = capsys.readouterr().out
    assert "8 tiles of 2 slides" in said
    assert "s0: 4 tiles, 5 numbers each" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["SOURCE", "-o", "out"], "to="),
        (["-o", "out", "to=csv"], "one file or folder"),
        (["nowhere", "-o", "out", "to=csv"], "does not exist"),
        (["SOURCE", "-o", "out", "to=clem"], "clam"),
        (["EMPTY", "-o", "out", "to=csv"], "no tiles"),
    ],
)
def test_what_the_user_must_mend_is_said(
    tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    (tmp_path / "empty").mkdir()
    places = {"SOURCE": str(source), "EMPTY": str(tmp_path / "empty"), "out": str(tmp_path / "out")}
    assert main(["convert", *(places.get(argument, argument) for argument in arguments)]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_other_settings_in_the_same_folder_are_refused(
    tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert(source, tmp_path / "out", "csv") == 0
    before = contents(tmp_path / "out")
    assert convert(source, tmp_path / "out", "geojson") == 2
    assert "other settings" in capsys.readouterr().err
    assert contents(tmp_path / "out") == before
