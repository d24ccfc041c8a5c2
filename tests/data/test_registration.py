"""Whether places lie where the image shows their tissue."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from tests.data.tiny_expression import MPP, counts_of, slide_of

from lamella.data.expression import ExpressionSlide
from lamella.data.expression_tissue import slide_tissue
from lamella.data.registration import Registration, lattice_words, registration
from lamella.formats.spatial_counts import SpatialCounts
from lamella.geometry import BinGrid
from lamella.slides.tissue import TissueSettings

SIDE_PX = 960
GRID = BinGrid((SIDE_PX - 100.0, 100.0), (0.5, 32.0), (-32.0, 0.5), 16.0)
"""Bins of 16 um, mirrored and turned: 24 x 24 of them fill the image but for a margin."""
RC = np.stack(np.meshgrid(np.arange(24), np.arange(24), indexing="ij"), axis=-1).reshape(-1, 2)


def ground() -> np.ndarray:
    """(H, W) 0..1, structures of about 50 um, no two directions alike."""
    noise = ndimage.gaussian_filter(np.random.default_rng(5).normal(size=(SIDE_PX, SIDE_PX)), (30, 45))
    ranks = np.argsort(np.argsort(noise.ravel())).reshape(noise.shape)
    return ranks / ranks.max()


GROUND = ground()


def laid(tmp_path: Path, shift_um: tuple[float, float] = (0, 0), *, noise: float = 0.0) -> Registration:
    """Counts that follow the darkness of the image, their places moved by a shift."""
    grey = (235 - 120 * GROUND).astype(np.uint8)
    x, y = GRID.place_px0(RC[:, 0], RC[:, 1])
    rate = 2 + 40 * GROUND[np.rint(y).astype(int), np.rint(x).astype(int)]
    rng = np.random.default_rng(0)
    table = rng.poisson(rate * np.exp(noise * rng.normal(size=len(rate))))[:, None]
    counts = counts_of(table, RC, grid=GRID)
    moved = counts.places_px0 + np.array(shift_um) / MPP
    counts = replace(counts, places_px0=moved, grid=replace(GRID, origin_px0=tuple(moved[0])))
    return look(slide_of(tmp_path, counts, pixels=np.repeat(grey[..., None], 3, axis=2)), counts)


def look(slide: ExpressionSlide, counts: SpatialCounts) -> Registration:
    return registration(slide, counts, slide_tissue(slide, TissueSettings()))


def test_places_that_lie_rightly_are_best_where_they_are(tmp_path: Path) -> None:
    found = laid(tmp_path)
    assert found.best_um == (0, 0)
    assert found.r == found.r_best > 0.85
    assert found.faults() == []
    assert (found.places, found.outside, found.on_tissue) == (576, 0, 1)


@pytest.mark.parametrize("shift_um", [(40.0, 0.0), (0.0, -30.0), (-30.0, 20.0)])
def test_a_shift_is_found_with_its_direction(tmp_path: Path, shift_um: tuple[float, float]) -> None:
    found = laid(tmp_path, shift_um)
    assert found.best_um == pytest.approx((-shift_um[0], -shift_um[1]), abs=10)
    (fault,) = found.faults()
    assert f"shifted by {found.best_um[0]:+.0f} um in x and {found.best_um[1]:+.0f} um in y" in fault


def test_a_grid_that_was_turned_over_is_found(tmp_path: Path) -> None:
    """Bad input: mirrored grid without transform."""
    grey = (235 - 120 * GROUND).astype(np.uint8)
    x, y = GRID.place_px0(RC[:, 0], RC[:, 1])
    table = np.random.default_rng(0).poisson(2 + 40 * GROUND[np.rint(y).astype(int), np.rint(x).astype(int)])[:, None]
    mirrored = BinGrid((SIDE_PX - GRID.origin_px0[0], 100.0), (-0.5, 32.0), (32.0, 0.5), 16.0)
    counts = counts_of(table, RC, grid=mirrored)
    slide = slide_of(tmp_path, counts, pixels=np.repeat(grey[..., None], 3, axis=2))
    (fault,) = look(slide, counts).faults()
    assert "with the places mirrored left to right" in fault


def test_chance_is_no_fault(tmp_path: Path) -> None:
    """Counts that follow nothing: some shift is always best, and it is not called a fault."""
    grey = (235 - 120 * GROUND).astype(np.uint8)
    table = np.random.default_rng(1).poisson(5, (576, 1))
    counts = counts_of(table, RC, grid=GRID)
    found = look(slide_of(tmp_path, counts, pixels=np.repeat(grey[..., None], 3, axis=2)), counts)
    assert found.margin > 0
    assert not any("shifted" in fault or "mirrored" in fault for fault in found.faults())


def test_noise_does_not_hide_a_shift(tmp_path: Path) -> None:
    assert laid(tmp_path, (60.0, 0.0), noise=0.5).best_um == pytest.approx((-60, 0), abs=15)


def test_places_off_tissue_or_off_the_image_are_told(tmp_path: Path) -> None:
    counts = counts_of(np.ones((576, 1), int), RC, grid=GRID)
    tissue = np.zeros((SIDE_PX, SIDE_PX), bool)
    tissue[:200] = True
    found = look(slide_of(tmp_path, counts, tissue=tissue, size_px=(SIDE_PX, SIDE_PX)), counts)
    assert any("lie on tissue" in fault for fault in found.faults())
    assert any("the same everywhere" in fault for fault in found.faults())
    assert found.tissue_covered == pytest.approx(768 / 960 * 116 / 200, abs=0.02)
    far = replace(counts, places_px0=counts.places_px0 + 500)
    found = look(slide_of(tmp_path, far, size_px=(SIDE_PX, SIDE_PX)), far)
    assert any(f"{found.outside} of 576 places lie outside the image" in fault for fault in found.faults())
    assert 200 < found.outside < 576


def test_fine_bins_are_summed_first(tmp_path: Path) -> None:
    fine = BinGrid((100.0, 100.0), (0.0, 4.0), (4.0, 0.0), 2.0)
    rc = np.stack(np.meshgrid(np.arange(96), np.arange(96), indexing="ij"), axis=-1).reshape(-1, 2)
    x, y = fine.place_px0(rc[:, 0], rc[:, 1])
    table = np.random.default_rng(0).poisson(0.3 * GROUND[np.rint(y).astype(int), np.rint(x).astype(int)])[:, None]
    counts = counts_of(table, rc, grid=fine)
    grey = (235 - 120 * GROUND).astype(np.uint8)
    found = look(slide_of(tmp_path, counts, pixels=np.repeat(grey[..., None], 3, axis=2)), counts)
    assert found.compared == 144
    assert found.r > 0.4
    assert found.faults() == []


def test_words() -> None:
    assert lattice_words(GRID).startswith("mirrored, turned by")
    assert lattice_words(None) == "spots"
