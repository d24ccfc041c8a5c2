"""SegFormer's Mix Transformer (MiT-b0 to b5, arXiv 2105.15203) through transformers: strides 4, 8, 16 and 32.

Prototype-based image prompting (arXiv 2503.12068) leaves out the last halving: 4, 8, 16 and 16, of the same weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from torch import Tensor

from lamella.errors import CheckpointError, first_line
from lamella.models.pyramids.backbone import Normalised
from lamella.models.weights import download, listed

Size = Literal["b0", "b1", "b2", "b3", "b4", "b5"]
LastStride = Literal[32, 16]

# Widths of the four stages and their blocks (table 6 of the paper); heads and reductions are alike in all.
_NARROW, _WIDE = (32, 64, 160, 256), (64, 128, 320, 512)
_SIZES: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "b0": (_NARROW, (2, 2, 2, 2)),
    "b1": (_WIDE, (2, 2, 2, 2)),
    "b2": (_WIDE, (3, 4, 6, 3)),
    "b3": (_WIDE, (3, 4, 18, 3)),
    "b4": (_WIDE, (3, 8, 27, 3)),
    "b5": (_WIDE, (3, 6, 40, 3)),
}
_USUAL = 32
_FILES = ("config.json", "model.safetensors", "pytorch_model.bin")
# Of checkpoints with a classifier or a decoder of their own, which is not wanted.
_UNUSED = ("classifier.", "decode_head.")


class MixTransformer(Normalised):
    """The encoder of SegFormer.

    Args:
        widths: Channels of the four stages.
        depths: Blocks of the four stages.
        drop_path: Largest probability of leaving a block out in training.
        licence: Of its weights.
        last_stride: Of the last stage: 32, or 16 where its map is as large as the one before.
    """

    kind = "segformer"
    multiple_px = 32  # stages attend to their map at a 32nd of the tile, also where the last one is not halved

    def __init__(
        self,
        widths: tuple[int, ...],
        depths: tuple[int, ...],
        *,
        drop_path: float = 0.1,
        licence: str = "no weights of others",
        last_stride: LastStride = 32,
    ) -> None:
        super().__init__()
        from transformers import SegformerConfig, SegformerModel  # seconds, and only where it is wanted

        config = SegformerConfig(
            hidden_sizes=list(widths), depths=list(depths), drop_path_rate=drop_path, strides=_steps(last_stride)
        )
        self.network = SegformerModel(config)
        self.widths, self.depths, self.drop_path, self.licence = tuple(widths), tuple(depths), drop_path, licence
        self.last_stride, self.strides = last_stride, (4.0, 8.0, 16.0, float(last_stride))

    def levels(self, x_BCHW: Tensor) -> list[Tensor]:
        return list(self.network(pixel_values=x_BCHW, output_hidden_states=True).hidden_states)

    def description(self) -> Mapping[str, Any]:
        return {
            "widths": list(self.widths),
            "depths": list(self.depths),
            "drop_path": self.drop_path,
            "licence": self.licence,
            # Not said of the usual network, so that models saved before this was a choice keep their fingerprint.
            **({} if self.last_stride == _USUAL else {"last_stride": self.last_stride}),
        }


def _steps(last_stride: int) -> list[int]:
    """By what each stage's patches are apart on the map before."""
    return [4, 2, 2, 2 if last_stride == _USUAL else 1]


def fresh_mix_transformer(size: Size, last_stride: LastStride = 32) -> MixTransformer:
    """A network of this size with weights drawn from torch's random state."""
    return MixTransformer(*_SIZES[size], last_stride=last_stride)


def pretrained_mix_transformer(place: str, last_stride: LastStride = 32) -> MixTransformer:
    """The encoder of a SegFormer checkpoint; its size is the checkpoint's, its decoder is left out.

    Args:
        place: A folder with config.json and weights, or a hub id such as nvidia/mit-b0.
        last_stride: Of the last stage; the weights are the same.

    Raises:
        CheckpointError: There is none, it is damaged, or weights are missing.
    """
    from transformers import SegformerModel

    folder = Path(place)
    if not folder.is_dir():
        folder = download(place, _FILES, "Check the spelling and the network, or give a downloaded folder.")
    _refuse_other_type(folder)
    try:
        network, report = SegformerModel.from_pretrained(
            str(folder),
            dtype=torch.float32,
            local_files_only=True,
            trust_remote_code=False,
            weights_only=True,
            output_loading_info=True,
            strides=_steps(last_stride),
        )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise CheckpointError(folder, f"it cannot be read ({first_line(error)})", "Download it again.") from error
    unknown = [name for name in sorted(report["unexpected_keys"]) if not name.startswith(_UNUSED)]
    problems = [f"{name} is missing" for name in sorted(report["missing_keys"])]
    problems += [f"{name} is unknown" for name in unknown]
    if problems:
        raise CheckpointError(folder, f"its weights are not a SegFormer's: {listed(problems)}", "Download it again.")
    config = network.config
    built = MixTransformer(
        tuple(config.hidden_sizes),
        tuple(config.depths),
        drop_path=config.drop_path_rate,
        licence=f"that of {place}",
        last_stride=last_stride,
    )
    built.network = network
    return built


def _refuse_other_type(folder: Path) -> None:
    path = folder / "config.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(path, f"it cannot be read ({first_line(error)})", "Download the whole folder.") from error
    if found != "segformer":
        raise CheckpointError(
            path, f"it describes no SegFormer (model_type {found})", "Set method.backbone.name=encoder for a ViT."
        )
