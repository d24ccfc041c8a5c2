"""Segmenters of a few thousand random weights."""

from __future__ import annotations

import torch
from tests.models.tiny_sam2 import tiny_network

from lamella.models.contract import InputContract
from lamella.models.decoders.building import make_head
from lamella.models.decoders.class_tokens import ClassTokenSettings
from lamella.models.decoders.fpn import FpnSettings
from lamella.models.decoders.linear import LinearSettings
from lamella.models.dense_contract import DenseContract
from lamella.models.encoders import ViTEncoder, fresh_vit
from lamella.models.pyramids.any_encoder import EncoderGrid
from lamella.models.pyramids.backbone import Backbone
from lamella.models.pyramids.hiera import HieraPyramid
from lamella.models.pyramids.mix_transformer import MixTransformer
from lamella.models.segmenter import Segmenter
from lamella.models.vit import ViTSettings

CLASSES = ("background", "gland", "stroma")
HEADS = {
    "fpn": FpnSettings(dim=16, dropout=0),
    "fpn without pooling": FpnSettings(dim=16, pooling=False, dropout=0.5),
    "class_tokens": ClassTokenSettings(dim=16, depth=1, heads=2),
    "linear": LinearSettings(),
}
BACKBONES = ("segformer", "sam2 stages", "sam2 neck", "sam2 enlarged", "encoder")


def tiny_backbone(kind: str = "segformer") -> Backbone:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if kind == "segformer":
            backbone: Backbone = MixTransformer((8, 16, 40, 64), (1, 1, 1, 1))
        elif kind == "encoder":
            settings = ViTSettings(patch_px=8, dim=24, depth=1, heads=2, wave_min=8, wave_max=128)
            contract = InputContract(1.0, 32, (0.5,) * 3, (0.2,) * 3, 8, 24)
            backbone = EncoderGrid(ViTEncoder(fresh_vit(settings, 0), contract, "tiny"), mpp=2.0)
        else:
            vision = tiny_network().vision_encoder
            maps = "neck" if kind == "sam2 neck" else "stages"
            backbone = HieraPyramid(vision, maps, enlarge=2 if kind == "sam2 enlarged" else 1)
    return backbone.requires_grad_(False).eval()


def tiny_segmenter(backbone: str = "segformer", head: str = "fpn") -> Segmenter:
    trunk = tiny_backbone(backbone)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        decoder = make_head(HEADS[head], trunk.widths, len(CLASSES))
    contract = DenseContract(CLASSES, 1.0, tile_px=64, multiple_px=32)
    return Segmenter(trunk, decoder, contract, f"{backbone}, {head}")
