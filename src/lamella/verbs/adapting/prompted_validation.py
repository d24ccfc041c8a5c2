"""How well a promptable model in training answers prompts on held images: the very code of `lamella evaluate`.

Before the first step its numbers are therefore those of the model that training began with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from pydantic import Field

from lamella.data.labelled_tiles import LabelledTiles, LabelledTileSettings
from lamella.imaging.datasets.collection import Collection, Item
from lamella.methods.prompted import Prompted
from lamella.metrics.prompted import class_dice
from lamella.models.embedding_cache import EmbeddingCache
from lamella.models.prompt_protocol import PromptName, PromptProtocol
from lamella.models.promptable_model import Embedded
from lamella.verbs.evaluation.prompted_images import answered, remembered, windows_of
from lamella.verbs.evaluation.prompted_study import seed_of

MONITOR = "val_perclass_dice"
"""Mean over the prompts of the mean over the classes of the Dice of all their objects' pixels together."""
_MEMORY_BYTES = 4 << 30  # 250 held images' embeddings; of more the encoder runs again


class ValidationSettings(PromptProtocol):
    """What held images are asked."""

    prompts: tuple[PromptName, ...] = ("box", "clicks")
    """As of `lamella evaluate`; the mean over all of them decides which weights are the best."""
    clicks: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (1, 3)
    """After how many clicks the answer is scored."""
    tile_px: Annotated[int, Field(ge=64)] = 1024
    """Images longer than this are parted, as `lamella evaluate` does."""


@dataclass
class PromptedValidation:
    """Validates a method on whole images; see MONITOR."""

    method: Prompted
    tiles: LabelledTiles
    settings: ValidationSettings
    background: int | None
    seed: int
    device: torch.device

    @classmethod
    def of(
        cls,
        method: Prompted,
        collections: Sequence[Collection],
        items: Sequence[Item],
        data: LabelledTileSettings,
        settings: ValidationSettings,
        seed: int,
        device: torch.device,
    ) -> PromptedValidation:
        """Validation on some items."""
        tiles = LabelledTiles(collections, items, data, seed)
        name = collections[0].mask_background
        return cls(method, tiles, settings, None if name is None else tiles.classes.index(name), seed, device)

    def __post_init__(self) -> None:
        self._cache = EmbeddingCache(self.method.model, memory_bytes=_MEMORY_BYTES)

    def __call__(self, epochs: int) -> Mapping[str, float]:
        """The mean that decides, and each prompt's own; the method is left as it was."""
        was = {module: module.training for module in self.method.modules()}
        self.method.eval()
        try:
            return self._values()
        finally:
            for module, training in was.items():
                module.training = training

    def _values(self) -> dict[str, float]:
        channels: list[np.ndarray] = []
        counts: dict[str, list[np.ndarray]] = {name: [] for name in self.settings.names()}
        for number, (_, item) in enumerate(self.tiles.items):
            found = answered(
                self.method.model,
                list(windows_of(self.tiles.image(number), self.settings.tile_px)),
                self.background,
                self.settings,
                embed=self._embed,
                device=self.device,
                seed=seed_of(item, self.seed),
            )
            if len(found.channels):
                channels.append(found.channels)
                for name, rows in counts.items():
                    rows.append(found.counts[name])
        if not channels:
            return {MONITOR: float("nan")}
        channels_N = np.concatenate(channels)
        ones = np.ones((1, len(channels_N)))
        values = {
            f"val_dice_{name.replace(' ', '_')}": float(
                class_dice(np.concatenate(rows), channels_N, len(self.tiles.classes))(ones)[0]
            )
            for name, rows in counts.items()
        }
        return {MONITOR: float(np.mean(list(values.values()))), **values, "val_objects": len(channels_N)}

    def _embed(self, images: torch.Tensor) -> Embedded:
        """Kept while the encoder stands still; one that learns, or learned since, is run anew."""
        if self.method.settings.encoder == "frozen":
            return remembered(self.method.model, self._cache)(images)
        with torch.no_grad():
            return self.method.model.embed(images)
