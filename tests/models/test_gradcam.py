"""GradCAM: of a linear classifier it is the class activation map, up to the number of places."""

from __future__ import annotations

import torch
from tests.models.gradcam import GradCam, gradcam, gradcam_logits
from tests.models.tiny_weak import tiles, tiny_weak

from lamella.models.dense_contract import DenseModel


def level() -> torch.Tensor:
    return torch.randn(2, 5, 4, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()


def test_of_a_linear_classifier_of_the_mean_it_is_the_class_activation_map() -> None:
    x, weights, bias = level(), torch.randn(3, 5, generator=torch.Generator().manual_seed(1)), torch.tensor(0.7)
    logits = x.mean((2, 3)) @ weights.T + bias
    cam = torch.einsum("mc,bchw->bmhw", weights, x.detach())
    assert torch.allclose(gradcam(x, logits), cam.relu() / 12, atol=1e-6)
    assert torch.allclose(gradcam_logits(x, logits), cam + bias, atol=1e-5)


def test_the_logits_of_places_have_the_tiles_logit_as_their_mean() -> None:
    x = level()
    logits = torch.stack([x.square().mean((1, 2, 3)), x.amax((1, 2, 3))], dim=1)
    assert torch.allclose(gradcam_logits(x, logits).mean((2, 3)), logits, atol=1e-5)


def test_channels_count_by_the_mean_of_their_slopes() -> None:
    """The paper's definition, for a function that is not linear: y = the sum over channels of (mean of a channel)^3."""
    x = level()
    means = x.mean((2, 3))
    alpha = 3 * means.detach() ** 2 / 12
    expected = torch.einsum("bc,bchw->bhw", alpha, x.detach()).relu()
    assert torch.allclose(gradcam(x, (means**3).sum(1, keepdim=True))[:, 0], expected, atol=1e-6)


def test_gradcam_of_a_plain_classifier_labels_pixels_as_its_own_maps_do() -> None:
    model = tiny_weak(scores="linear")
    wrapped = GradCam(model)
    assert isinstance(wrapped, DenseModel)
    assert torch.allclose(wrapped.maps(tiles()), model.maps(tiles()), atol=1e-4)
    assert wrapped.fingerprint != model.fingerprint


def test_gradcam_of_prototypes_sees_every_scored_class_and_wants_no_gradient_from_outside() -> None:
    model = tiny_weak().requires_grad_(False)
    with torch.no_grad():
        maps = GradCam(model, level=2).maps(tiles(2, 64, 96))
    assert maps.shape == (2, 3, 64, 96)
    assert not maps.requires_grad
    assert torch.allclose(maps.sum(1), torch.ones(2, 64, 96), atol=1e-5)
