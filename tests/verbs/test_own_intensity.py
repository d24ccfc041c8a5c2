from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.imaging.datasets.miniatures import make_medmnist

from lamella.cli import main
from lamella.config import Request, Resolved
from lamella.errors import CheckpointError
from lamella.imaging.intensity import IntensitySettings
from lamella.models.encoders import InputContract, ViTEncoder, fresh_vit
from lamella.models.hub import save_pretrained
from lamella.models.vit import ViTSettings
from lamella.verbs.embed_collection import Config
from lamella.verbs.own_intensity import intensity_facts, with_own_intensity

LUNG = IntensitySettings(name="window", window="lung")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    settings = ViTSettings(dim=16, depth=1, heads=2, patch_px=8, wave_min=8, wave_max=64)
    contract = InputContract(None, 32, (0.5,) * 3, (0.25,) * 3, patch_px=8, dim=16)
    encoder = ViTEncoder(fresh_vit(settings, 7), contract, "tiny")
    save_pretrained(encoder, tmp_path / "model", "card", facts=intensity_facts(LUNG))
    return tmp_path / "model"


def resolved(*overrides: str) -> Resolved[Config]:
    return Request("embed", overrides=overrides).resolve(Config)


def test_the_models_rule_is_taken_where_the_user_gave_none_and_it_is_said(model, capsys) -> None:
    found = with_own_intensity(resolved("view.fit=pad"), str(model))
    assert found.config.view.intensity == LUNG
    assert found.config.view.fit == "pad"
    assert found.tree()["view"]["intensity"]["window"] == "lung"
    assert found.origins["view.intensity.window"] == str(model / "config.json")
    assert "pretraining: name=window, window=lung" in capsys.readouterr().out


@pytest.mark.parametrize("given", ["view.intensity.name=auto", "view.intensity={name: percentile}"])
def test_what_the_user_gives_stands_even_if_it_is_the_default(model, given: str, capsys) -> None:
    asked = resolved(given)
    assert with_own_intensity(asked, str(model)) is asked
    assert capsys.readouterr().out == ""


def test_models_that_state_none_change_nothing_and_an_unknown_rule_is_an_error(model) -> None:
    asked = resolved()
    assert with_own_intensity(asked, "colour-stats") is asked
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"facts": {}}))
    assert with_own_intensity(asked, str(model)) is asked
    (model / "config.json").write_text(json.dumps(config | {"facts": {"intensity": {"name": "gamma"}}}))
    with pytest.raises(CheckpointError, match=r"intensity rule in its config\.json is not one of this version"):
        with_own_intensity(asked, str(model))


@pytest.mark.parametrize("verb", ["evaluate", "embed", "explain"])
def test_every_verb_that_shows_images_again_takes_it(verb: str, model: Path, tmp_path: Path, capsys) -> None:
    data = make_medmnist(tmp_path / "pneumoniamnist.npz")
    assert main([verb, str(model), str(data), "-o", str(tmp_path / "out"), "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "intensity as in the model's pretraining" in printed
    assert "window: lung" in printed
