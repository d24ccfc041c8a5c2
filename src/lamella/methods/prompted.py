"""Training a promptable model on known objects: a first prompt, then clicks where its answer was wrong.

Source: SAM 2 (arXiv 2408.00714), section D.2. Each round's answer is shown to the model again as a mask prompt, with
one more click anywhere in the wrong region; every round is learned from. One click is ambiguous, so it is answered by
three masks of which the best one learns; every other prompt by one. The encoder is frozen unless told otherwise, and is
then run without gradient, once a tile.

Shapes: B tiles, M objects on each, K masks, P clicks, H x W pixels, h x w cells of the mask grid.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from lamella.config import Settings
from lamella.methods.sam_loss import SamLossSettings, sam_loss
from lamella.models.embedding_cache import EmbeddingCache
from lamella.models.lora import add_lora
from lamella.models.promptable_model import MASK_LOGIT, Embedded, PromptableModel
from lamella.models.prompts import PADDING, Prompts
from lamella.models.sam2 import ENCODER_PARTS
from lamella.models.simulated_user import correction

_CLICKS = 20  # the stream of correction clicks; `data.prompted_objects` has 19

Batch = dict[str, Tensor]
Logs = dict[str, Tensor]


class LoraSettings(Settings):
    """Low-rank additions to the encoder's attention, for encoder=lora."""

    rank: Annotated[int, Field(ge=1)] = 8
    """Inner width."""
    alpha: Annotated[float, Field(gt=0)] = 16.0
    """The addition is scaled by alpha / rank."""


class PromptedSettings(Settings):
    """Settings of `method.name=prompted`."""

    name: Literal["prompted"] = "prompted"
    encoder: Literal["frozen", "trained", "lora"] = "frozen"
    """frozen: only what reads prompts and draws masks learns. trained: all of it, as optim.stages says. lora: additions
    to the encoder's attention learn, too."""
    corrections: Annotated[int, Field(ge=0)] = 3
    """Clicks after the first prompt; SAM 2 was trained with 7."""
    loss: SamLossSettings = SamLossSettings()
    loss_on: Literal["image", "grid"] = "image"
    """Pixels of the loss: the tile's own, or the cells of the model's mask grid (256 a side), a cell being of the
    object where more than half of it is: a sixteenth of the memory of tiles of 1024 px, hardly quicker."""
    lora: LoraSettings = LoraSettings()


