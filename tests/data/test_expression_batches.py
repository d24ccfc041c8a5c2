"""Batches of views and expression."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.data.tiny_expression import counts_of, full_rc, settings_of, slide_of, spots_of, study_of

from lamella.data.expression_batches import ExpressionBatches, ExpressionBatchSettings, turned
from lamella.data.expression_samples import SlideSamples
from lamella.geometry import BinGrid

GENES = ("G0", "G1")
ROWS, COLUMNS = 24, 16


@dataclass(frozen=True)
class PlaceViews:
    """Two views whose features are where they were taken: row and column on the lattice, and the slide's number."""

    slide: int

    def at(self, grid: BinGrid, row_c: float, col_c: float, bins: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
        views, seen = [], []
        for tokens, step in ((bins, 1.0), (4, 4.0)):
            along = (np.arange(tokens) - (tokens - 1) / 2) * step
            row, col = np.meshgrid(row_c + along, col_c + along, indexing="ij")
            views.append(np.stack([row, col, np.full_like(row, self.slide)]).astype(np.float32))
            seen.append(row >= 0)
        return views, seen


def bins(tmp_path: Path, slides: int = 2) -> list[SlideSamples]:
    """The count of the first gene says which bin it is, and of which slide."""
    made = []
    for number in range(slides):
        rc = full_rc(ROWS, COLUMNS)
        table = np.stack([1 + rc[:, 0] * 100 + rc[:, 1] + 10_000 * number, rc[:, 0]], axis=1)
        made.append(slide_of(tmp_path, counts_of(table, rc), name=f"s{number}"))
    return [SlideSamples.of(one, study_of(*made), GENES, settings_of()) for one in made]


def spots(tmp_path: Path) -> list[SlideSamples]:
    rng, made = np.random.default_rng(0), []
    for number in range(2):
        places = rng.uniform(20, 140, (7, 2))
        table = np.stack([np.arange(7) + 10 * number, np.ones(7)], axis=1).astype(int)
        made.append(slide_of(tmp_path, spots_of(table, places, 16.0), name=f"s{number}"))
    study = study_of(*made, tile_bins=4, bin_um=4.0)
    return [SlideSamples.of(one, study, GENES, settings_of(bin_um=4.0)) for one in made]


def batches(samples: list[SlideSamples], *, shuffle: bool = False, **changes: Any) -> ExpressionBatches:
    views: Any = [PlaceViews(number) for number in range(len(samples))]
    settings = ExpressionBatchSettings(**{"batch_size": 4, **changes})
    return ExpressionBatches(samples, views, settings, 7, shuffle_labels=shuffle)


def epoch(drawn: ExpressionBatches) -> dict[str, torch.Tensor]:
    steps = [drawn.batch(step) for step in range(-(-len(drawn) // drawn.settings.batch_size))]
    return {name: torch.cat([step[name] for step in steps])[: len(drawn)] for name in steps[0]}


def expected_first_gene(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """What the first gene should be, from what the first view says of its places."""
    row, col, slide = batch["view0"].unbind(1)
    return 1 + row * 100 + col + 10_000 * slide


@pytest.mark.parametrize("centres", ["random", "cover"])
def test_views_and_labels_are_of_the_same_bins_however_they_are_turned(tmp_path: Path, centres: str) -> None:
    """mistake: swapped rows and columns; misregistered crops."""
    batch = epoch(batches(bins(tmp_path), centres=centres, batch_size=8))
    there = batch["counts"][:, 0] > 0
    assert torch.equal(batch["counts"][:, 0][there], expected_first_gene(batch)[there])
    assert torch.equal(there, batch["mask"])
    assert torch.equal(batch["library"][there], batch["counts"].sum(dim=1)[there])
    # The coarse view has the same centre, and is turned alike: its means over halves are those of the fine one.
    fine, coarse = (batch[f"view{number}"][:, :2] for number in (0, 1))
    assert fine.mean(dim=(2, 3)) == pytest.approx(coarse.mean(dim=(2, 3)))
    for axis in (2, 3):
        directions = [torch.sign(view.diff(dim=axis).mean(dim=(2, 3))) for view in (fine, coarse)]
        assert torch.equal(*directions)
    assert torch.equal(batch["seen1"], batch["view1"][:, 0] >= 0)


def test_all_eight_orientations_come(tmp_path: Path) -> None:
    drawn = batches(bins(tmp_path), batch_size=64)
    view = drawn.batch(0)["view0"][:, :2]
    down, right = (torch.sign(view.diff(dim=axis).mean(dim=(2, 3))) for axis in (2, 3))
    assert len({tuple(each.tolist()) for each in torch.cat([down, right], dim=1)}) == 8
    still = batches(bins(tmp_path), batch_size=64, augment=False).batch(0)["view0"][:, :2]
    assert (still.diff(dim=2).mean(dim=(2, 3)) == torch.tensor([1.0, 0.0])).all()


def test_the_eight_turns() -> None:
    square = np.arange(4).reshape(2, 2)
    found = [turned(square, number).ravel().tolist() for number in range(8)]
    assert len({tuple(one) for one in found}) == 8
    assert found[0] == [0, 1, 2, 3]
    assert found[4] == [1, 0, 3, 2]
    assert (turned(np.arange(24).reshape(3, 2, 4), 1)[2] == np.rot90(np.arange(16, 24).reshape(2, 4))).all()


@pytest.mark.parametrize("kind", ["bin", "spot"])
def test_a_batch_is_a_function_of_the_step(tmp_path: Path, kind: str) -> None:
    drawn = batches(bins(tmp_path) if kind == "bin" else spots(tmp_path))
    for step in (0, 3):
        first, again = drawn.batch(step), drawn.batch(step)
        assert all(torch.equal(first[name], again[name]) for name in first)
        shares = [drawn.batch(step, rank, 3) for rank in range(3)]
        assert all(torch.equal(first[name], torch.cat([share[name] for share in shares])) for name in first)
    assert not torch.equal(drawn.batch(0)["view0"], drawn.batch(1)["view0"])


def test_a_worker_draws_the_same(tmp_path: Path) -> None:
    drawn = batches(bins(tmp_path))
    for one in drawn.samples:
        object.__setattr__(one.slide, "load", None)  # a lambda of this test; files' loaders are plain functions
    again = pickle.loads(pickle.dumps(drawn))  # noqa: S301 as a worker gets it
    assert torch.equal(again.batch(2)["counts"], drawn.batch(2)["counts"])


def test_an_epoch_covers_each_tile_or_spot_once(tmp_path: Path) -> None:
    tiles = batches(bins(tmp_path), centres="cover")
    assert len(tiles) == tiles.samples_per_epoch == 12
    counts = epoch(tiles)["counts"][:, 0]
    assert sorted(counts[counts > 0].tolist()) == sorted(
        1 + row * 100 + col + 10_000 * slide for slide in range(2) for row in range(ROWS) for col in range(COLUMNS)
    )
    assert sorted(epoch(batches(spots(tmp_path)))["spots"][:, 0].tolist()) == [*range(7), *range(10, 17)]
    assert batches(bins(tmp_path), samples_per_epoch=5).samples_per_epoch == 5


def test_slides_are_drawn_by_what_is_judged_of_them(tmp_path: Path) -> None:
    small = np.zeros((160, 160), bool)
    small[:, 125:] = True  # columns 0 to 6 of 16
    rc = full_rc(ROWS, COLUMNS)
    table = np.ones((len(rc), 2), int)
    slides = [
        slide_of(tmp_path, counts_of(table, rc), name="a"),
        slide_of(tmp_path, counts_of(table, rc), name="b", tissue=small),
    ]
    samples = [SlideSamples.of(one, study_of(*slides), GENES, settings_of()) for one in slides]
    drawn = batches(samples, batch_size=400, augment=False).batch(0)["slide"].float().mean()
    share = samples[1].judged / (samples[0].judged + samples[1].judged)
    assert 0.2 < share < 0.4
    assert float(drawn) == pytest.approx(share, abs=4 * (share * (1 - share) / 400) ** 0.5)


def test_shuffled_labels_are_never_a_samples_own_and_always_the_same(tmp_path: Path) -> None:
    """The control that is trained anew: labels and views no longer go together, and nothing else changes."""
    plain = epoch(batches(bins(tmp_path), centres="cover", augment=False))
    shuffled = epoch(batches(bins(tmp_path), centres="random", augment=False, shuffle=True))
    assert torch.equal(shuffled["view0"], plain["view0"])
    matches = (shuffled["counts"][:, 0] == expected_first_gene(shuffled)).flatten(1).any(dim=1)
    assert not matches.any()
    # the labels of all tiles are still there, each once
    assert sorted(shuffled["counts"].sum(dim=(1, 2, 3)).tolist()) == sorted(plain["counts"].sum(dim=(1, 2, 3)).tolist())
    own, other = (epoch(batches(spots(tmp_path), shuffle=flag)) for flag in (False, True))
    assert torch.equal(own["view0"], other["view0"])
    assert (own["spots"][:, 0] != other["spots"][:, 0]).all()
    assert sorted(own["spots"][:, 0].tolist()) == sorted(other["spots"][:, 0].tolist())


def test_spots_bring_their_disk_and_library(tmp_path: Path) -> None:
    batch = batches(spots(tmp_path)).batch(0)
    assert batch["spots"].shape == (4, 2)
    assert batch["disk"].shape == (4, 4, 4)
    assert batch["disk"].sum(dim=(1, 2)) == pytest.approx(np.pi * 4, rel=1e-5)
    assert torch.equal(batch["library"], batch["spots"].sum(dim=1))
    assert batch["view0"].shape == (4, 3, 4, 4)


def test_slides_that_do_not_go_together(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="0 slides"):
        batches([])
    with pytest.raises(ValueError, match="differ in kind"):
        batches([bins(tmp_path)[0], spots(tmp_path)[0]])
