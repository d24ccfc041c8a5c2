"""Mask2Former (arXiv 2112.01527) through transformers, as a head: queries, each with classes and a mask.

Score of class c at a pixel, as the paper has it for semantic segmentation: s_c = sum over the queries q of
softmax(class logits of q)_c * sigmoid(mask logit of q at the pixel), the class "nothing" left out. The head's logits
are log s_c, so that their softmax is s_c / sum of s: the scores, brought to a sum of 1.

Shapes: B tiles, C classes, Q queries, L layers, H, W pixels of a tile, h, w of the finest map.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from lamella.config import Settings
from lamella.errors import CheckpointError, LamellaError
from lamella.formats.label_values import NOT_LABELLED
from lamella.models.mask2former_folder import whole_network
from lamella.models.over_ranks import count_over_ranks, sum_over_ranks

LEVELS = 4  # the finest is for masks, the others for the attention
# Added to scores before the logarithm: a class that no query speaks for gets a probability near it instead of -inf.
_LEAST_SCORE = 1e-6
# Mask logit of places that are not labelled while the loss is taken: no query's, and in no class's mask. Its cross
# entropy is 2e-9, and no gradient comes from there.
_NOWHERE = -20.0
# What decides a checkpoint's network beside the settings.
_FIXED = ("feature_size", "mask_feature_size", "encoder_feedforward_dim", "pre_norm", "enforce_input_projection")
_FIXED = (*_FIXED, "common_stride", "activation_function", "feature_strides")
Count = Annotated[int, Field(ge=1)]


class Mask2FormerSettings(Settings):
    """Queries with classes and masks."""

    name: Literal["mask2former"] = "mask2former"
    weights: str | None = None
    """A Mask2Former folder or hub id to begin with: its sizes win over those below, and the class layer is drawn
    afresh. The backbone must be of the same widths (`backbone.name=swin` with the same weights)."""
    dim: Annotated[int, Field(ge=32, multiple_of=32)] = 256
    """Width of queries and pixel embeddings."""
    queries: Count = 100
    """How many masks may be proposed."""
    pixel_layers: Count = 6
    """Layers of deformable attention among the maps."""
    query_layers: Count = 9
    """Layers of masked attention from queries to maps."""
    heads: Count = 8
    """Attention heads; they divide the width."""
    feedforward: Count = 2048
    """Width within a layer of queries; half of it within a layer of maps."""
    points: Count = 12544
    """Places of a mask at which the set loss looks; 112 x 112 in the paper."""
    loss: Literal["sets", "pixels"] = "sets"
    """sets: Mask2Former's own, each class of a tile matched with a query. pixels: focal and Dice, as of other heads."""


