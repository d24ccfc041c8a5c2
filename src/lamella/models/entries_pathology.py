"""Encoders trained on pathology slides, and PLIP on pathology pictures."""

from __future__ import annotations

from typing import Any

from lamella.models.entries_general import CLIP_MEAN, CLIP_STD, HALF, IMAGENET_MEAN, IMAGENET_STD
from lamella.models.registry import EncoderEntry

_OPTIMUS_MEAN, _OPTIMUS_STD = (0.707223, 0.578729, 0.703617), (0.211883, 0.230117, 0.177517)
_ALL_MPP = (0.5, 0.25, 1.0, 2.0)  # 20x, 40x, 10x, 5x
_SWIGLU = {"mlp_layer": "SwiGLUPacked", "act_layer": "SiLU"}
_TRIDENT = "TRIDENT load.py and README at 0120b8b"


def _owkin(name: str, architecture: str, dim: int, reference: str) -> EncoderEntry:
    return EncoderEntry(
        name=name,
        source="transformers",
        hub_id=f"owkin/{name}",
        architecture=architecture,
        dim=dim,
        token_dim=dim,
        prefix_tokens=1,
        patch_px=16,
        size_px=224,
        mpp=(0.5,),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        pooling="cls",
        licence="Owkin, non-commercial",
        gated=False,
        reference=reference,
        checked=f"{_TRIDENT}; slide2vec models/phikon.py; hub page of owkin/phikon-v2",
    )


def _timm(name: str, hub_id: str, architecture: str, **facts: Any) -> EncoderEntry:
    """A vision transformer of timm, at 20x and 224 px unless said otherwise."""
    kwargs = {"num_classes": 0, "img_size": 224, "dynamic_img_size": True, **facts.pop("timm_kwargs")}
    usual: dict[str, Any] = {
        "token_dim": facts["dim"],
        "prefix_tokens": 1,
        "patch_px": 14,
        "size_px": 224,
        "mpp": (0.5,),
        "mean": IMAGENET_MEAN,
        "std": IMAGENET_STD,
        "pooling": "cls",
        "gated": True,
        "checked": _TRIDENT,
    }
    entry = {**usual, **facts}
    return EncoderEntry(
        name=name, source="timm", hub_id=hub_id, architecture=architecture, timm_kwargs=kwargs, **entry
    )  # fmt: skip


def _virchow(name: str, hub_id: str, registers: int, **facts: Any) -> EncoderEntry:
    """ViT-H/14 whose feature is the class token beside the mean patch token: 2 x 1280."""
    own = {"init_values": 1e-5, "mlp_ratio": 5.3375, "global_pool": "", **_SWIGLU}
    return _timm(
        name,
        hub_id,
        "vit_huge_patch14_224",
        dim=2560,
        token_dim=1280,
        prefix_tokens=1 + registers,
        pooling="cls+mean",
        timm_kwargs={**own, "reg_tokens": registers},
        **facts,
    )


def _optimus(version: int, **facts: Any) -> EncoderEntry:
    return _timm(
        f"h-optimus-{version}",
        f"bioptimus/H-optimus-{version}",
        "vit_giant_patch14_reg4_dinov2",
        dim=1536,
        prefix_tokens=5,
        mean=_OPTIMUS_MEAN,
        std=_OPTIMUS_STD,
        timm_kwargs={"init_values": 1e-5, "global_pool": "token"},
        **facts,
    )


def _kaiko(size: str, patch_px: int, dim: int) -> EncoderEntry:
    kind = {"s": "small", "b": "base", "l": "large"}[size]
    registers = 4 if size == "l" else 0
    model = f"vit_{kind}_patch{patch_px}_" + ("reg4_dinov2" if registers else "224")
    return _timm(
        f"kaiko-vit{size}{patch_px}",
        f"1aurent/{model}.kaiko_ai_towards_large_pathology_fms",
        model,
        dim=dim,
        prefix_tokens=1 + registers,
        patch_px=patch_px,
        mpp=_ALL_MPP,
        mean=HALF,
        std=HALF,
        # The large one's positions are of 518 px; other sizes are interpolated from them.
        timm_kwargs={"img_size": 518} if registers else {},
        licence="kaiko, non-commercial",
        gated=False,
        reference="https://arxiv.org/abs/2404.15217",
        checked=f"{_TRIDENT}; hub pages of 1aurent/vit_*.kaiko_ai_*; slide2vec",
        unverified=("mpp: the paper trains at several; these are those of its successor Midnight",),
    )


