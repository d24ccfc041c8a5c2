from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.verbs.expression_stages.tiny_expected import place_model, place_views

from lamella.data.expression_views import SlideViews
from lamella.errors import LamellaError, StorageError
from lamella.formats.ome_zarr import ValueStore, open_raster
from lamella.geometry import Frame
from lamella.models.expression.model import ExpressionModel
from lamella.slides.tissue_map import TissueMap
from lamella.verbs.expression_stages.prediction_raster import Ensemble, RasterPlan, plan_raster, write_raster
from lamella.verbs.expression_stages.prediction_settings import PredictionSettings

FRAME = Frame(300, 500, 0.5, 0.5)  # 150 x 250 um: 38 x 63 bins of 4 um, the last reaching over the edge


def tissue(*, hole: bool = False) -> TissueMap:
    """All of the slide, or without its upper right quarter."""
    mask = np.ones((50, 30), bool)
    if hole:
        mask[:25, 15:] = False
    return TissueMap(mask, FRAME.resized(30, 50))


def settings(**given: Any) -> PredictionSettings:
    return PredictionSettings.model_validate({"memory_mb": 16, "batch_size": 3, **given})


def predicted(
    folder: Path, models: list[ExpressionModel], told: PredictionSettings | None = None, *, hole: bool = False
) -> np.ndarray:
    told = told or settings()
    ensemble, views = Ensemble.of(models, told.genes), place_views(folder / "views", FRAME, models[0])
    plan = plan_raster(ensemble, FRAME, tissue(hole=hole), told)
    write_raster(ensemble, views, plan, folder / "genes.zarr", told)
    return np.asarray(open_raster(folder / "genes.zarr").levels[0][:])


