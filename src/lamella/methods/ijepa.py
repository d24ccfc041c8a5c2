"""I-JEPA (arXiv 2301.08243): a slow average of the encoder reads the targets, and prediction is all that is asked.

It is `jepa` with `target=ema` and `regulariser=none`. Two things differ from the released code, beside the masks
(`data.masks.multiblock`). The predictor processes the context once for all targets, so context tokens do not attend to
the queries (`models.predictor` says why that is at least as sound). And every token of an image weighs the same in its
loss, and every image in the batch's, whatever the sizes of its blocks.
"""

from __future__ import annotations

from typing import Literal

from lamella.methods.prediction import Prediction, PredictionSettings
from lamella.models.encoders import InputContract


class IJepaSettings(PredictionSettings):
    """Settings of `method.name=ijepa`."""

    name: Literal["ijepa"] = "ijepa"


class IJepa(Prediction):
    """The method `ijepa`. Nothing in its loss resists collapse: see `methods.jepa`.

    Args:
        settings: Its settings.
        contract: What the images are.

    Raises:
        ConfigError: The encoder's patch or width is not the contract's.
    """

    settings: IJepaSettings

    def __init__(self, settings: IJepaSettings, contract: InputContract) -> None:
        super().__init__(settings, contract, "ema", settings.name)