class Prompted(nn.Module):
    """The method `prompted`.

    Args:
        model: Trained in place.
        settings: The method's.
        weights_C: How much an object of each class counts.
        seed: Of the correction clicks and of LoRA.
        cache: Keeps the embeddings of tiles that come again and again; for an encoder that learns nothing.
    """

    _weights_C: Tensor
    # Of the decoder: a step without one-click prompts does not use the three masks, one without boxes no corners.
    leaves_unused = True

    def __init__(
        self,
        model: PromptableModel,
        settings: PromptedSettings,
        weights_C: Tensor,
        seed: int = 0,
        cache: EmbeddingCache | None = None,
    ) -> None:
        super().__init__()
        self.model, self.settings, self.seed = model, settings, seed
        self._cache = cache if settings.encoder == "frozen" else None
        self.register_buffer("_weights_C", weights_C.float(), persistent=False)
        for name, parameter in model.network.named_parameters():
            in_encoder = name.startswith(ENCODER_PARTS)
            parameter.requires_grad_(not in_encoder or settings.encoder == "trained")
        if settings.encoder == "lora":
            add_lora(model, rank=settings.lora.rank, alpha=settings.lora.alpha, seed=seed)

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        """The mean loss of the tiles, each the mean of its objects and rounds; weights of classes are not normalised.

        Normalising by their sum would cancel them wherever a tile shows one class only.

        Args:
            batch: As of `PromptedObjects.batch`.
        """
        # In training SAM 2's decoder takes the one mask as it is; only when it answers users it falls back on the three
        # where that one is unstable.
        self.model.network.mask_decoder.train()
        embedded = self.embed(batch)
        asked = Prompts(batch["points"], batch["labels"], batch["boxes"])
        boxed_B = ~batch["boxes"].isnan().all(-1).all(-1)
        rounds: list[Tensor] = []
        logs: Logs = {}
        logits_BMhw = None
        for number in range(self.settings.corrections + 1):
            if number == 0:
                loss_BM, parts, logits_BMhw = self._first(embedded, asked, boxed_B, batch)
            else:
                asked = self._corrected(asked, logits_BMhw, embedded, batch, number)
                loss_BM, parts, logits_BMhw = self._round(embedded, asked, batch, several=False)
            rounds.append(loss_BM)
            logs |= {f"{name}_{number}": value for name, value in parts.items()} if number == 0 else parts
        weights_BM = self._weights_C[batch["channel"]]
        loss = (torch.stack(rounds).mean(0) * weights_BM).mean()
        return loss, logs

    def after_step(self, progress: float) -> None:
        """Nothing follows a step."""

    def embed(self, batch: Batch) -> Embedded:
        """The tiles' embeddings: kept, made without gradient, or made with it where the encoder learns right now."""
        if self.model.encoder_trained:
            return self.model.embed(batch["image"])
        if self._cache is not None and bool((batch["view"] >= 0).all()):
            return self._cache.embed(batch["image"])
        with torch.no_grad():
            return self.model.embed(batch["image"])

    def _first(self, embedded: Embedded, asked: Prompts, boxed_B: Tensor, batch: Batch) -> tuple[Tensor, Logs, Tensor]:
        """The first round: tiles with clicks are answered by three masks an object, tiles with boxes by one."""
        rows, losses, grids, parts = [], [], [], []
        for boxed in (False, True):
            index = (boxed_B == boxed).nonzero()[:, 0]
            if not len(index):
                continue
            some = Prompts(*(_some(part, index) for part in (asked.points_BMP2, asked.labels_BMP, asked.boxes_BM4)))
            of_tiles = {key: batch[key][index] for key in ("objects", "known")}
            loss, logs, grid = self._round(embedded.of(index), some, of_tiles, several=not boxed)
            rows.append(index)
            losses.append(loss)
            grids.append(grid)
            parts.append((len(index), logs))
        back = torch.cat(rows).argsort()
        total = sum(count for count, _ in parts)
        logs = {name: torch.stack([count * each[name] for count, each in parts]).sum() / total for name in parts[0][1]}
        return torch.cat(losses)[back], logs, torch.cat(grids)[back]

    def _round(
        self, embedded: Embedded, asked: Prompts, batch: Mapping[str, Tensor], *, several: bool
    ) -> tuple[Tensor, Logs, Tensor]:
        """(B, M) losses of one answer, means of their parts, and the (B, M, h, w) logits that the user is shown."""
        decoded = self.model.decode(embedded, asked, several)
        B, M = decoded.iou_BMK.shape[:2]
        truth_BMYX, known_BYX = batch["objects"], batch["known"]
        if self.settings.loss_on == "image":
            logits = self.model.upsample(decoded.logits_BMKhw, embedded)
        else:
            logits = decoded.logits_BMKhw
            truth_BMYX, known_BYX = on_grid(truth_BMYX, known_BYX, embedded, logits.shape[-1])
        known_BMYX = known_BYX[:, None].expand_as(truth_BMYX)
        object_N = None if decoded.object_BM is None else decoded.object_BM.flatten()
        loss_N, parts = sam_loss(
            logits.flatten(0, 1),
            decoded.iou_BMK.flatten(0, 1),
            object_N,
            truth_BMYX.flatten(0, 1),
            known_BMYX.flatten(0, 1),
            self.settings.loss,
        )
        return loss_N.reshape(B, M), parts, decoded.best().logits_BMKhw[:, :, 0].detach()

    @torch.no_grad()
    def _corrected(
        self, asked: Prompts, logits_BMhw: Tensor | None, embedded: Embedded, batch: Batch, number: int
    ) -> Prompts:
        """The prompts with one more click for each object whose answer is wrong somewhere, and the answer itself."""
        assert logits_BMhw is not None
        assert asked.points_BMP2 is not None
        assert asked.labels_BMP is not None
        predicted = (self.model.upsample(logits_BMhw, embedded) > MASK_LOGIT).cpu().numpy()
        truth, known = batch["objects"].cpu().numpy(), batch["known"].cpu().numpy()
        B, M = truth.shape[:2]
        points, labels = torch.zeros(B, M, 1, 2), torch.full((B, M, 1), PADDING)
        for tile, position in enumerate(batch["position"].tolist()):
            # Of the position, not of the rank: two processes click where one would.
            rng = np.random.default_rng((_CLICKS, position, number, self.seed))
            for row in range(M):
                click = correction(truth[tile, row], predicted[tile, row], known[tile], rng)
                if click is not None:
                    points[tile, row, 0], labels[tile, row, 0] = torch.tensor(click[:2]), click[2]
        device = asked.points_BMP2.device
        return replace(
            asked,
            points_BMP2=torch.cat([asked.points_BMP2, points.to(device)], dim=2),
            labels_BMP=torch.cat([asked.labels_BMP, labels.to(device)], dim=2),
            masks_BMhw=logits_BMhw,
        )


def on_grid(truth_BMYX: Tensor, known_BYX: Tensor, embedded: Embedded, side: int) -> tuple[Tensor, Tensor]:
    """Truth and where it is known on the cells of the mask grid, which covers the canvas; bool both.

    Beyond the image nothing is known. A cell is of the object where more than half of it is, and known where more than
    half of it is.
    """
    planes = torch.cat([truth_BMYX, known_BYX[:, None]], dim=1).float()
    placed = embedded.canvas.place(planes, planes.new_zeros(planes.shape[1], 1, 1))
    cells = F.adaptive_avg_pool2d(placed, side) > 0.5
    return cells[:, :-1], cells[:, -1]


def _some(part: Tensor | None, index: Tensor) -> Tensor | None:
    return None if part is None else part[index]
