"""Stage `features`: each raster once, under a name that says what it depends on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from tests.verbs.expression_stages.made_stage import made_slide, made_stage, tissue_picture

from lamella.data.expression import ExpressionSlide
from lamella.errors import LamellaError
from lamella.formats.feature_raster import FACTS_FILE
from lamella.formats.tables import read_csv
from lamella.geometry import BinGrid
from lamella.verbs.expression_stages import features
from lamella.verbs.expression_stages.feature_settings import FeatureSettings
from lamella.verbs.expression_stages.features import run_features, slide_views, view_levels, view_shapes, with_spacings

GRID = BinGrid.upright(2.0, 0.5, 0.5)


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> list[ExpressionSlide]:
    folder = tmp_path_factory.mktemp("slides")
    return [made_slide(folder, name, tissue_picture(240, 300, seed)) for seed, name in enumerate("ab")]


def rasters(out: Path) -> list[Path]:
    return sorted(path.parent for path in out.rglob(FACTS_FILE))


def test_every_slide_gets_a_raster_of_each_view(
    slides: list[ExpressionSlide], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = made_stage(tmp_path, slides)
    assert run_features(stage) == 0
    rows = read_csv(tmp_path / "features" / "features.csv")
    assert [(row["slide_id"], row["token_um"]) for row in rows] == [("a", "2"), ("a", "8"), ("b", "2"), ("b", "8")]
    assert "tokens of 8 um (stride 16 at 0.5 um per pixel), 33 numbers each, sampled 16 x 16" in capsys.readouterr().out
    assert len(rasters(tmp_path)) == 4
    assert not (tmp_path / "features" / "failed.csv").exists()


def test_what_is_there_is_not_made_again(
    slides: list[ExpressionSlide], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither by the stage, nor by another stage that asks for views, nor by another study with the same cache."""
    cache = tmp_path / "cache"
    run_features(made_stage(tmp_path / "one", slides, cache=cache))
    before = rasters(tmp_path)
    monkeypatch.setattr(features, "write_feature_raster", None)  # called, it would raise
    again = made_stage(tmp_path / "two", slides, cache=cache, batch_size=3, standardise="none")
    assert run_features(again) == 0
    slide_views(again, slides[0])
    assert rasters(tmp_path) == before


