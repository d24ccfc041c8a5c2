import json
from dataclasses import replace

import pytest
import torch

from lamella.models.encoders import random_twin
from lamella.models.vit import ViT
from lamella.models.volume_encoder import VolumeContract, VolumeEncoder
from lamella.models.volume_vit import FilmViTSettings, VolumeViTSettings, film_spacing, patchify3d, token_places

PATCH = (2, 4, 4)
VIT = {"dim": 24, "depth": 2, "heads": 2, "patch": PATCH}
VOLUME = VolumeContract(
    kind="volume",
    channels=2,
    size=(8, 16, 16),
    patch=PATCH,
    dim=24,
    spacing_mm=(3.0, 1.0, 1.0),
    intensity={"name": "window", "window": [40.0, 400.0]},
)
VIDEO = VolumeContract("video", 3, (4, 16, 16), PATCH, 24, mean=(0.2, 0.3, 0.4), std=(0.1, 0.2, 0.3))


def volume_encoder(contract: VolumeContract = VOLUME, seed: int = 0) -> VolumeEncoder:
    torch.manual_seed(seed)
    return VolumeEncoder(ViT(VolumeViTSettings(channels=contract.channels, **VIT)), contract, "volume")


def film_encoder() -> VolumeEncoder:
    torch.manual_seed(0)
    return VolumeEncoder(ViT(FilmViTSettings(**VIT)), VIDEO, "video")


def volumes(size=(8, 16, 16), channels=2) -> torch.Tensor:
    return torch.randn(2, channels, *size, generator=torch.Generator().manual_seed(1))


def films(size=(4, 16, 16)) -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_volumes_of_any_whole_size_become_tokens_and_features():
    encoder = volume_encoder()
    tokens = encoder.tokens(volumes((4, 8, 16)))
    assert tokens.shape == (2, 2 * 2 * 4, 24)
    torch.testing.assert_close(encoder.pooled(volumes((4, 8, 16))), tokens.mean(1))
    assert not tokens.requires_grad
    assert not encoder.training


def test_films_are_normalised_inside():
    encoder, clip = film_encoder(), films()
    by_hand = (clip / 255 - torch.tensor(VIDEO.mean)[:, None, None, None]) / torch.tensor(VIDEO.std)[
        :, None, None, None
    ]
    places = token_places((2, 4, 4), PATCH, film_spacing(PATCH))[None]
    torch.testing.assert_close(
        encoder.tokens(clip), encoder.vit(patchify3d(by_hand, PATCH), places), atol=1e-5, rtol=1e-5
    )


def test_positions_are_millimetres_so_another_spacing_is_another_place():
    encoder, values = volume_encoder(), volumes()
    torch.testing.assert_close(encoder.tokens(values, (3.0, 1.0, 1.0)), encoder.tokens(values))
    assert (encoder.tokens(values, (9.0, 1.0, 1.0)) - encoder.tokens(values)).abs().max() > 1e-3
    both = encoder.tokens(values, torch.tensor([[3.0, 1.0, 1.0], [9.0, 1.0, 1.0]]))
    torch.testing.assert_close(both[:1], encoder.tokens(values[:1]))
    torch.testing.assert_close(both[1:], encoder.tokens(values[1:], (9.0, 1.0, 1.0)))


def test_a_place_depends_on_millimetres_alone():
    """The same block of tissue in patches of as many millimetres lies at the same place, whatever the voxels."""
    fine = volume_encoder(replace(VOLUME, spacing_mm=(1.5, 0.5, 0.5))).patches_and_places(volumes((8, 16, 16)))[1]
    coarse = volume_encoder().patches_and_places(volumes((8, 16, 16)))[1]
    torch.testing.assert_close(2 * fine, coarse)


