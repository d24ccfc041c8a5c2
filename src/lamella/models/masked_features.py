"""Features of parts of an image, with a gradient to the mask: an encoder sees the part, and grey where the rest was.

Encoders take whole uint8 images and normalise them inside. A mask between 0 and 1 has to act behind that: normalised
pixels are multiplied by it, so that what is left out has the mean colour that the encoder knows as nothing.

Shapes: N images, C = 3 channels, Y, X pixels, F width of a feature.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lamella.errors import LamellaError
from lamella.models.contract import Encoder, check_images
from lamella.models.encoders import ViTEncoder
from lamella.models.pretrained import PretrainedEncoder, pool
from lamella.models.vit import patchify, token_centres_um


def masked_features(encoder: Encoder, images: Tensor, weights_NYX: Tensor, mpp: float | None = None) -> Tensor:
    """The encoder's pooled features of weighted images; gradients flow to the weights, none to the encoder.

    With weights of 1 everywhere they are `encoder.pooled(images)`.

    Args:
        encoder: Of this package's own, or of the registry; see `check_masking`.
        images: uint8 (N, 3, Y, X), whole patches.
        weights_NYX: 0 to 1.
        mpp: Micrometres per pixel of the images.

    Returns:
        (N, F) float32.
    """
    check_images(images)
    weights_N1YX = weights_NYX[:, None]
    if isinstance(encoder, PretrainedEncoder):
        x_NCYX = (images.float() - encoder.mean_C11) / encoder.std_C11 * weights_N1YX
        return pool(encoder.trunk(x_NCYX), encoder.entry)
    if not isinstance(encoder, ViTEncoder):
        raise _no_gradient(encoder)
    vit = encoder
    patch_px = vit.contract.patch_px
    rows, columns = images.shape[-2] // patch_px, images.shape[-1] // patch_px
    pixel = 1.0 if vit.contract.mpp is None else mpp or vit.contract.mpp
    places_N2 = token_centres_um(rows, columns, patch_px * pixel, images.device)
    patches = vit.normalise(patchify(images, patch_px)) * patchify(weights_N1YX.expand(-1, 3, -1, -1), patch_px)
    return vit.vit(patches, places_N2[None]).float().mean(1)


def check_masking(encoder: Encoder) -> None:
    """Refuse an encoder that a mask cannot act in.

    Raises:
        LamellaError: It has no gradient, such as statistics of colours.
    """
    if not isinstance(encoder, ViTEncoder | PretrainedEncoder):
        raise _no_gradient(encoder)


def _no_gradient(encoder: Encoder) -> LamellaError:
    return LamellaError(
        encoder.name,
        "a mask has no gradient through it, so the contrast cannot be taught by what it sees",
        "Set train.method.loss.contrast.features=pooled, or make the prototypes with a network.",
    )


def resized(images: Tensor, weights_NYX: Tensor, side_px: int) -> tuple[Tensor, Tensor]:
    """Images (uint8, antialiased) and weights (bilinear) at another side."""
    if images.shape[-1] != side_px or images.shape[-2] != side_px:
        small = F.interpolate(images.float(), (side_px, side_px), mode="bilinear", antialias=True)
        images = small.add(0.5).clamp(0, 255).to(torch.uint8)
    if weights_NYX.shape[-1] != side_px or weights_NYX.shape[-2] != side_px:
        weights_NYX = F.interpolate(weights_NYX[:, None], (side_px, side_px), mode="bilinear")[:, 0]
    return images, weights_NYX