def test_a_run_goes_on_where_it_was_stopped(
    slides: list[ExpressionSlide], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, made = made_stage(tmp_path, slides), []
    write = features.write_feature_raster

    def stopped(folder: Path, *given: object, **options: object) -> object:
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(folder)
        return write(folder, *given, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(features, "write_feature_raster", stopped)
        with pytest.raises(KeyboardInterrupt):
            run_features(stage)
    times = {path: (path / FACTS_FILE).stat().st_mtime_ns for path in rasters(tmp_path)}
    assert len(times) == 2
    assert run_features(stage) == 0
    assert len(rasters(tmp_path)) == 4
    assert all((path / FACTS_FILE).stat().st_mtime_ns == time for path, time in times.items())


@pytest.mark.parametrize(
    "change",
    [
        {"encoder": "efficientnet"},
        {"encoder": "efficientnet", "random_seed": 0},
        {"views": ({"token_um": 2}, {"token_um": 8, "mpp": 1.0})},
        {"views": ({"token_um": 2}, {"token_um": 8, "fov_um": 700})},
    ],
)
def test_other_encoders_spacings_and_fields_have_rasters_of_their_own(
    slides: list[ExpressionSlide], tmp_path: Path, change: dict[str, object]
) -> None:
    """In the same folder: the cells of an ablation share what they have in common, and nothing else."""
    slide_views(made_stage(tmp_path, slides[:1]), slides[0])
    before = set(rasters(tmp_path))
    views = slide_views(made_stage(tmp_path, slides[:1], **change), slides[0])
    new = set(rasters(tmp_path)) - before
    assert len(new) == (1 if "views" in change else 2)
    assert views.rasters[1].folder in new


def test_another_picture_under_the_same_name_is_another_slide(slides: list[ExpressionSlide], tmp_path: Path) -> None:
    stage = made_stage(tmp_path, slides)
    one = slide_views(stage, slides[0])
    other = slide_views(stage, replace(slides[1], slide_id="a"))
    assert one.rasters[0].folder != other.rasters[0].folder


def test_views_of_a_new_slide_have_the_shapes_that_the_network_was_built_for(
    slides: list[ExpressionSlide], tmp_path: Path
) -> None:
    """The level is chosen by the study's coarsest slide; a finer new one gets the same."""
    stage = made_stage(tmp_path, slides, views=({"token_um": 8}, {"token_um": 32, "fov_um": 96}), bin_um=4.0)
    shapes = view_shapes(stage)
    assert [(shape.token_um, shape.tokens) for shape in shapes] == [(4.0, 16), (32.0, 3)]
    new = made_slide(tmp_path, "new", tissue_picture(500, 600, 3), mpp=0.25)
    views = slide_views(stage, new)
    assert views.shapes == shapes
    assert [raster.facts.level for raster in views.rasters] == [level.level for level in view_levels(stage)]
    grid = BinGrid.upright(4.0, 0.25, 0.25)
    found, seen = views.at(grid, 10, 10)
    assert [each.shape for each in found] == [(33, 16, 16), (33, 3, 3)]
    assert seen[0].all()


def test_a_coarse_slide_decides_for_all(slides: list[ExpressionSlide], tmp_path: Path) -> None:
    coarse = made_slide(tmp_path, "coarse", tissue_picture(240, 300, 5), mpp=2.0)
    alone, both = made_stage(tmp_path, slides), made_stage(tmp_path, [*slides, coarse])
    assert [level.mpp for level in view_levels(alone)] == [0.5, 0.5]
    assert [level.mpp for level in view_levels(both)] == [0.5, 2.0]  # 8 um at stride 4
    stated = with_spacings(alone)  # what a model of the first study keeps
    assert view_levels(both, stated) == view_levels(alone)
    assert slide_views(alone, slides[0], stated).rasters[1].folder == slide_views(alone, slides[0]).rasters[1].folder


def test_the_random_control_sees_the_same_places(slides: list[ExpressionSlide], tmp_path: Path) -> None:
    stage = made_stage(tmp_path, slides)
    trained, random = (
        slide_views(stage, slides[0], FeatureSettings(encoder="efficientnet", random_seed=seed, device="cpu"))
        for seed in (None, 0)
    )
    (one, seen), (other, seen_too) = (views.at(GRID, 30, 24) for views in (trained, random))
    assert trained.shapes == random.shapes == view_shapes(stage, FeatureSettings(encoder="efficientnet"))
    for view in range(2):
        assert not np.allclose(one[view], other[view])
        assert seen[view].mean() == pytest.approx(seen_too[view].mean(), abs=0.2)


def test_a_slide_that_cannot_be_read_or_has_no_tissue_is_listed(
    slides: list[ExpressionSlide], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    glass = made_slide(tmp_path, "glass", np.full((240, 300, 3), 243, np.uint8))
    broken = made_slide(tmp_path, "broken", tissue_picture(240, 300))
    broken.wsi_path.write_bytes(broken.wsi_path.read_bytes()[:500])
    stage = made_stage(tmp_path, [slides[0], glass, broken])
    assert run_features(stage) == 1
    failed = {row["slide_id"]: row["error"] for row in read_csv(tmp_path / "features" / "failed.csv")}
    assert set(failed) == {"glass", "broken"}
    assert "no tissue was found" in failed["glass"]
    assert "2 slides have no features" in capsys.readouterr().out
    glass.wsi_path.write_bytes(slides[1].wsi_path.read_bytes())
    broken.wsi_path.write_bytes(slides[1].wsi_path.read_bytes())
    assert run_features(stage) == 0
    assert not (tmp_path / "features" / "failed.csv").exists()


def test_a_damaged_raster_is_refused_and_not_made_over(slides: list[ExpressionSlide], tmp_path: Path) -> None:
    stage = made_stage(tmp_path, slides[:1])
    (folder, *_) = (raster.folder for raster in slide_views(stage, slides[0]).rasters)
    (folder / "features.npy").write_bytes(b"nothing")
    with pytest.raises(LamellaError, match=r"features\.npy: it cannot be read"):
        slide_views(stage, slides[0])


def test_a_spacing_that_no_level_makes_is_refused(slides: list[ExpressionSlide], tmp_path: Path) -> None:
    stage = made_stage(tmp_path, slides, views=({"token_um": 2, "mpp": 0.3},))
    with pytest.raises(LamellaError, match="Set the view's mpp"):
        run_features(stage)
    assert not (tmp_path / "features").exists()


def test_views_come_finest_first_and_are_not_finer_than_bins(slides: list[ExpressionSlide], tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="finest first"):
        FeatureSettings.model_validate({"views": ({"token_um": 8}, {"token_um": 2})})
    with pytest.raises(ValidationError, match="leave it null"):
        FeatureSettings.model_validate({"views": ({"token_um": 8, "fov_um": 64},)})
    stage = made_stage(tmp_path, slides, views=({"token_um": 2}, {"token_um": 4}), bin_um=8.0)
    with pytest.raises(LamellaError, match="tokens of 4 um are smaller than the bins of 8 um"):
        view_shapes(stage)
    assert view_shapes(made_stage(tmp_path, slides, views=({"token_um": 2}, {"token_um": 8}), bin_um=8.0))