def test_volumes_without_a_common_spacing_must_say_theirs():
    encoder = volume_encoder(replace(VOLUME, spacing_mm=None))
    with pytest.raises(ValueError, match="spacing_mm"):
        encoder.tokens(volumes())
    torch.testing.assert_close(encoder.tokens(volumes(), (3.0, 1.0, 1.0)), volume_encoder().tokens(volumes()))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (volumes(channels=1), r"float32 \(B, 2, Z, Y, X\)"),
        (volumes()[0], "float32"),
        (volumes().double(), "float32"),
        (volumes((8, 16, 18)), "whole patches"),
        (volumes((7, 16, 16)), "whole patches"),
    ],
    ids=["channels", "no batch", "doubles", "columns", "slices"],
)
def test_what_it_was_not_made_for_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        volume_encoder().tokens(values)


def test_floats_are_no_film():
    with pytest.raises(ValueError, match="uint8"):
        film_encoder().tokens(films().float())


def test_the_tree_survives_json_and_builds_the_same_architecture():
    for encoder in (volume_encoder(), film_encoder()):
        tree = json.loads(json.dumps(encoder.settings_tree()))
        built = VolumeEncoder.build(tree, encoder.name)
        built.vit.load_state_dict(encoder.vit.state_dict())
        assert built.fingerprint == encoder.fingerprint
        assert built.contract == VolumeContract.of(json.loads(json.dumps(encoder.contract.facts())))
        values = volumes() if encoder.contract.kind == "volume" else films()
        torch.testing.assert_close(built.pooled(values), encoder.pooled(values), atol=0, rtol=0)


def test_the_fingerprint_tells_weights_and_contract_apart():
    first = volume_encoder()
    assert first.fingerprint == volume_encoder().fingerprint
    assert first.fingerprint != volume_encoder(seed=1).fingerprint
    assert first.fingerprint != volume_encoder(replace(VOLUME, spacing_mm=(3.0, 1.0, 1.1))).fingerprint


def test_a_random_twin_is_seeded_and_leaves_the_random_state_alone():
    encoder = volume_encoder()
    state = torch.random.get_rng_state()
    twin = random_twin(encoder, seed=3)
    torch.testing.assert_close(torch.random.get_rng_state(), state)
    assert twin.fingerprint == encoder.random_twin(3).fingerprint != encoder.fingerprint
    assert twin.contract == encoder.contract
    assert twin.name == "volume-random"


def test_attention_can_be_asked_for():
    encoder = film_encoder()
    maps = list(encoder.vit.attentions(*encoder.patches_and_places(films())))
    assert [each.shape for each in maps] == [(2, 2, 32, 32)] * 2
    torch.testing.assert_close(maps[-1].sum(-1), torch.ones(2, 2, 32))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean": (0.1, 0.1), "std": (0.1, 0.1)}, "volumes are normalised before"),
        ({"spacing_mm": (0.0, 1.0, 1.0)}, "spacing_mm"),
        ({"size": (7, 16, 16)}, "whole patches"),
        ({"kind": "video", "spacing_mm": None}, "mean and a std"),
        ({"kind": "video", "mean": (0.1, 0.1), "std": (0.1,)}, "mean and a std"),
        ({"kind": "video", "mean": (0.1, 0.1), "std": (0.1, 0.1)}, "None for films"),
        ({"kind": "video", "mean": (0.1, 0.1), "std": (0.1, 0.0), "spacing_mm": None}, "std must be positive"),
    ],
)
def test_contracts_that_contradict_themselves_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(VOLUME, **change)


def test_the_contract_must_be_the_networks():
    with pytest.raises(ValueError, match="must be the network's"):
        VolumeEncoder(ViT(VolumeViTSettings(channels=1, **VIT)), VOLUME, "volume")


def test_the_model_card_says_what_to_feed():
    assert VOLUME.described()["spacing"] == "3 x 1 x 1 mm (z, y, x)"
    assert "window" in VOLUME.described()["intensity"]
    assert VIDEO.described()["clip"].startswith("4 x 16 x 16 frames")
    assert "uint8" in VIDEO.usage
    assert "float32" in VOLUME.usage
