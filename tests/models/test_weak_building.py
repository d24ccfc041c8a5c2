"""What weakly taught models are made of, and what is refused."""

from __future__ import annotations

import pytest
import torch
from tests.models.tiny_weak import CLASSES, prototypes, tiles, tiny_weak

from lamella.errors import CheckpointError, LamellaError
from lamella.models.prototype_segmenter import last_weights
from lamella.models.weak_building import make_trainable, make_weak_model
from lamella.models.weak_settings import WeakModelSettings


@pytest.mark.parametrize("name", ["segformer", "swin"])
def test_random_weights_are_never_taken_silently(name: str) -> None:
    """Mistake of the source: without the backbone's weights it printed a warning and trained a random one."""
    settings = WeakModelSettings.model_validate({"backbone": {"name": name}})
    with pytest.raises(CheckpointError, match=r"no weights to begin with.*from_scratch: true"):
        make_weak_model(settings, prototypes(), classes=CLASSES, background="background", mpp=0.5, tile_px=64)


def test_the_default_backbone_has_real_weights() -> None:
    settings = WeakModelSettings()
    made = [
        make_weak_model(
            settings, prototypes(), classes=CLASSES, background="background", mpp=0.5, tile_px=64, seed=seed
        )
        for seed in (0, 0, 1)
    ]
    assert made[0].backbone.kind == "efficientnet"
    assert made[0].fingerprint == made[1].fingerprint
    assert made[0].fingerprint != made[2].fingerprint
    for one, other in zip(made[0].backbone.parameters(), made[2].backbone.parameters(), strict=True):
        assert torch.equal(one, other)
        assert not one.requires_grad


def test_making_a_model_leaves_the_random_state_alone() -> None:
    before = torch.get_rng_state()
    tiny_weak()
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("dim", [1, 768, 1280])
def test_prototypes_of_any_dimension(dim: int) -> None:
    """Mistake of the source: 512 dimensions were written into the network."""
    assert tiny_weak(prototypes(dim=dim)).maps(tiles()).isfinite().all()


def test_one_prototype_of_each_class() -> None:
    """Mistake of the source: k = 1 crashed."""
    assert tiny_weak(prototypes(k_list=(1, 1, 1))).maps(tiles()).isfinite().all()


@pytest.mark.parametrize(
    ("told", "settings", "match"),
    [
        (prototypes(("stroma", "tumour"), (1, 1)), {}, "Make the prototypes again"),
        (prototypes(CLASSES, (1, 1)), {"background_score": "prototypes"}, "no prototypes of background"),
        (prototypes(), {"scores": "linear", "background_score": "prototypes"}, "a linear classifier"),
        (prototypes(), {"fuse": (1, 1)}, r"cannot weigh the backbone's 4 levels"),
        (prototypes(), {"fuse": (0, 0, 0, 0)}, "not all of them 0"),
    ],
)
def test_what_does_not_agree_is_refused(told: object, settings: dict[str, object], match: str) -> None:
    with pytest.raises(LamellaError, match=match):
        tiny_weak(told, **settings)  # type: ignore[arg-type]


def test_no_prototypes_and_tiles_that_do_not_fit_are_refused() -> None:
    settings = WeakModelSettings()
    with pytest.raises(LamellaError, match="there are none"):
        make_weak_model(settings, None, classes=CLASSES, background=None, mpp=0.5, tile_px=64)
    with pytest.raises(LamellaError, match="no multiple of the backbone's 32"):
        make_weak_model(settings, prototypes(), classes=CLASSES, background="background", mpp=0.5, tile_px=100)


def test_a_plain_classifier_needs_no_prototypes() -> None:
    model = make_weak_model(
        WeakModelSettings(scores="linear"), None, classes=CLASSES, background="background", mpp=0.5, tile_px=64
    )
    assert model.scored == CLASSES
    assert model.maps(tiles()).shape == (2, 3, 64, 64)


@pytest.mark.parametrize(("train", "expected"), [("frozen", False), ("whole", True)])
def test_a_loaded_model_learns_on_where_its_settings_say_so(train: str, expected: bool) -> None:
    model = tiny_weak().requires_grad_(False)
    settings = WeakModelSettings.model_validate(
        {"backbone": {"name": "segformer", "train": train}, "from_scratch": True}
    )
    make_trainable(model, settings)
    assert all(each.requires_grad for each in model.scores.parameters())
    assert any(each.requires_grad for each in model.backbone.parameters()) == expected


def test_low_rank_updates_alone_are_trained() -> None:
    model = make_trainable(
        tiny_weak(),
        WeakModelSettings.model_validate({"backbone": {"name": "segformer", "train": "lora"}, "from_scratch": True}),
    )
    names = [name for name, each in model.backbone.named_parameters() if each.requires_grad]
    assert names
    assert all("lora_" in name for name in names)


def test_weights_for_fewer_levels_are_the_last_ones() -> None:
    assert last_weights((0.0, 0.1, 1.0, 1.0), 4) == (0.0, 0.1, 1.0, 1.0)
    assert last_weights((0.0, 0.1, 1.0, 1.0), 1) == (1.0,)
