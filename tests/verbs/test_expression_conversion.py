"""`lamella convert ... to=expression|patches|spatialdata`: measured expression between the layouts of others."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pytest
from tests.conftest import write_pyramid
from tests.tiny_space_ranger import MPP, Run, feature_names

from lamella.cli import main
from lamella.formats.expression_source import read_expression
from lamella.formats.tables import read_csv
from lamella.formats.tiled_labels import read_tiles
from lamella.formats.tiled_pictures import picture_places, read_tile_picture, tile_centre
from lamella.slides.slide import open_slide
from lamella.verbs.expression_conversion import SlideSampler

WIDTH_PX, HEIGHT_PX = 1024, 768


def ramp(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Colours that say where one is."""
    return np.stack([x / WIDTH_PX * 255, y / HEIGHT_PX * 255, 0 * x], -1)


@pytest.fixture
def slide_path(tmp_path: Path) -> Path:
    y, x = np.mgrid[:HEIGHT_PX, :WIDTH_PX] + 0.5
    return write_pyramid(tmp_path / "a.tif", np.rint(ramp(x, y)).astype(np.uint8), mpp=MPP)


@pytest.fixture
def manifest(tmp_path: Path, slide_path: Path) -> Path:
    Run(rows=40, cols=30).write_hd(tmp_path / "run")
    path = tmp_path / "manifest.csv"
    path.write_text(f"slide_id,wsi_path,expression_path,patient,mpp\ns1,a.tif,run,P1,{MPP}\n")
    return path


def test_expression_becomes_anndata_pooled_and_of_chosen_genes(manifest: Path, tmp_path: Path) -> None:
    (tmp_path / "genes.txt").write_text("Gene4\nGene1\n")
    asked = ["convert", str(manifest), "-o", str(tmp_path / "out"), "to=expression", "bin_um=4"]
    assert main([*asked, f"genes={tmp_path / 'genes.txt'}"]) == 0
    data = anndata.read_h5ad(tmp_path / "out" / "s1.h5ad")
    whole = read_expression(tmp_path / "run").of_genes(["Gene4", "Gene1"])
    assert data.var_names.tolist() == ["Gene4", "Gene1"]
    assert data.uns["lamella"]["size_um"] == 4
    assert data.X.sum() == whole.counts.sum()  # sums are kept


def test_patches_are_written_with_pictures_that_lie_over_them(manifest: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["convert", str(manifest), "-o", str(out), "to=patches", "scales_um=[2,8]"]) == 0
    back = read_expression(out / "s1_precomputed_labels_v2")
    counts = read_expression(tmp_path / "run")
    assert back.counts.sum() == counts.counts.sum()
    assert np.array_equal(np.sort(back.counts.data), np.sort(counts.counts.data))
    (tile,) = read_tiles(out / "s1_precomputed_labels_v2")
    for scale in (2.0, 8.0):
        picture = read_tile_picture(out / "multiscale" / "s1", scale, tile)
        x, y = picture_places(counts.grid, tile_centre(tile), scale, 256)
        # A view's own pixel is away from the border, where averages reach over it.
        inside = (x > 40) & (x < WIDTH_PX - 40) & (y > 40) & (y < HEIGHT_PX - 40)
        wrong = np.abs(picture.pixels[inside] - ramp(x, y)[inside])
        # Half a bin of 2 um is 4 px: one grey value; and one for rounding the image and the picture.
        assert wrong.max() < 4 / WIDTH_PX * 255 + 1
        assert picture.seen < 1


def test_a_slide_that_fails_is_listed_and_the_others_go_on(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(seed=5).write_hd(tmp_path / "run2")
    (run / "filtered_feature_bc_matrix.h5").write_bytes(b"\x89HDF")  # bad input: truncated h5
    manifest.write_text(manifest.read_text() + "s2,a.tif,run2,P2,0.25\n")
    assert main(["convert", str(manifest), "-o", str(tmp_path / "out"), "to=expression"]) == 1
    assert (tmp_path / "out" / "s1.h5ad").is_file()
    (row,) = read_csv(tmp_path / "out" / "failed.csv")
    assert row["slide_id"] == "s2"
    assert "cannot be read whole" in row["error"]
    assert "s2 failed" in capsys.readouterr().out


def test_one_source_without_an_image_and_dry_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Run().write_hd(tmp_path / "case" / "outs")
    asked = ["convert", str(tmp_path / "case"), "-o", str(tmp_path / "out"), "to=patches"]
    assert main([*asked, "--dry-run"]) == 0
    assert not (tmp_path / "out").exists()
    assert main(asked) == 0
    assert (tmp_path / "out" / "case_precomputed_labels_v2" / "patch_000_000.npy").is_file()
    assert not (tmp_path / "out" / "multiscale").exists()
    assert "48 places" not in capsys.readouterr().out  # only the places under tissue


def test_too_many_genes_for_dense_labels_and_unknown_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Run().write_hd(tmp_path / "case")
    monkeypatch.setattr("lamella.verbs.expression_conversion._MOST_GENES", 3)
    asked = ["convert", str(tmp_path / "case"), "-o"]
    assert main([*asked, str(tmp_path / "a"), "to=patches"]) == 1
    assert "5 genes are too many for labels that are dense" in capsys.readouterr().out
    assert main([*asked, str(tmp_path / "b"), "to=patches", f"genes=[{feature_names(1)[0]}]"]) == 0
    assert main([*asked, str(tmp_path / "c"), "to=expression", "genes=[NOT_THERE]"]) == 1
    assert "1 of 1 genes of the panel are not in it: NOT_THERE" in capsys.readouterr().out
    (tmp_path / "empty.txt").write_text("\n")
    assert main([*asked, str(tmp_path / "d"), "to=expression", f"genes={tmp_path / 'empty.txt'}"]) == 2


def test_a_sampler_sees_nothing_off_the_slide(slide_path: Path) -> None:
    with open_slide(slide_path) as slide:
        away = np.full((3, 3), -5000.0)
        pixels, seen = SlideSampler(slide)(away, away, 8.0)
    assert not seen.any()
    assert not pixels.any()
