"""Scores in a file come back as they were."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from lamella.errors import LamellaError
from lamella.metrics.genes.judged import JudgedSlide
from lamella.metrics.genes.scores import SlideScores
from lamella.metrics.genes.scoring import score
from lamella.metrics.genes.settings import GeneMetricSettings
from lamella.verbs.expression_stages.evaluation_kept import load_scores, save_scores


def judged(slide_id: str, side: int = 24) -> JudgedSlide:
    rng = np.random.default_rng(len(slide_id))
    rc = np.argwhere(np.ones((side, side), bool)).astype(np.int32)
    rate = rng.gamma(1.0, size=(side**2, 2)).astype(np.float32)
    truth = np.concatenate([rng.poisson(rate), np.zeros((side**2, 1))], axis=1).astype(np.float32)
    return JudgedSlide(
        slide_id=slide_id,
        patient=f"of {slide_id}",
        genes=("A", "B/2", "never"),
        truth=truth,
        predicted=np.concatenate([rate, rate[:, :1]], axis=1),
        scale="counts",
        total=truth.sum(1),
        darkness=rate[:, 0],
        rc=rc,
        bin_um=8.0,
        places_um=rc.astype(np.float32) * 8,
        training_mean=rate.mean(0)[[0, 1, 1]],
    )


def test_scores_come_back_as_they_were(tmp_path: Path) -> None:
    scores = score([judged("s1"), judged("s22")], GeneMetricSettings(draws=100))
    save_scores(tmp_path / "kept.npz", scores, {"without_A": "alpha 1"})
    found, notes = load_scores(tmp_path / "kept.npz")
    assert notes == {"without_A": "alpha 1"}
    assert len(found.slides) == len(scores.slides)
    for one, two in zip(found.slides, scores.slides, strict=True):
        for name in (field.name for field in fields(SlideScores)):
            np.testing.assert_equal(getattr(one, name), getattr(two, name))
            assert type(getattr(one, name)) is type(getattr(two, name))


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "kept.npz"
    save_scores(path, score([judged("s1", side=8)], GeneMetricSettings(draws=100)), {})
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(LamellaError, match=r"kept\.npz.*cannot be read"):
        load_scores(path)
