"""The encoder that is asked for, or an error: nothing is taken in its stead."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lamella.errors import LamellaError
from lamella.models.encoders import InputContract, ViTEncoder, fresh_vit
from lamella.models.hub import model_card, save_pretrained
from lamella.models.pyramids.any_encoder import EncoderGrid
from lamella.models.pyramids.colour import ColourPyramid
from lamella.models.pyramids.efficientnet import EfficientNetPyramid
from lamella.models.vit import ViTSettings
from lamella.verbs.expression_stages.feature_encoder import backbone_at, encoder_name, feature_backbone
from lamella.verbs.expression_stages.feature_settings import FeatureSettings


def images() -> torch.Tensor:
    return torch.randint(0, 256, (1, 3, 64, 64), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


@pytest.fixture
def own_folder(tmp_path: Path) -> Path:
    contract = InputContract(0.5, 32, (0.5,) * 3, (0.25,) * 3, patch_px=8, dim=16)
    encoder = ViTEncoder(fresh_vit(ViTSettings(patch_px=8, dim=16, depth=1, heads=2), seed=0), contract, "own")
    facts = {"name": "own", "licence": "none", "data": "none", "limits": [], "contract": contract}
    save_pretrained(encoder, tmp_path / "own", model_card(facts))
    return tmp_path / "own"


def test_each_kind_is_built_frozen_and_in_eval_mode(own_folder: Path) -> None:
    for spec, kind in (
        ("colour", ColourPyramid),
        ("efficientnet", EfficientNetPyramid),
        (str(own_folder), EncoderGrid),
    ):
        backbone = feature_backbone(FeatureSettings(encoder=spec))
        assert isinstance(backbone, kind)
        assert not backbone.training
        assert not any(each.requires_grad for each in backbone.parameters())


def test_an_own_encoder_places_its_patches_by_the_spacing_it_is_shown(own_folder: Path) -> None:
    backbone = feature_backbone(FeatureSettings(encoder=str(own_folder)))
    one, other = (backbone_at(backbone, mpp)(images())[0] for mpp in (0.5, 4.0))
    assert one.shape == (1, 16, 8, 8)
    assert not torch.allclose(one, other)
    colour = feature_backbone(FeatureSettings(encoder="colour"))
    assert backbone_at(colour, 4.0) is colour


@pytest.mark.parametrize("which", ["efficientnet", "own"])
def test_random_weights_are_those_of_their_seed_and_not_the_trained_ones(which: str, own_folder: Path) -> None:
    spec = str(own_folder) if which == "own" else which
    state = torch.get_rng_state()
    features = [
        feature_backbone(FeatureSettings(encoder=spec, random_seed=seed))(images())[-1] for seed in (None, 1, 1, 2)
    ]
    assert torch.equal(features[1], features[2])
    assert not torch.allclose(features[0], features[1])
    assert not torch.allclose(features[1], features[3])
    assert torch.equal(torch.get_rng_state(), state)


def test_names_do_not_claim_weights_that_are_not_there() -> None:
    assert encoder_name(FeatureSettings(encoder="efficientnet")) == "efficientnet"
    assert encoder_name(FeatureSettings(encoder="efficientnet", random_seed=3)) == "efficientnet-random3"
    assert encoder_name(FeatureSettings(encoder="models/own/")) == "own"
    assert encoder_name(FeatureSettings(encoder="phikon-v2@/weights/of/it")) == "phikon-v2"


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("eficientnet-lite0", "Did you mean efficientnet-lite0"),
        ("conch-v1.5", "Lamella cannot build it"),
        ("colour-stats", "no patch tokens"),
        ("phikon-v2@/no/such/folder", "no such folder"),
        ("sam2-hiera-tiny@/no/such/file.safetensors", "features.encoder=sam2"),
    ],
)
def test_what_is_not_to_be_had_is_refused(spec: str, said: str) -> None:
    """mistakes: a silent fall-back to another model; a wrong encoder behind a name."""
    with pytest.raises(LamellaError, match=said) as caught:
        feature_backbone(FeatureSettings(encoder=spec))
    assert "Nothing is taken in its stead" in str(caught.value)


def test_colours_have_no_random_control() -> None:
    with pytest.raises(LamellaError, match=r"no weights to draw at random.*features\.encoder=efficientnet"):
        feature_backbone(FeatureSettings(encoder="colour", random_seed=0))
