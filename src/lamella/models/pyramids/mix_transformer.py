"""SegFormer's Mix Transformer (MiT-b0 to b5, arXiv 2105.15203) through transformers: strides 4, 8, 16 and 32."""

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
    """

    kind = "segformer"
    strides = (4.0, 8.0, 16.0, 32.0)
    multiple_px = 32

    def __init__(
        self,
        widths: tuple[int, ...],
        depths: tuple[int, ...],
        *,
        drop_path: float = 0.1,
        licence: str = "no weights of others",
    ) -> None:
        super().__init__()
        from transformers import SegformerConfig, SegformerModel  # seconds, and only where it is wanted

        config = SegformerConfig(hidden_sizes=list(widths), depths=list(depths), drop_path_rate=drop_path)
        self.network = SegformerModel(config)
        self.widths, self.depths, self.drop_path, self.licence = tuple(widths), tuple(depths), drop_path, licence

    def levels(self, x_BCHW: Tensor) -> list[Tensor]:
        return list(self.network(pixel_values=x_BCHW, output_hidden_states=True).hidden_states)

    def description(self) -> Mapping[str, Any]:
        return {
            "widths": list(self.widths),
            "depths": list(self.depths),
            "drop_path": self.drop_path,
            "licence": self.licence,
        }


def fresh_mix_transformer(size: Size) -> MixTransformer:
    """A network of this size with weights drawn from torch's random state."""
    return MixTransformer(*_SIZES[size])


def pretrained_mix_transformer(place: str) -> MixTransformer:
    """The encoder of a SegFormer checkpoint; its size is the checkpoint's, its decoder is left out.

    Args:
        place: A folder with config.json and weights, or a hub id such as nvidia/mit-b0.

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
        tuple(config.hidden_sizes), tuple(config.depths), drop_path=config.drop_path_rate, licence=f"that of {place}"
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
