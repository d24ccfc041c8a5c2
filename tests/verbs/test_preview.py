"""Previews of a tiny study: names, counts, resume, and what happens to a slide that cannot be read."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image

from lamella.config import Request
from lamella.errors import LamellaError, OutputConflictError
from lamella.slides.phantom import write_phantoms
from lamella.verbs import anchors, index, preview

SAMPLING = ("context_fov_um=64", "target_fov_um=16", "patch_px=8", "target_margin_um=0", "min_tissue_fraction=0.5")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    manifest = write_phantoms(folder / "phantom", slides=2, size_px=512, test_slides=0)
    assert index.run(Request("index", (manifest,), folder / "index")) == 0
    overrides = ("qc=false", *(f"sampling.{setting}" for setting in SAMPLING))
    assert anchors.run(Request("anchors", (folder / "index",), folder / "anchors", overrides=overrides)) == 0
    return folder


def _request(study: Path, out: Path, *overrides: str, **more: object) -> Request:
    return Request("preview", (study / "anchors",), out, overrides=("num_samples=2", *overrides), **more)


def test_each_sample_gets_its_pictures_with_the_source_projects_names(study: Path, tmp_path: Path) -> None:
    out = tmp_path / "previews"
    assert preview.run(_request(study, out, "num_zoomed_previews=1", "final_png_scale=1.5")) == 0
    names = sorted(path.name for path in out.iterdir() if path.suffix in (".png", ".gif"))
    stills = [name for name in names if name.startswith("preview_")]
    assert [name[:12] for name in stills] == ["preview_s000", "preview_s001"]
    for still in stills:
        sample = still.removeprefix("preview_").removesuffix(".png")
        assert "_phantom_0" in sample
        assert {f"ijepa_{sample}.gif", f"ijepa_{sample}_all_steps.png"} <= set(names)
        with Image.open(out / still) as one, Image.open(out / f"ijepa_{sample}_all_steps.png") as large:
            assert large.width == pytest.approx(1.5 * one.width, rel=0.01)
    assert [name[:10] for name in names if name.startswith("zoom4_")] == ["zoom4_s000"]
    assert len(names) == 7


@pytest.mark.slow
def test_a_rerun_changes_nothing_and_replaces_what_is_gone(study: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "previews"
    preview.run(_request(study, out))
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    preview.run(_request(study, out))
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before
    assert "nothing to do" in capsys.readouterr().out
    gone = next(out.glob("preview_s001*.png"))
    gone.unlink()
    preview.run(_request(study, out))
    assert gone.exists()
    assert {path for path in before if path.stat().st_mtime_ns != before[path]} == {gone}


@pytest.mark.slow  # the rule is engine/rundir's
def test_other_settings_in_the_same_folder_are_refused(study: Path, tmp_path: Path) -> None:
    preview.run(_request(study, tmp_path / "previews"))
    with pytest.raises(OutputConflictError, match="seed"):
        preview.run(_request(study, tmp_path / "previews", "seed=1"))


def test_dry_run_counts_and_writes_nothing(study: Path, tmp_path: Path, capsys) -> None:
    assert preview.run(_request(study, tmp_path / "previews", dry_run=True)) == 0
    assert "would draw 2 of" in capsys.readouterr().out
    assert not (tmp_path / "previews").exists()


@pytest.mark.slow
def test_a_slide_that_is_gone_fails_alone(study: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(study, copy)
    (copy / "phantom" / "slides" / "phantom_00_aster.tif").unlink()
    out = tmp_path / "previews"
    request = Request(
        "preview", (copy / "anchors",), out, overrides=("num_samples=6", "final_png_scale=0.5", "num_zoomed_previews=0")
    )
    assert preview.run(request) == 1
    failed = (out / "failed.csv").read_text()
    assert "phantom_00_aster" in failed
    assert "does not exist" in failed
    drawn = list(out.glob("preview_*.png"))
    assert drawn
    assert all("phantom_01_briar" in path.name for path in drawn)


def test_out_and_one_path_are_needed(study: Path, tmp_path: Path) -> None:
    with pytest.raises(LamellaError, match="-o"):
        preview.run(Request("preview", (study / "anchors",)))
    with pytest.raises(LamellaError, match="one anchors folder"):
        preview.run(Request("preview", (), tmp_path / "previews"))
