"""Settings of stage `evaluate` of `lamella expression`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from lamella.config import Settings
from lamella.engine.world import DeviceName
from lamella.metrics.genes.settings import GeneMetricSettings

Positive = Annotated[float, Field(gt=0)]


class BaselineSettings(Settings):
    """What is fitted beside the networks, on the same places and targets."""

    encoders: tuple[str, ...] = ("colour", "efficientnet")
    """Whose features the simple baselines read."""
    token_um: tuple[Positive, ...] | None = None
    """Sides of the tokens that they read, side by side; null: those of features.views."""
    texture: tuple[str, ...] = ("colour",)
    """Of these encoders also the deviation between the tokens of a spot is read, beside their mean: colour and texture.
    Deep features carry texture already, and on her2st their deviations made the ridge worse."""
    ridge: bool = True
    """Ridge regression from the mean of a place's tokens, each feature with mean 0 and deviation 1 over its slide."""
    alphas: Annotated[tuple[Positive, ...], Field(min_length=1)] = (
        1e-4,
        1e-3,
        1e-2,
        0.03,
        0.1,
        0.3,
        1,
        3,
        10,
        30,
        100,
        300,
    )
    """Penalties that are tried, for each training place; one is chosen inside training, slide by slide left out."""
    retrieval: bool = True
    """The mean of the training places that look most alike (cosine)."""
    neighbours: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (5, 10, 20, 50, 100, 200)
    """How many; one number is chosen inside training."""
    retrieval_places: Annotated[int, Field(ge=10)] = 5_000
    """Training places that are looked up, drawn at random where there are more: each is compared with each."""
    random_encoder: str | None = "efficientnet"
    """A ridge on this encoder with random weights, too: what any convolution sees of colour; null leaves it out."""
    learn_from: Literal["train_and_inner", "train"] = "train_and_inner"
    """train_and_inner: also from the slides by which the networks only choose when to stop, as a baseline needs none of
    them for that: the stronger baseline. train: from what the networks' weights are fitted to."""


class PictureSettings(Settings):
    """Maps of genes."""

    genes: tuple[str, ...] | None = None
    """Which; null: the best, the median and the worst predicted."""
    number: Annotated[int, Field(ge=0)] = 6
    """How many, where they are chosen; 0 draws none."""
    bin_um: Positive = 8.0
    """Bins smaller than this are drawn in bins of this side: nearly all of 2 um are empty."""
    slides: Annotated[int, Field(ge=1)] = 3
    """Slides that are drawn, at most; one of each patient first."""


class EvaluationSettings(Settings):
    """Settings of the stage."""

    cells: tuple[str, ...] | None = None
    """Cells of the ablation that are judged, such as base and loss=zinb; null: all that are trained."""
    seeds: Literal["together", "each", "both"] = "together"
    """A row for the mean of what a cell's seeds predict, one for each seed, or both."""
    baselines: BaselineSettings = BaselineSettings()
    metrics: GeneMetricSettings = GeneMetricSettings()
    """Resolutions, shuffles and intervals."""
    pictures: PictureSettings = PictureSettings()
    device: DeviceName = "auto"
    """Where networks and encoders run."""
