from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

from lamella.cli import main
from lamella.formats.geojson import GeoObject, read_geojson, write_geojson
from lamella.formats.tables import read_csv
from lamella.models.clip import load_clip
from lamella.models.text_prompts import read_text_prompts
from lamella.slides.slide import open_slide
from lamella.verbs.naming.embedding import embedded_prompts


def named(clip: Path, slide: Path, regions: Path, wording: Path, out: Path, *more: str) -> int:
    return main(["name", str(clip), str(slide), "--regions", str(regions), f"prompts={wording}", *more, "-o", str(out)])


def test_polygons_get_a_class_and_scores_and_the_rest_is_listed(
    clip_folder: Path,
    slide: tuple[Path, Path],
    wordings: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    assert named(clip_folder, *slide, wordings[0], out, "batch_size=2") == 1
    before, after = list(read_geojson(slide[1])), list(read_geojson(out / "named.geojson"))
    assert len(after) == 3
    for old, new in zip([before[0], before[1], before[3]], after, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(old.polygons[0], new.polygons[0], strict=True))
        assert new.classification in ("tumor", "fat")
        assert new.name == old.name
        assert sum(new.measurements[f"p {name}"] for name in ("tumor", "fat")) == pytest.approx(1, abs=2e-4)
        highest = max(("tumor", "fat"), key=lambda name: new.measurements[f"p {name}"])
        assert new.classification == highest
    assert after[0].measurements["area"] == 3.5
    assert len({new.colour for new in after}) == len({new.classification for new in after})
    failed = {row["item_id"]: row["error"] for row in read_csv(out / "failed.csv")}
    assert "it has no area (points or lines)" in failed["object 3"]
    assert "lies outside the slide (400 x 300 pixels)" in failed["object 5"]
    shown = capsys.readouterr().out
    assert "1 of them came with another class, which was replaced" in shown
    assert "No truth was used" in shown


def test_scores_are_those_of_the_model_on_the_pixels_of_the_slide(
    clip_folder: Path, slide: tuple[Path, Path], wordings: tuple[Path, Path], tmp_path: Path
) -> None:
    assert named(clip_folder, *slide, wordings[0], tmp_path / "out", "mode=crop") == 1
    first = next(read_geojson(tmp_path / "out" / "named.geojson"))
    clip, prompts = load_clip(clip_folder), read_text_prompts(wordings[0])
    with open_slide(slide[0]) as opened:
        # 90 x 70 pixels of level 0, shown twice as fine as the 32 px of the network: 64 pixels along the longer side.
        read = opened.read(opened.frame.bounds_px.__class__(60, 50, 150, 120), 0.5 * 90 / 64)
    assert read.pixels.shape == (50, 64, 3)
    with torch.no_grad():
        cosines = clip.images(clip.prepared([read.pixels])).numpy() @ embedded_prompts(clip, [prompts])[0].T
    chances = np.exp(clip.scale * cosines[0]) / np.exp(clip.scale * cosines[0]).sum()
    assert first.measurements["p tumor"] == pytest.approx(chances[0], abs=1e-3)


def test_what_lies_in_a_hole_is_not_shown(
    clip_folder: Path, slide: tuple[Path, Path], wordings: tuple[Path, Path], tmp_path: Path
) -> None:
    """With the outside in gray, pixels of the hole cannot change a score; those of the region can."""
    import tifffile

    def scores(out: str, x: int, y: int) -> dict[str, float]:
        pixels = tifffile.imread(slide[0])
        pixels[y : y + 20, x : x + 20] = 0
        spacing = (1e4 / 0.5, 1e4 / 0.5)
        path = tmp_path / f"{out}.tif"
        tifffile.imwrite(
            path, pixels, tile=(64, 64), photometric="rgb", resolution=spacing, resolutionunit="CENTIMETER"
        )
        assert named(clip_folder, path, slide[1], wordings[0], tmp_path / out) == 1
        return dict(list(read_geojson(tmp_path / out / "named.geojson"))[1].measurements)

    untouched = scores("far", 0, 0)
    assert scores("hole", 230, 130) == untouched
    assert scores("inside", 270, 170) != untouched


def test_packed_in_packed_out_in_batches_of_any_size(
    clip_folder: Path, slide: tuple[Path, Path], wordings: tuple[Path, Path], tmp_path: Path
) -> None:
    square = np.array([[10.0, 10], [40, 10], [40, 40], [10, 40]])
    many = tmp_path / "many.geojson.gz"
    write_geojson(many, [GeoObject(polygons=((square + np.array([number, 0]),),)) for number in range(7)])
    assert named(clip_folder, slide[0], many, wordings[0], tmp_path / "out", "batch_size=3") == 0
    with gzip.open(tmp_path / "out" / "named.geojson.gz", "rt") as file:
        assert file.read().count('"Feature"') == 7
    assert not (tmp_path / "out" / "failed.csv").exists()


def test_bad_input(
    clip_folder: Path,
    slide: tuple[Path, Path],
    wordings: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["name", str(clip_folder), str(slide[0]), f"prompts={wordings[0]}", "-o", str(tmp_path / "a")]) == 2
    assert "no regions are given. Add --regions" in capsys.readouterr().err
    assert named(clip_folder, slide[0], tmp_path / "none.geojson", wordings[0], tmp_path / "b") == 2
    assert "there is no such file" in capsys.readouterr().err
    (tmp_path / "broken.geojson").write_text(slide[1].read_text()[:-200])
    assert named(clip_folder, slide[0], tmp_path / "broken.geojson", wordings[0], tmp_path / "c") == 2
    assert not (tmp_path / "c" / "named.geojson").exists()
    assert main(["name", str(clip_folder), "-o", str(tmp_path / "d")]) == 2
    assert "1 path(s) given" in capsys.readouterr().err