class Mask2FormerHead(nn.Module):
    """Logits on the finest grid; see the module.

    Raises:
        LamellaError: The backbone does not give four maps.
    """

    def __init__(self, settings: Mask2FormerSettings, widths: tuple[int, ...], classes: int) -> None:
        super().__init__()
        if len(widths) != LEVELS:
            raise LamellaError(
                "head mask2former",
                f"it needs {LEVELS} maps, each half as fine as the one before, and the backbone gives {len(widths)}",
                "Take a backbone with stages: segformer, swin, or sam2 with maps=stages.",
            )
        from lamella.models.decoders.mask2former_network import QueryNetwork  # transformers: seconds

        self.classes = classes
        whole = None
        if settings.weights is not None:
            whole = whole_network(settings.weights)
            settings = own_settings(whole.config, settings)
        self.settings = settings
        self.network = QueryNetwork(_config(settings, classes), widths)
        if whole is not None:
            take_weights(self, whole)

    def forward(self, levels: list[Tensor]) -> Tensor:
        """(B, C, h, w) float32 logits: the logarithm of each class's score."""
        classes, masks = self.network(levels)
        return class_logits(classes[-1], masks[-1])

    def answers(self, levels: list[Tensor]) -> Tensor:
        """What the set loss needs of every layer, a tile a row: (B, L, Q, C + 1 + h * w) float32."""
        classes, masks = self.network(levels)
        whole = [torch.cat([own, mask.flatten(2)], 2).float() for own, mask in zip(classes, masks, strict=True)]
        return torch.stack(whole, 1)

    def set_loss(self, answers: Tensor, mask_BHW: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Mask2Former's loss, as transformers computes it: classes of a tile are matched with queries.

        Every class that occurs in a tile is one mask. Places that are not labelled have no say (the library's loss has
        no such thing): there every mask logit is set to what the truth says, and no gradient comes from them.

        Args:
            answers: Of `answers`.
            mask_BHW: uint8 channels or NOT_LABELLED.

        Returns:
            A float32 scalar, and detached scalars to log: the terms of the last layer and the sum of the inner ones.
        """
        height, width = mask_BHW.shape[-2:]
        pixels = answers.shape[-1] - self.classes - 1
        rows = round((height * pixels / width) ** 0.5)
        grid = (rows, pixels // rows)
        ignored = F.adaptive_max_pool2d((mask_BHW == NOT_LABELLED).float()[:, None], grid).bool()  # (B, 1, h, w)
        layers = answers.unbind(1)
        classes = [layer[..., : self.classes + 1] for layer in layers]
        masks = [layer[..., self.classes + 1 :].unflatten(-1, grid).masked_fill(ignored, _NOWHERE) for layer in layers]
        labelled = F.interpolate((~ignored).float(), size=(height, width)).bool()[:, 0]
        targets, labels = [], []
        for one, seen in zip(mask_BHW, labelled, strict=True):
            present = one[seen & (one != NOT_LABELLED)].unique().long()
            labels.append(present)
            targets.append(((one[None] == present[:, None, None]) & seen).float())
        terms = self.network.weighted_loss(classes, masks, targets, labels)
        # The mean over ranks of each one's own loss: a rank matches and counts the masks of its own tiles.
        terms = {name: sum_over_ranks(value) / count_over_ranks(1, value) for name, value in terms.items()}
        whole = torch.stack(list(terms.values())).sum()
        last = {name: value.detach() for name, value in terms.items() if not name[-1].isdigit()}
        return whole, {**last, "loss_inner": (whole - torch.stack(list(last.values())).sum()).detach()}


def class_logits(classes_BQC: Tensor, masks_BQhw: Tensor) -> Tensor:
    """Log of sum over queries of softmax(classes)_c * sigmoid(mask), (B, C, h, w) float32.

    Args:
        classes_BQC: Logits of C classes and, last, of "nothing".
        masks_BQhw: Logits of the masks.
    """
    shares_BQC = classes_BQC.float().softmax(-1)[..., :-1]
    scores = torch.einsum("bqc,bqhw->bchw", shares_BQC, masks_BQhw.float().sigmoid())
    return (scores + _LEAST_SCORE).log()


def _config(settings: Mask2FormerSettings, classes: int) -> Any:
    from transformers import Mask2FormerConfig

    return Mask2FormerConfig(
        feature_size=settings.dim,
        mask_feature_size=settings.dim,
        hidden_dim=settings.dim,
        encoder_feedforward_dim=max(1, settings.feedforward // 2),
        dim_feedforward=settings.feedforward,
        encoder_layers=settings.pixel_layers,
        decoder_layers=settings.query_layers + 1,  # transformers counts the answer before the first layer
        num_attention_heads=settings.heads,
        num_queries=settings.queries,
        train_num_points=settings.points,
        num_labels=classes,
    )


def own_settings(config: Any, settings: Mask2FormerSettings) -> Mask2FormerSettings:
    """The settings that build a checkpoint's queries, also again from a model folder alone.

    Raises:
        CheckpointError: The checkpoint has something that settings cannot say.
    """
    sizes = {
        "weights": None,
        "dim": config.hidden_dim,
        "queries": config.num_queries,
        "pixel_layers": config.encoder_layers,
        "query_layers": config.decoder_layers - 1,
        "heads": config.num_attention_heads,
        "feedforward": config.dim_feedforward,
        "points": config.train_num_points,
    }
    found = settings.model_copy(update=sizes)
    theirs, ours = (
        json.loads(each.to_json_string(use_diff=False)) for each in (config, _config(found, config.num_labels))
    )
    differing = ", ".join(f"{key}={theirs[key]}" for key in _FIXED if theirs[key] != ours[key])
    if differing:
        place = settings.weights or "the checkpoint"
        raise CheckpointError(place, f"it has {differing}, which is not built here", "Give another.")
    return found


def take_weights(head: Mask2FormerHead, whole: Any, *, classes: bool = False) -> None:
    """Copy the queries of a checkpoint into a head of the same sizes.

    Args:
        head: Changed in place.
        whole: A `Mask2FormerForUniversalSegmentation`.
        classes: Also the class layer.

    Raises:
        CheckpointError: They were trained on maps of other widths.
    """
    network, module = head.network, whole.model.pixel_level_module
    channels, own = tuple(module.encoder.channels), tuple(network.pixel_decoder.feature_channels)
    if channels != own:
        raise CheckpointError(
            whole.name_or_path,
            f"its queries were trained on maps {channels} wide, and the backbone's are {own}",
            "Give the backbone the same weights: backbone.name=swin backbone.weights=...",
        )
    network.pixel_decoder.load_state_dict(module.decoder.state_dict())
    network.transformer_module.load_state_dict(whole.model.transformer_module.state_dict())
    if classes:
        network.class_predictor.load_state_dict(whole.class_predictor.state_dict())