def _authors(name: str, hub_id: str, architecture: str, needs: str, **facts: Any) -> EncoderEntry:
    return EncoderEntry(
        name=name,
        source="authors",
        hub_id=hub_id,
        architecture=architecture,
        prefix_tokens=1,
        patch_px=16,
        size_px=448,
        mpp=(0.5,),
        pooling="attention",
        licence="cc-by-nc-nd-4.0",
        gated=True,
        checked=f"{_TRIDENT}; slide2vec models/conch.py",
        needs=needs,
        **facts,
    )


PATHOLOGY = (
    _owkin("phikon", "ViTModel", 768, "https://doi.org/10.1101/2023.07.21.23292757"),
    _owkin("phikon-v2", "Dinov2Model", 1024, "https://arxiv.org/abs/2409.09173"),
    EncoderEntry(
        name="midnight-12k",
        source="transformers",
        hub_id="kaiko-ai/midnight",
        architecture="Dinov2Model",
        dim=3072,
        token_dim=1536,
        prefix_tokens=1,
        patch_px=14,
        size_px=224,
        mpp=_ALL_MPP,
        mean=HALF,
        std=HALF,
        pooling="cls+mean",
        licence="mit",
        gated=False,
        reference="https://arxiv.org/abs/2504.05186",
        checked=f"model card of kaiko-ai/midnight; {_TRIDENT}; slide2vec models/midnight.py",
        card_wins=True,
    ),
    EncoderEntry(
        name="plip",
        source="transformers",
        hub_id="vinid/plip",
        architecture="CLIPVisionModelWithProjection",
        dim=512,
        token_dim=768,
        prefix_tokens=1,
        patch_px=32,
        size_px=224,
        mpp=(),  # pictures from social media, of any magnification
        mean=CLIP_MEAN,
        std=CLIP_STD,
        pooling="projection",
        licence="not stated; treat it as non-commercial",
        gated=False,
        reference="https://doi.org/10.1038/s41591-023-02504-3",
        checked="lazyslide-models multimodal/plip.py (dim, class)",
        unverified=(
            "licence: its page was not seen; lazyslide-models says non-commercial",
            "patch: that of CLIP ViT-B/32",
        ),
    ),
    _timm(
        "uni",
        "MahmoodLab/UNI",
        "vit_large_patch16_224",
        dim=1024,
        patch_px=16,
        timm_kwargs={"init_values": 1e-5},
        licence="cc-by-nc-nd-4.0",
        reference="https://doi.org/10.1038/s41591-024-02857-3",
        checked=f"model card of MahmoodLab/UNI; {_TRIDENT}",
    ),
    _timm(
        "uni2-h",
        "MahmoodLab/UNI2-h",
        "vit_giant_patch14_224",
        dim=1536,
        prefix_tokens=9,
        timm_kwargs={
            "patch_size": 14,
            "depth": 24,
            "num_heads": 24,
            "init_values": 1e-5,
            "embed_dim": 1536,
            "mlp_ratio": 2.66667 * 2,
            "no_embed_class": True,
            "reg_tokens": 8,
            **_SWIGLU,
        },
        licence="cc-by-nc-nd-4.0",
        reference="https://huggingface.co/MahmoodLab/UNI2-h",
        checked=f"model card of MahmoodLab/UNI2-h; {_TRIDENT}; slide2vec models/uni.py",
    ),
    _virchow(
        "virchow",
        "paige-ai/Virchow",
        0,
        licence="apache-2.0",
        reference="https://doi.org/10.1038/s41591-024-03141-0",
        checked=f"model card of paige-ai/Virchow; {_TRIDENT}; slide2vec models/virchow.py",
    ),
    _virchow(
        "virchow2",
        "paige-ai/Virchow2",
        4,
        mpp=_ALL_MPP,
        licence="cc-by-nc-nd-4.0",
        reference="https://arxiv.org/abs/2408.00738",
        checked=f"hub page of paige-ai/Virchow2; {_TRIDENT}; slide2vec models/virchow.py",
    ),
    _timm(
        "prov-gigapath",
        "prov-gigapath/prov-gigapath",
        "vit_giant_patch14_dinov2",
        dim=1536,
        patch_px=16,
        # The authors cut 256 px at 0.5 um per pixel and show the middle 224 px: 224 px at 0.5 is the same view.
        timm_kwargs={"patch_size": 16, "embed_dim": 1536, "depth": 40, "num_heads": 24, "mlp_ratio": 5.33334},
        licence="apache-2.0",
        reference="https://doi.org/10.1038/s41586-024-07441-w",
        checked=f"hub page of prov-gigapath/prov-gigapath; {_TRIDENT}; slide2vec models/gigapath.py",
        unverified=("licence: the hub page once said prov-gigapath-license; TRIDENT says apache-2.0",),
    ),
    _optimus(
        0,
        licence="apache-2.0",
        reference="https://github.com/bioptimus/releases/tree/main/models/h-optimus/v0",
        checked=f"model card and config.json of bioptimus/H-optimus-0; {_TRIDENT}",
        unverified=("gating: TRIDENT says gated, the stored model card does not",),
    ),
    _optimus(
        1,
        licence="cc-by-nc-nd-4.0",
        reference="https://huggingface.co/bioptimus/H-optimus-1",
        checked=f"{_TRIDENT}; lazyslide-models vision/h_optimus.py; slide2vec models/hoptimus.py",
    ),
    _timm(
        "h0-mini",
        "bioptimus/H0-mini",
        "vit_base_patch14_reg4_dinov2",
        dim=1536,
        token_dim=768,
        prefix_tokens=5,
        mean=_OPTIMUS_MEAN,
        std=_OPTIMUS_STD,
        pooling="cls+mean",
        timm_kwargs={"init_values": 1e-5, "global_pool": "", "mlp_ratio": 2.66667 * 2, **_SWIGLU},
        licence="cc-by-nc-nd-4.0",
        reference="https://arxiv.org/abs/2501.16239",
        checked=f"{_TRIDENT}; lazyslide-models vision/h_optimus.py; slide2vec models/hoptimus.py; Bioptimus SDK page",
        unverified=(
            "architecture, registers and mlp_ratio: deduced from 85.7 M parameters and from H-optimus-0, which it was "
            "distilled from; other weights are refused at load",
        ),
    ),
    _kaiko("s", 16, 384),
    _kaiko("s", 8, 384),
    _kaiko("b", 16, 768),
    _kaiko("b", 8, 768),
    _kaiko("l", 14, 1024),
    _authors(
        "conch",
        "MahmoodLab/CONCH",
        "conch_ViT-B-16",
        "the package `conch` (pip install git+https://github.com/Mahmoodlab/CONCH.git): an attentional pooler follows "
        "the timm trunk, and its code is only there",
        dim=512,
        token_dim=768,
        mean=CLIP_MEAN,
        std=CLIP_STD,
        reference="https://doi.org/10.1038/s41591-024-02856-4",
        unverified=("mean and std: slide2vec reads them from the package as OpenAI's",),
    ),
    _authors(
        "conch-v1.5",
        "MahmoodLab/conchv1_5",
        "TITAN's conch_v1_5",
        "the remote code in MahmoodLab/TITAN (`return_conch()` of its model) or TRIDENT's copy of it: an attentional "
        "pooler follows the timm trunk, and its code is only there",
        dim=768,
        token_dim=1024,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        reference="https://arxiv.org/abs/2411.19666",
        unverified=("token width: that of a ViT-L trunk, not seen in a file",),
    ),
)
