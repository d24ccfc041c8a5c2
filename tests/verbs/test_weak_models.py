"""Weakly taught models by the folders that training leaves: one, or the mean of folds and seeds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.models.tiny_weak import prototypes, tiles, tiny_weak

from lamella.dense.ensemble import Ensemble
from lamella.errors import CheckpointError, LamellaError
from lamella.models.weak_hub import save_weak
from lamella.verbs.prediction import load_dense, weak_models_in

PARTS = {
    "folds": ("fold0", "fold2", "fold10"),
    "seeds": ("seed0", "seed1"),
    "folds and seeds": ("fold0_seed0", "fold0_seed1", "fold1_seed0"),
}


def save(folder: Path, **settings: object) -> None:
    save_weak(tiny_weak(**settings), folder, "# card", record=None)  # type: ignore[arg-type]


@pytest.mark.parametrize("parts", PARTS)
def test_the_parts_of_a_training_are_averaged_in_the_order_of_their_numbers(parts: str, tmp_path: Path) -> None:
    for name in PARTS[parts]:
        save(tmp_path / "training" / name / "model")
        save(tmp_path / "training" / name / "latest")  # what training goes on from is none of the models
    found = weak_models_in(tmp_path / "training")
    assert [each.parent.name for each in found] == list(PARTS[parts])
    ensemble = load_dense(str(tmp_path / "training"))
    assert isinstance(ensemble, Ensemble)
    assert len(ensemble.members) == len(PARTS[parts])
    assert ensemble.name == f"training ({len(PARTS[parts])} models)"
    assert torch.allclose(ensemble.maps(tiles()), tiny_weak().maps(tiles()), atol=1e-6)


def test_a_model_is_found_by_itself_and_in_its_run(tmp_path: Path) -> None:
    save(tmp_path / "run" / "model")
    for spec in (tmp_path / "run", tmp_path / "run" / "model"):
        assert load_dense(str(spec)).fingerprint == tiny_weak().fingerprint


def test_models_of_other_classes_are_not_averaged(tmp_path: Path) -> None:
    save(tmp_path / "fold0" / "model")
    save(tmp_path / "fold1" / "model", told=prototypes(("tumour", "stroma"), (1, 1)), background=None)
    with pytest.raises(LamellaError, match="cannot be averaged"):
        load_dense(str(tmp_path))


def test_what_is_no_model_is_told(tmp_path: Path) -> None:
    assert weak_models_in(tmp_path) == ()
    with pytest.raises(CheckpointError, match=r"no config.json"):
        load_dense(str(tmp_path))