def pixel_places(plan_um: float, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """x (1, W) and y (H, 1) of the middles of pixels, in micrometres."""
    return (np.arange(shape[-1]) + 0.5)[None] * plan_um, (np.arange(shape[-2]) + 0.5)[:, None] * plan_um


@pytest.mark.parametrize(("bin_um", "overlap"), [(None, 0.25), (4.0, 0.0), (8.0, 0.5), (16.0, 0.3)])
def test_every_pixel_says_where_it_lies(tmp_path: Path, bin_um: float | None, overlap: float) -> None:
    found = predicted(tmp_path, [place_model()], settings(bin_um=bin_um, overlap=overlap))
    x, y = pixel_places(bin_um or 4.0, found.shape)
    # Beyond the middle of the last token there is nothing to tell places by, and bins over the edge are not seen.
    inner = np.s_[1 : 220 // int(bin_um or 4), 1 : 130 // int(bin_um or 4)]
    np.testing.assert_allclose(found[0][inner], np.broadcast_to(x, found[0].shape)[inner], atol=0.02)
    np.testing.assert_allclose(found[1][inner], np.broadcast_to(y, found[1].shape)[inner], atol=0.02)


def test_counts_of_larger_bins_are_sums(tmp_path: Path) -> None:
    found = predicted(tmp_path, [place_model(rule="rate")], settings(bin_um=8.0))
    np.testing.assert_allclose(found[0], 4 * 0.25, rtol=1e-5)
    np.testing.assert_allclose(found[1], 4 * 0.5, rtol=1e-5)
    assert found.dtype == np.float32


def test_what_is_no_tissue_has_no_number(tmp_path: Path) -> None:
    found = predicted(tmp_path, [place_model(rule="rate")], hole=True)
    x, y = pixel_places(4.0, found.shape)
    outside = (x > 75) & (y < 125)
    assert np.array_equal(np.isnan(found), np.broadcast_to(outside, found.shape))


def test_each_gene_is_averaged_over_the_models_that_predict_it(tmp_path: Path) -> None:
    first, second = place_model(rule="rate"), place_model(rule="rate")
    second.genes = ("Y", "Z")
    ensemble = Ensemble.of([first, second])
    assert ensemble.genes == ("X", "Y", "Z")
    assert ensemble.counts == (1, 2, 1)
    found = predicted(tmp_path, [first, second])
    # Y is the second gene of the first model and the first of the second one.
    np.testing.assert_allclose(found[:, 0, 0], [0.25, (0.5 + 0.25) / 2, 0.5], rtol=1e-5)


def test_a_model_without_any_of_the_asked_genes_has_no_say(tmp_path: Path) -> None:
    first, second = place_model(rule="rate"), place_model(rule="rate")
    second.genes = ("Y", "Z")
    found = predicted(tmp_path, [first, second], settings(genes=["Z"]))
    np.testing.assert_allclose(found, np.full((1, 63, 38), 0.5), rtol=1e-5)


def test_only_the_genes_that_are_asked_for(tmp_path: Path) -> None:
    found = predicted(tmp_path, [place_model(rule="rate")], settings(genes=["Y"]))
    np.testing.assert_allclose(found, np.full((1, 63, 38), 0.5), rtol=1e-5)


def test_models_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(LamellaError, match="differ in views"):
        Ensemble.of([place_model(), place_model(bin_um=2.0)])
    with pytest.raises(LamellaError, match="differ in rule"):
        Ensemble.of([place_model(), place_model(rule="rate")])
    with pytest.raises(LamellaError, match="no model predicts Z"):
        Ensemble.of([place_model()], ["X", "Z"])


@pytest.mark.parametrize("bin_um", [3.0, 2.0, 12.0, 64.0])
def test_bins_that_are_no_multiple_are_refused(bin_um: float) -> None:
    with pytest.raises(LamellaError, match="Set one of 4, 8, 16, 32, or null"):
        plan_raster(Ensemble.of([place_model()]), FRAME, tissue(), settings(bin_um=bin_um))


def test_views_of_another_model_are_refused(tmp_path: Path) -> None:
    model, other = place_model(), place_model(bin_um=2.0)
    ensemble, views = Ensemble.of([model]), place_views(tmp_path / "views", FRAME, other)
    plan = plan_raster(ensemble, FRAME, tissue(), settings())
    with pytest.raises(LamellaError, match="its views are 8 x 2 um"):
        write_raster(ensemble, views, plan, tmp_path / "s" / "genes.zarr", settings())


def test_a_stopped_run_goes_on_and_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = predicted(tmp_path / "whole", [stirred()], settings())
    write, written = ValueStore.write, []

    def failing(self: ValueStore, y0: int, band: np.ndarray) -> None:
        if len(written) == 2:
            raise StorageError(self.folder, "the disk is full", "Make room.")
        written.append(y0)
        write(self, y0, band)

    ensemble, told = Ensemble.of([stirred()]), settings()
    views: SlideViews = place_views(tmp_path / "views", FRAME, ensemble.first)
    plan = small_bands(plan_raster(ensemble, FRAME, tissue(), told))
    folder = tmp_path / "stopped" / "genes.zarr"
    with monkeypatch.context() as patched:
        patched.setattr(ValueStore, "write", failing)
        with pytest.raises(StorageError):
            write_raster(ensemble, views, plan, folder, told)
    assert written == [0, 16]
    monkeypatch.setattr(ValueStore, "write", lambda self, y0, band: (written.append(y0), write(self, y0, band)))
    write_raster(ensemble, views, plan, folder, told)
    assert written == [0, 16, 32, 48]
    assert np.array_equal(np.asarray(open_raster(folder).levels[0][:]), whole)


def test_wide_slides_with_many_genes_get_lower_bands() -> None:
    """What is held is bounded by memory_mb, as long as bands can be made lower, and never by the slide's height."""
    model = place_model()
    ensemble = Ensemble.of([model])

    def band(width_px: int, height_px: int, memory_mb: int) -> int:
        frame = Frame(width_px, height_px, 8.0, 8.0)
        glass = TissueMap(np.zeros((1, 1), bool), frame.resized(1, 1))
        return plan_raster(ensemble, frame, glass, settings(memory_mb=memory_mb)).chunk_px

    # Two bands of two genes in float32 are 16 bytes for each column and row.
    assert [band(10_000, 10, megabytes) for megabytes in (200, 90, 45, 21, 16)] == [256, 256, 128, 64, 32]
    assert band(10_000, 10, 45) == band(10_000, 100, 45)


def stirred() -> ExpressionModel:
    """Tiles that do not agree where they overlap, so that the order of the sums shows."""
    model = place_model()
    torch.manual_seed(0)
    torch.nn.init.normal_(model.network.rate.weight)
    return model


def small_bands(plan: RasterPlan) -> RasterPlan:
    return RasterPlan(plan.frame, plan.tiling, plan.pooled, plan.grid, plan.tissue, 16)
